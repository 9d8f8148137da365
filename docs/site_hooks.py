"""What `make docs` does beyond Markdown: pages of the folder above, links to files that the site lacks."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

# Pages of the project's folder, and what they are called on the site.
ABOVE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "readme.md"}
LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)\)")
# A browser would have to fetch the program that draws it.
MERMAID = re.compile(r"^```mermaid\n.*?^```", re.MULTILINE | re.DOTALL)
DRAWN = "A forge draws it from README.md; [Architecture](docs/architecture.md#the-graph) has a table."
# What the theme would have a browser fetch in order to search in a site that is opened from a file, and ours.
FETCHED, OURS = "https://unpkg.com/iframe-worker/shim", "search-from-files.js"
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors as a forge makes them."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages above are part of the site."""
    for name, shown in ABOVE.items():
        text = (Path(config.docs_dir).parent / name).read_text(encoding="utf-8")
        files.append(File.generated(config, shown, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them: a file of the code is a name there, not a link."""
    above = page.file.src_path in ABOVE.values()
    parts = FENCE.split(MERMAID.sub(DRAWN, markdown))
    parts[::2] = [LINK.sub(lambda found: rewrite(found, above), part) for part in parts[::2]]
    return "".join(parts)


def rewrite(found: re.Match[str], above: bool) -> str:
    """One link. `above`: its page lies in the folder above docs/."""
    text, target = found.groups()
    if re.match("https?:|#", target):
        return found[0]
    path, hash_, anchor = target.partition("#")
    path = path.removeprefix("docs/") if above else path
    name = path.removeprefix("../")
    if name in ABOVE and (above or path != name):
        return f"[{text}]({ABOVE[name]}{hash_}{anchor})"
    if path.startswith("../") or (above and not path.endswith((".md", ".svg", ".png"))):
        return text  # a file of the code
    return f"[{text}]({path}{hash_}{anchor})"


def on_post_page(output: str, **_: Any) -> str:
    """A page that asks nobody outside for anything."""
    return output.replace(FETCHED, OURS)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page that is shown where there is none."""
    return on_post_page(output_content)

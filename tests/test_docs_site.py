"""The docs as a site: every page has a place, every link leads somewhere, nothing is fetched."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tree import ROOT

CONFIG = YAML(typ="safe", pure=True).load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
ABOVE = {"readme.md", "contributing.md", "changelog.md"}
needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: make docs"
)


def pages(nav: list[Any]) -> list[str]:
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += pages(value) if isinstance(value, list) else [value]
    return found


def test_every_page_has_one_place_in_the_navigation() -> None:
    there = {path.name for path in ROOT.glob("docs/*.md")} | ABOVE
    listed = pages(CONFIG["nav"])
    assert len(listed) == len(set(listed))
    assert there == set(listed), "name each page in `nav` of mkdocs.yml, and no other"


def test_pages_come_in_the_order_in_which_they_are_read() -> None:
    listed = pages(CONFIG["nav"])
    order = [
        *(
            "index.md",
            "first-run.md",
            "first-change.md",
            "first-plugin.md",
            "first-gpu-run.md",
            "real-models.md",
            "several-gpus.md",
        ),
        *(
            "collecting.md",
            "evaluation.md",
            "troubleshooting.md",
            "settings.md",
            "architecture.md",
            "grpo-step.md",
        ),
    ]
    assert [page for page in listed if page in order] == order


def test_the_front_page_names_every_page() -> None:
    front = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    there = {path.name for path in ROOT.glob("docs/*.md")} - {"index.md"}
    assert there <= set(re.findall(r"\]\(([\w-]+\.md)\)", front))


def test_no_page_has_a_picture_that_a_browser_must_fetch_a_program_for() -> None:
    for path in ROOT.glob("docs/*.md"):
        assert "```mermaid" not in path.read_text(encoding="utf-8"), path.name


def load_hooks() -> Any:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site_hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LINKS = [
    (False, "[a](models.md#b)", "[a](models.md#b)"),
    (False, "[a](../README.md#layout)", "[a](readme.md#layout)"),
    (False, "[a](../chainforge/loops/sft.py)", "a"),
    (False, "[a](https://x.example/y.md)", "[a](https://x.example/y.md)"),
    (True, "[a](docs/models.md)", "[a](models.md)"),
    (True, "![a](docs/curves.svg)", "![a](curves.svg)"),
    (True, "[a](CHANGELOG.md)", "[a](changelog.md)"),
    (True, "[a](LICENSE)", "a"),
]


@needs_mkdocs
@pytest.mark.parametrize(("above", "link", "expected"), LINKS)
def test_a_link_leads_to_the_same_place_on_the_site(above: bool, link: str, expected: str) -> None:
    hooks = load_hooks()
    assert hooks.LINK.sub(lambda found: hooks.rewrite(found, above), link) == expected


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@needs_mkdocs
@pytest.mark.slow
def test_no_page_of_the_site_has_anything_fetched_from_outside(site: Path) -> None:
    built = list(site.rglob("*.html"))
    assert len(built) > len(list(ROOT.glob("docs/*.md")))
    loads = re.compile(
        r"<(?:script|link|img|iframe|source|object)\b[^>]*?\b(?:src|href|data)=\"?((?:https?:)?//[^\"> ]+)"
    )
    for page in built:
        text = page.read_text(encoding="utf-8")
        assert loads.findall(text) == [], page.name
        assert 'class="mermaid"' not in text
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), (
            style.name
        )


@needs_mkdocs
@pytest.mark.slow
def test_the_navigation_of_the_site_leads_to_every_page(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="([\w-]+)\.html" class="md-nav__link', text))
    assert linked | {"index"} == {path.stem for path in site.glob("*.html")} - {"404"}
    assert not re.search(r">\s*None\s*<", text)


@needs_mkdocs
@pytest.mark.slow
def test_every_error_message_is_in_the_index_of_the_search_by_itself(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    found = [entry["title"] for entry in index["docs"] if entry["location"].startswith("errors.html#")]
    headings = re.findall(r"^##+ ", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == len(headings)
    assert (
        site / "search/search_index.js"
    ).is_file()  # as a script: pages that were opened from a file read it
    assert (site / "search-from-files.js").is_file()

"""`chainforge plugins new`: a whole package to start from, with its tests."""

import keyword
import re
from pathlib import Path

import click

import chainforge
from chainforge.cli.roles import as_role, title
from chainforge.errors import ChainForgeError
from chainforge.outputs import whole_folder, write_text
from chainforge.plugins import FOLDER, load_plugins

NAME = re.compile(r"[a-z](_?[a-z0-9])*")
OURS = Path(chainforge.__file__).parents[1] / FOLDER  # the bundled plugins, where ChainForge is a checkout
SUMMARIES = {
    "rewards": "0.0 for no reasoning, rising to 1.0 for 200 characters of it",
    "prompt_sources": "products of two numbers, made on the spot",
    "teachers": "a short chain of thought that ends in the prompt's own answer",
    "student_models": "a new Llama, small enough for a CPU, with one token per byte",
}
USES = {
    "rewards": "dvc exp run -S '+grpo_final.rewards.{name}=0.1'",
    "prompt_sources": "dvc exp run -S prompts.reasoning.source={name}",
    "teachers": "dvc exp run -S collect_cot.teacher={name}",
    "student_models": "dvc exp run -S sft_cold_start.model={name}",
}


@click.command("new")
@click.argument("role", callback=as_role)
@click.argument("name")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write it; chainforge-NAME here.")
def new_plugin(role: str, name: str, folder: Path | None) -> None:
    """Write a package with one plugin that works as it is, and its tests: the start of your own.

    ROLE is reward, prompt-source, teacher or student-model; NAME is what params.yaml will say.
    """
    check_name(role, name)
    folder = folder or Path(distribution(name))
    if folder.exists() or folder.is_symlink():
        raise ChainForgeError(f"{folder} is there already", "choose another name, or another --folder")
    files = rendered(role, name)
    with whole_folder(folder) as partial:
        for path, text in files.items():
            write_text(partial / path, text)
    click.echo(f"{folder}/ has {len(files)} files; write your own at `# replace this`. Next:\n")
    click.echo(f"  pip install -e {folder}")
    click.echo(f"  python -m pytest {folder}")
    click.echo(f"  chainforge plugins check {name} --role {title(role)}")
    click.echo(f"  {USES[role].format(name=name)}")


def distribution(name: str) -> str:
    """What pip calls the package."""
    return f"chainforge-{name.replace('_', '-')}"


def rendered(role: str, name: str) -> dict[str, str]:
    """The text of every file of the package, by its path in it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    module = f"chainforge_{name}"
    templates = Environment(
        loader=PackageLoader("chainforge"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    values = {
        "name": name,
        "module": module,
        "distribution": distribution(name),
        "title": title(role).replace("-", " "),
        "summary": SUMMARIES[role],
        "use": USES[role].format(name=name),
    }
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        ".gitignore": "gitignore.j2",
        f"src/{module}.py": f"{title(role)}.py.j2",
        f"tests/test_{name}.py": f"{title(role)}_test.py.j2",
    }
    return {path: templates.get_template(template).render(values) for path, template in files.items()}


def check_name(role: str, name: str) -> None:
    """Raise ChainForgeError for a name that cannot be one, or that another plugin has."""
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        guess = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789") or "my_plugin"
        guess = f"my_{guess}" if keyword.iskeyword(guess) else guess
        raise ChainForgeError(
            f"{name!r} cannot be a plugin's name",
            f"use small letters, digits and single underscores, and no word of Python's: {guess}",
        )
    if name == "r1":
        raise ChainForgeError("chainforge-r1 is ChainForge itself", "choose another name")
    for folder in {FOLDER.resolve(), OURS.resolve()}:
        if entry := load_plugins(folder).entries.get((role, name)):
            raise ChainForgeError(
                f"there is a {title(role)} called {name!r} already, from {Path(entry.source).name}",
                "choose another name: a name belongs to one plugin",
            )

"""`chainforge plugins new`: a whole package to start from, with its tests."""

import keyword
import re
import sys
from pathlib import Path

import click

import chainforge
from chainforge.bundle import bundle
from chainforge.cli.complete import complete, role_names
from chainforge.cli.project import Place, from_here
from chainforge.cli.roles import as_role, title
from chainforge.errors import ChainForgeError
from chainforge.outputs import whole_folder, write_text
from chainforge.plugins import FOLDER, load_plugins

LONGEST = 60  # characters: a file's name has at most 255 bytes, and a distribution's is longer than this
NAME = re.compile(r"[a-z](_?[a-z0-9])*")
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
    "student_models": "dvc exp run -S base_model={name}",
}


@click.command("new")
@click.argument("role", callback=as_role, shell_complete=complete(role_names))
@click.argument("name")
@click.option("--folder", type=Place(), help="Where to write it; chainforge-NAME here.")
@click.pass_context
def new_plugin(ctx: click.Context, role: str, name: str, folder: Path | None) -> None:
    """Write a package with one plugin that works as it is, and its tests: the start of your own.

    ROLE is reward, prompt-source, teacher or student-model; NAME is what params.yaml will say.
    """
    check_name(role, name)
    folder = folder or from_here(Path(distribution(name)), ctx)
    if folder.exists() or folder.is_symlink():
        raise ChainForgeError(f"{folder} is there already", "choose another name, or another --folder")
    files = render_files(role, name)
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


def render_files(role: str, name: str) -> dict[str, str]:
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
        "api_version": chainforge.API_VERSION,
    }
    files = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        ".gitignore": "gitignore.j2",
        f"src/{module}.py": f"{title(role)}.py.j2",
        f"tests/test_{name}.py": f"{title(role)}_test.py.j2",
    }
    return {path: templates.get_template(template).render(values) for path, template in files.items()}


def fits(name: str) -> bool:
    """Whether it can be a module, and is not one of Python's own, which it would be mistaken for."""
    return (
        bool(NAME.fullmatch(name))
        and len(name) <= LONGEST
        and not keyword.iskeyword(name)
        and not keyword.issoftkeyword(name)
        and name not in sys.stdlib_module_names
    )


def check_name(role: str, name: str) -> None:
    """Raise ChainForgeError for a name that cannot be one, or that another plugin has."""
    if not fits(name):
        guess = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789") or "my_plugin"
        guess = guess[:LONGEST].strip("_") if len(guess) > LONGEST else guess
        guess = guess if fits(guess) else f"my_{guess}"
        raise ChainForgeError(
            f"{name!r:.80} cannot be a plugin's name",
            f"use at most {LONGEST} small letters, digits and single underscores, no word or module of "
            f"Python's: {guess}",
        )
    if name == "r1":
        raise ChainForgeError("chainforge-r1 is ChainForge itself", "choose another name")
    for folder in {FOLDER.resolve(), (bundle() / FOLDER).resolve()}:
        if entry := load_plugins(folder).entries.get((role, name)):
            raise ChainForgeError(
                f"there is a {title(role)} called {name!r} already, from {Path(entry.source).name}",
                "choose another name: a name belongs to one plugin",
            )

"""Which experiments there are, what each was set to, and which are the same settings with another seed."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from chainforge.config.yaml import parse_yaml
from chainforge.errors import ChainForgeError
from chainforge.report.compare.problems import Answers
from chainforge.report.compare.revision import Revision
from chainforge.report.compare.settings import changed_settings, value_of
from chainforge.report.compare.text import name_some, short

SEED = "run.seed"
UNWATCHED = ("runtime", "collector")  # change no result: docs/architecture.md
DIGITS = 5  # of a learning rate; what differs beyond them differs by rounding only
RATE = "learning_rate"
Tree = Mapping[str, Any]


@dataclass
class SeedRun:
    """A commit or an experiment below one."""

    name: str
    commit: str
    revision: Revision = field(init=False)

    def __post_init__(self) -> None:
        self.revision = Revision(self.commit)
        self.revision.name = self.name  # what errors call it

    @cached_property
    def params(self) -> Tree:
        """params.yaml."""
        return self.revision.params

    @cached_property
    def is_twin(self) -> bool:
        """Whether it differs from the settings it repeats by rounding only."""
        return plain(self.params, "") != settings_of(self.params, "")

    def answers(self, checkpoint: str, bench: str) -> Answers | None:
        """What it was graded by, or None where it was not evaluated with these settings."""
        usable = (checkpoint, bench) in self.usable_cells
        return self.revision.answers(checkpoint, bench) if usable else None

    @cached_property
    def usable_cells(self) -> list[tuple[str, str]]:
        """(checkpoint, bench) of the evaluations whose answers are those of its settings."""
        try:
            return [cell for cell in self.revision.cells if cell not in self.revision.outdated]
        except ChainForgeError:  # nothing was evaluated
            return []


class Runs(AbstractContextManager["Runs"]):
    """HEAD and the experiments below it, or those of every commit; closed together."""

    def __init__(self, *, all_commits: bool = False) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from scmrepo.exceptions import SCMError

        try:
            head = head_commit()
            with Repo() as repo:
                listed = repo.experiments.ls(rev="HEAD", all_commits=all_commits)
        except (DvcException, SCMError) as error:
            raise ChainForgeError(f"dvc exp list failed: {error}", "experiments need git and dvc") from error
        baselines = [head, *(commit for commit in listed if commit != head)]
        self.all = [SeedRun("HEAD" if c == head else c[:9], c) for c in baselines]
        self.all += [SeedRun(name, commit) for found in listed.values() for name, commit in found]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for run in self.all:
            run.revision.close()


def head_commit() -> str:
    """Of the commit that experiments hang from. Raises ChainForgeError where there is none."""
    told = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True)
    if told.returncode:
        raise ChainForgeError(
            "experiments need a commit to hang from, and there is none here",
            "git init, then git add --all && git commit",
        )
    return told.stdout.strip()


def plain(params: Tree, over: str) -> Tree:
    """The settings that a result depends on, as JSON has them, without `over`."""
    watched = {key: value for key, value in params.items() if key not in UNWATCHED}
    tree: dict[str, Any] = json.loads(json.dumps(watched, default=str))
    *path, leaf = over.split(".")
    node = value_of(tree, ".".join(path)) if path else tree
    if isinstance(node, dict):
        node.pop(leaf, None)
    return tree


def settings_of(params: Tree, over: str = SEED) -> Tree:
    """The same, with learning rates as exact as people write them: those of a run and its twins are equal."""
    rounded: Tree = _round(plain(params, over))
    return rounded


def _round(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _round(inner, name) for name, inner in value.items()}
    return float(f"{value:.{DIGITS}g}") if key == RATE and isinstance(value, float) else value


def choose(runs: Sequence[SeedRun], wanted: str, over: str) -> dict[Any, SeedRun]:
    """The runs that `wanted` names, by their value of `over`; the last of each. Twins are left out.

    `wanted` is settings, as in grpo.kl_coeff=0,grpo.beta=1, or the beginning of names. Raises ChainForgeError
    if there is none, or if they differ in more than `over`: then no difference could be laid to one setting.
    """
    fits = _by_settings(wanted) if "=" in wanted else _by_name(wanted)
    found = [run for run in runs if fits(run) and run.usable_cells and not run.is_twin]
    if not found:
        names = [run.name for run in runs if run.usable_cells]
        raise ChainForgeError(
            f"no run that has ended fits {wanted!r}; there are: {name_some(names) or 'none'}",
            f"chainforge seeds 17 18 19 -S {wanted if '=' in wanted else 'KEY=VALUE'} makes some; "
            "chainforge experiments shows them; -A looks at all commits",
        )
    differs = dict.fromkeys(
        key
        for run in found
        for key in changed_settings(settings_of(found[0].params, over), settings_of(run.params, over))
    )
    if differs:
        raise ChainForgeError(
            f"the runs that fit {wanted!r} differ in more than {over}: {name_some(list(differs))}",
            f"name one setting, as in {_narrower(wanted, found, next(iter(differs)))}",
        )
    return {_key(value_of(run.params, over)): run for run in found}


def _key(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else json.dumps(value, default=str)


def _narrower(wanted: str, found: Sequence[SeedRun], key: str) -> str:
    pair = f"{key}={short(value_of(found[-1].params, key))}"
    return f"{wanted},{pair}" if "=" in wanted else pair


def _by_settings(wanted: str) -> Any:
    pairs = [part.partition("=") for part in re.split(r",(?=[\w.@-]+=)", wanted)]
    values = {key.strip(): parse_yaml(text, f"the value of {key}") for key, _, text in pairs}

    def fits(run: SeedRun) -> bool:
        return all(same(value_of(run.params, key), value) for key, value in values.items())

    return fits


def same(a: Any, b: Any) -> bool:
    """Equal, and true is no 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _by_name(wanted: str) -> Any:
    def fits(run: SeedRun) -> bool:
        return run.name == wanted or run.name.startswith((f"{wanted}-", f"{wanted}_"))

    return fits

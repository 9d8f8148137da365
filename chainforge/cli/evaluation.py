"""One model on suites of problems: what the step `evaluate` does, without the graph."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from chainforge import __version__
from chainforge.cli.find_model import load_found
from chainforge.cli.project import from_here
from chainforge.config.bench import bench_file
from chainforge.config.evaluate import EvaluateSettings
from chainforge.config.loading import read_params
from chainforge.errors import ChainForgeError, unknown
from chainforge.jsonl import read_records, read_rows, write_rows
from chainforge.loops.conditions import conditions, sha256
from chainforge.loops.evaluate import evaluate
from chainforge.loops.figures import figures
from chainforge.loops.votes import reading_of
from chainforge.models.checkpoint import Policy, start_torch
from chainforge.outputs import write_json
from chainforge.plugins import Plugins, prompts_from
from chainforge.project.file_digests import digest_path
from chainforge.project.graders import grader_versions
from chainforge.project.graph import param
from chainforge.records import Prompt, to_json
from chainforge.report.evaluations import Cell
from chainforge.report.results import StageRow, stage_row
from chainforge.rollout.open_engine import device_of_checkpoint
from chainforge.run.fingerprint import Inputs
from chainforge.run.finished import discard
from chainforge.run.step import Step, open_step
from chainforge.run.work import open_work, work_root
from chainforge.wiring import make_scorer

MOST = 10**9  # rows of a file


@dataclass(frozen=True)
class Suite:
    """Problems under a name, which the files of the results get."""

    name: str
    prompts: tuple[Prompt, ...]


def read_suite(
    name: str, plugins: Plugins, limit: int | None, ctx: click.Context, reading: Mapping[str, str | None]
) -> Suite:
    """A bench of params.yaml, or a JSONL: of prompts, or of rows that the prompt source `jsonl` reads."""
    benches = read_params().get("benches") or {}
    if name in benches:
        path = bench_file(name)
        if not path.is_file():
            raise ChainForgeError(f"bench {name!r}: there is no {path}", f"make it: dvc repro bench@{name}")
        return Suite(name, tuple(read_records(path, Prompt, limit)))
    path = from_here(Path(name), ctx)
    if not path.is_file():
        error = unknown("suite", name, benches)
        raise ChainForgeError(error.problem, f"{error.fix}; or name a JSONL file")
    _, first = next(read_rows(path))
    if isinstance(first, dict) and first.keys() >= {"id", "source", "messages"}:
        prompts = read_records(path, Prompt, limit)
    else:
        given = {key: value for key, value in reading.items() if value is not None}
        source = plugins.pick("prompt_sources", "jsonl")
        found = prompts_from(source, {"train": path, "eval": path} | given, split="eval", n=MOST, seed=0)
        prompts = list(found)[:limit]
    ((commonest, times),) = Counter(prompt.id for prompt in prompts).most_common(1)
    if times > 1:
        raise ChainForgeError(f"{path} has the id {commonest!r} twice", "give each prompt an id of its own")
    return Suite(path.stem, tuple(prompts))


@dataclass(frozen=True)
class Evaluation:
    """A model, loaded once, and what is set otherwise than in params.yaml."""

    model: str
    revision: str | None
    name: str
    changes: Mapping[str, Any]
    plugins: Plugins

    def run(self, suite: Suite, folder: Path) -> StageRow:
        """Evaluate, write the files, and return the row of the table."""
        step, settings = open_step(f"evaluate@{self.name}-{suite.name}"), self.settings
        graders = grader_versions(self.plugins, settings.rewards)
        weights = dict.fromkeys(settings.rewards, 1.0)
        with make_scorer(self.plugins, weights, step, settings.reward_settings) as scorer:
            scorer.check(suite.prompts)
            policy = self.policy
            measured = conditions(suite.prompts, policy.tokenizer, settings, step, graders, __version__)
            measured |= {"model": self.model, "revision": self.revision, "suite": suite.name}
            inputs = self.inputs(suite, step, graders)
            with open_work(inputs, step.runtime) as work:
                rows = evaluate(suite.name, suite.prompts, policy, scorer, settings, step, work)
            (deciding,) = (one for one in scorer.rewards if one.name == settings.reward)
            read = reading_of(deciding, step.runtime.reward_timeout_s)
            found = figures(rows, settings, step.response_format, read)
        write_rows(folder / f"{suite.name}.jsonl", rows)
        write_json(folder / f"{suite.name}.record.json", measured)
        write_json(folder / f"{suite.name}.json", found)
        discard(work_root() / f"{inputs.step}-{inputs.fingerprint}")  # no dvc.lock will ever have it
        return stage_row(Cell(self.name, suite.name, found, {}))

    @cached_property
    def settings(self) -> EvaluateSettings:
        """Those of the section `evaluate`, with the changes. Raises ChainForgeError."""
        given = {**param("evaluate"), "prompts": Path("unused"), **self.changes}
        try:
            return EvaluateSettings.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problem = (first.get("ctx") or {}).get("error")
            where = ".".join(map(str, first["loc"])) or "evaluate"
            raise ChainForgeError(
                f"{where}: {problem or first['msg']}",
                getattr(problem, "fix", "correct the option, or section evaluate of params.yaml"),
            ) from None

    @cached_property
    def policy(self) -> Policy:
        """The model as the plugin `pretrained` loads it."""
        step = open_step(f"evaluate@{self.name}")
        device = device_of_checkpoint(self.settings.engine, start_torch(step.settings, step.runtime))
        return load_found(self.model, self.revision, self.plugins, device)

    def inputs(self, suite: Suite, step: Step, graders: Mapping[str, Any]) -> Inputs:
        """What the answers depend on: by it, a run that was stopped is found again."""
        settings = self.settings.model_dump(mode="json")
        params = {"evaluate": settings, "run": step.settings.model_dump(mode="json")}
        weights = digest_path(Path(self.model)) if Path(self.model).is_dir() else self.revision or "hub"
        prompts = sha256(map(to_json, suite.prompts))
        return Inputs(step.name, params, dict(graders), {self.model: weights, suite.name: prompts})

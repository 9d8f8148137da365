"""What a step would read: as it is, or what is like it where it is still to be made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from chainforge.config.bench import BenchSettings, bench_file
from chainforge.config.collect import CollectSettings
from chainforge.config.filter import FilterSettings
from chainforge.config.loading import Choice
from chainforge.config.prompts import PromptsSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings
from chainforge.config.verbs import VERBS
from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_records
from chainforge.plugins import Plugins, prompts_from
from chainforge.project.graph import GraphStep, outputs, param, settings_of
from chainforge.records import Example, Prompt
from chainforge.run.seeds import derive

FEW = 2000  # prompts that are made where their file is not there


class NotYet(Exception):
    """Nothing is like that input yet; the text says how to get it."""


@dataclass
class Inputs:
    """Inputs of the steps of a graph. `notes` says what stands for what."""

    graph: Mapping[str, GraphStep]
    plugins: Plugins
    notes: list[str] = field(default_factory=list)

    def prompts(self, path: Path, limit: int | None = None) -> tuple[list[Prompt], int]:
        """Prompts of the file, and how many it has; made by their source where it is not there."""
        if path.is_file():
            found = read_records(path, Prompt, limit)
            return found, len(found)
        maker = self._maker(path)
        if maker and maker.verb == "prompts":
            sets = settings_of(PromptsSettings, maker.name)
            split = "train" if path.stem.endswith("_train") else "eval"
            return self._made(maker, sets.source, split, getattr(sets, split), limit, path)
        if maker and maker.verb == "bench":
            bench = settings_of(BenchSettings, maker.name)
            if bench.source is None:
                return self.prompts(Path(str(bench.prompts)), limit)
            return self._made(maker, bench.source, "eval", bench.eval, limit, path)
        raise NotYet(_how_to_make(path, maker))

    def _made(
        self, maker: GraphStep, source: Choice, split: str, count: int, limit: int | None, path: Path
    ) -> tuple[list[Prompt], int]:
        if split == "eval" and param("evaluate.split") == "dev":
            count = int(param(maker.sections[-1]).get("dev", 200))
        count = min(count, limit or count)
        entry, what = self.plugins.pick("prompt_sources", source.plugin), maker.name.partition("@")[2]
        make = partial(prompts_from, entry, source.settings, split=split, n=min(count, FEW))
        self.notes.append(f"{path} is not there: {source.plugin} made prompts like it")
        return list(make(seed=derive(param("run.seed"), "prompts", what))), count

    def examples(self, path: Path) -> tuple[list[Example], int]:
        """Examples of the file, and how many it has; else others, and how many it will have at most."""
        if path.is_file():
            found = read_records(path, Example)
            return found, len(found)
        maker = self._maker(path)
        for other in self._files_of_examples:
            if other.is_file():
                count = self._most_examples(maker)
                self.notes.append(f"{path} is not there: {other} stands for it, {count:,} rows at most")
                return read_records(other, Example), count
        raise NotYet(_how_to_make(path, maker))

    def model(self, checkpoint: Path) -> Choice | None:
        """None where the checkpoint is there; else the base model at the start of its chain."""
        if (checkpoint / "config.json").is_file():
            return None
        maker = self._trainers.get(checkpoint)
        if maker is None:
            raise NotYet(f"{checkpoint} is not there, and no step makes it: correct the path")
        found = getattr(maker, "new_model", None)
        if found is None and maker.start_from is not None:
            found = self.model(maker.start_from)
            if found is None:
                return Choice.model_validate({"plugin": "", "folder": maker.start_from})
        assert found is not None
        return self.without_missing(found)

    def without_missing(self, chosen: Choice) -> Choice:
        """The choice without settings that name what a step still has to make, such as a tokenizer."""
        made = {path for step in self.graph.values() for path in outputs(step)}
        kept = {
            name: value
            for name, value in chosen.settings.items()
            if not (isinstance(value, str) and Path(value) in made and not Path(value).exists())
        }
        return Choice.model_validate({"plugin": chosen.plugin, **kept})

    def _maker(self, path: Path) -> GraphStep | None:
        return next((step for step in self.graph.values() if path in outputs(step)), None)

    def _most_examples(self, maker: GraphStep | None) -> int:
        if maker and maker.verb == "filter":
            traces = settings_of(FilterSettings, maker.name).traces
            asking = self._maker(traces)
            assert asking is not None
            asked = settings_of(CollectSettings, asking.name)
            return self.prompts(asked.prompts, asked.max_prompts)[1] * asked.samples
        if maker and maker.verb == "sample":
            of = settings_of(SampleSettings, maker.name)
            count = self.prompts(of.prompts, of.max_prompts)[1]
            more = self.prompts(of.extra_prompts, of.extra_max_prompts)[1] if of.extra_prompts else 0
            return (count + more) * of.keep_per_prompt
        return 0

    @cached_property
    def _trainers(self) -> Mapping[Path, Any]:
        steps = [step for step in self.graph.values() if step.verb in ("sft", "distill", "grpo")]
        found = [settings_of(VERBS[step.verb], step.name) for step in steps]
        return {settings.output: settings for settings in found}  # type: ignore[attr-defined]

    @cached_property
    def _files_of_examples(self) -> Sequence[Path]:
        supervised = [of for of in self._trainers.values() if isinstance(of, SftSettings)]
        return [path for of in supervised for path in (of.examples, of.extra_examples) if path]


def prompts_of_step(settings: Any, name: str, inputs: Inputs) -> tuple[list[Prompt], int, float]:
    """Prompts that a step samples for, how many it has, and the share of them that is extra."""
    if not hasattr(settings, "prompts"):
        bench = name.rpartition("-")[2]
        return *inputs.prompts(bench_file(bench), settings.max_prompts), 0.0
    own, count = inputs.prompts(settings.prompts, getattr(settings, "max_prompts", None))
    if not settings.extra_prompts:
        return own, count, 0.0
    extra, more = inputs.prompts(settings.extra_prompts, getattr(settings, "extra_max_prompts", None))
    share = getattr(settings, "extra_share", more / max(1, count + more))
    return interleave(own, extra, share), count + more, share


def interleave(own: Sequence[Prompt], extra: Sequence[Prompt], share: float) -> list[Prompt]:
    """Some of both, in that proportion from the first on."""
    rows: list[Prompt] = []
    left = (iter(own), iter(extra))
    while len(rows) < min(len(own), len(extra)):
        wanted = round(share * (len(rows) + 1)) - round(share * len(rows))
        rows.append(next(left[wanted]))
    return rows


def _how_to_make(path: Path, maker: GraphStep | None) -> str:
    if maker is None:
        raise ChainForgeError(f"{path} is not there, and no step makes it", "correct it, or put it there")
    return f"{path} is not there yet: dvc repro {maker.name} makes it"

"""Settings of the verb `bench`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, model_validator

from chainforge.config.impossible import Impossible
from chainforge.config.loading import Choice, Role, Settings
from chainforge.config.types import File, Positive


class BenchSettings(Settings):
    """Verb `bench`: the problems of one benchmark, of a set of prompts or of a source of their own.

    Its section has settings of `evaluate` as well, which reads them itself and refuses unknown ones.
    """

    model_config = ConfigDict(extra="ignore")

    prompts: File | None = None
    """JSONL of held-out prompts: those of a set, `data/prompts/NAME_eval.jsonl`. Or name a source."""
    source: Annotated[Choice, Role("prompt_sources")] | None = None
    """Prompt source plugin and its settings, whose split `eval` is the benchmark."""
    eval: Positive = 5000
    """Problems to take from `source`, at most."""
    dev: Positive = 200
    """Problems of the development split, of a `source`, at most, where `evaluate.split` is dev."""
    dev_from: Literal["eval", "train"] = "eval"
    """Of which half of the source they are; train for a data set, so that its own test file stays unread."""

    @model_validator(mode="before")
    @classmethod
    def _one_origin(cls, given: Any) -> Any:
        if "split" in given:
            raise Impossible("split is the same for all benchmarks", "set evaluate.split")
        named = [name for name in ("prompts", "source") if given.get(name) is not None]
        if len(named) != 1:
            has = "both prompts and a source" if named else "neither prompts nor a source"
            raise Impossible(
                f"it has {has}: {', '.join(map(str, given)) or 'nothing'}",
                "name one: the file of a set, or a source like gsm8k",
            )
        return given


def bench_file(name: str) -> Path:
    """Where the problems of that benchmark lie."""
    return Path(f"data/benches/{name}.jsonl")

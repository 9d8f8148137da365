"""The training steps of a profile, and which models they need."""

from collections.abc import Iterator, Mapping
from contextlib import chdir
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from chainforge.config.distill import DistillSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.loading import PARAMS, load_settings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sft import SftSettings
from chainforge.project.graph import GRAPH, read_graph
from chainforge.project.profiles import compose

KINDS: Mapping[str, type[SftSettings] | type[GrpoSettings]] = {
    "sft": SftSettings,
    "distill": DistillSettings,
    "grpo": GrpoSettings,
}


class TrainingStep(NamedTuple):
    """A step of the profile, and which models it needs: names of the hub, or folders."""

    name: str
    settings: SftSettings | GrpoSettings
    model: str
    teacher: str | None


def read_steps(name: str | None) -> tuple[RunSettings, RuntimeSettings, list[TrainingStep]]:
    """The training steps of a profile, or of params.yaml, in the order of the recipe."""
    if name is None:
        return _read_steps()
    text, graph = compose(name), GRAPH.resolve()
    with TemporaryDirectory() as folder, chdir(folder):
        PARAMS.write_text(text, encoding="utf-8")
        GRAPH.symlink_to(graph)
        return _read_steps()


def _read_steps() -> tuple[RunSettings, RuntimeSettings, list[TrainingStep]]:
    run, runtime = load_settings(RunSettings, "run"), load_settings(RuntimeSettings, "runtime")
    settings: dict[str, Any] = {
        step.name: load_settings(KINDS[step.verb], *step.sections)
        for step in read_graph().values()
        if step.verb in KINDS
    }
    return run, runtime, list(_with_models(settings))


def _with_models(settings: Mapping[str, SftSettings | GrpoSettings]) -> Iterator[TrainingStep]:
    """Of each step, the model at the start of its chain of checkpoints."""
    makers = {found.output: found for found in settings.values()}

    def model_of(found: SftSettings | GrpoSettings) -> str:
        new = found.new_model if isinstance(found, SftSettings) else None
        if new:
            return str(new.settings.get("model", new.plugin))
        assert found.start_from is not None
        return model_of(makers[found.start_from]) if found.start_from in makers else str(found.start_from)

    for name, found in settings.items():
        teacher = None
        if isinstance(found, DistillSettings) and found.teacher and found.asks_teacher:
            teacher = model_of(makers[found.teacher]) if found.teacher in makers else str(found.teacher)
        yield TrainingStep(name, found, model_of(found), teacher)

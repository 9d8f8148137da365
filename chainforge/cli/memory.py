"""`chainforge memory`: whether the training steps of a profile fit on a GPU, before there is one."""

from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from chainforge.cli.complete import complete, profile_names
from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import show
from chainforge.config.distill import DistillSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.loading import PARAMS, load_settings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sft import SftSettings
from chainforge.errors import ChainForgeError
from chainforge.project.graph import GRAPH, read_graph
from chainforge.project.profiles import compose

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from chainforge.learner.forecast import Forecast


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


@click.command(cls=ProjectCommand)
@click.argument("name", metavar="PROFILE", shell_complete=complete(profile_names))
@click.option(
    "--gpus", type=click.IntRange(1, 4096), default=1, show_default=True, help="How many share the work."
)
@click.option("--gpu-gb", type=click.FloatRange(1), default=80, show_default=True, help="10⁹ bytes of each.")
@click.option(
    "--config",
    "files",
    multiple=True,
    metavar="[MODEL=]FILE",
    help="A model's config.json, where the model is not here; without a name, that of the base model.",
)
def memory(name: str, gpus: int, gpu_gb: float, files: tuple[str, ...]) -> None:
    """Print what each training step of a profile holds on a GPU, and whether it fits.

    This is arithmetic on shapes of models and on settings: no model is loaded, and no GPU is needed. A
    prompt is taken to have 512 tokens. Exit code 1 where a step does not fit.
    """
    run, runtime, steps = read_steps(name)
    given = {text.rpartition("=")[0]: Path(text.rpartition("=")[2]) for text in files}
    shards = gpus if runtime.sharding == "fully-sharded" else 1
    how = "weights shared among them" if shards > 1 else "the weights on each"
    show(
        f"profile {name}, precision {run.precision}, {gpus} x {gpu_gb:g} GB"
        + (f", {how}" if gpus > 1 else "")
    )
    too_large = [
        step.name for step in steps if not _tell(step, run, runtime, given, steps[0].model, shards, gpu_gb)
    ]
    if too_large:
        raise ChainForgeError(
            f"{', '.join(too_large)} {'do' if len(too_large) > 1 else 'does'} not fit",
            "take one of the settings above, a larger GPU, or more of them",
        )


def read_steps(name: str) -> tuple[RunSettings, RuntimeSettings, list[TrainingStep]]:
    """The training steps of a profile in the order of the recipe."""
    text, graph = compose(name), GRAPH.resolve()
    with TemporaryDirectory() as folder, chdir(folder):
        PARAMS.write_text(text, encoding="utf-8")
        GRAPH.symlink_to(graph)
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


def _tell(
    step: TrainingStep,
    run: RunSettings,
    runtime: RuntimeSettings,
    given: Mapping[str, Path],
    base: str,
    shards: int,
    gpu_gb: float,
) -> bool:
    """Print one step; whether it fits."""
    from chainforge.learner.forecast import Sampling, forecast
    from chainforge.learner.micro_batch_size import USABLE

    grpo = step.settings if isinstance(step.settings, GrpoSettings) else None
    usable = USABLE * gpu_gb * 1e9
    sampling = None
    by_vllm = grpo is not None and grpo.engine.kind == "vllm"
    if grpo and not (by_vllm and (runtime.vllm.gpus or runtime.vllm.urls)):
        sampling = Sampling(runtime.rollout_rows, grpo.max_new_tokens, by_vllm)
    found = forecast(
        read_config(step.model, given, base),
        step.settings,
        run,
        runtime,
        memory=usable,
        reference=grpo is not None and grpo.kl_coeff > 0 and not grpo.adapter,
        teacher=read_config(step.teacher, given, base) if step.teacher else None,
        shards=shards,
        sampling=sampling,
    )
    show(f"\n{step.name}: {step.model}, {found.training.model.all:,} weights")
    for line in lines(found):
        show(line)
    fits = found.peak <= usable
    verdict = "fits" if fits else "does not fit"
    show(f"  {'at most':<48}{found.peak / 1e9:>8.2f} GB of {usable / 1e9:.1f} usable: {verdict}")
    if not fits:
        show(f"  -> {'; or '.join(found.remedies)}")
    return fits


def lines(found: "Forecast") -> Iterator[str]:
    """What is held, part by part."""
    how = "checkpointed" if found.checkpointing else "not checkpointed"
    names = {"activations": f"activations, {found.tokens:,} tokens, {how}"}
    training = found.held | found.passing
    for title, parts in (("training", training), ("sampling", found.sampling), ("loading", found.loading)):
        if parts:
            yield f"  {title:<48}{sum(parts.values()) / 1e9:>8.2f} GB"
        for part, size in parts.items():
            yield f"    {names.get(part, part):<46}{size / 1e9:>8.2f}"


def read_config(model: str, given: Mapping[str, Path], base: str) -> "PretrainedConfig":
    """The shapes of a model: from a file given for it, its folder, or the hub. Raises ChainForgeError."""
    from transformers import AutoConfig

    from chainforge.pretrained.config import find_config, read_json

    path = given.get(model) or (given.get("") if model == base else None)
    try:
        if not path and "/" not in model:
            raise ValueError("its plugin makes it when the step runs")
        content = read_json(path or find_config(model, None))
        kind = content.pop("model_type")
        return AutoConfig.for_model(kind, **content)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ChainForgeError(
            f"the shapes of {model} are not known here: {reason:.150}",
            f"get or write its config.json, and add --config {model}=FILE",
        ) from None

"""`chainforge memory`: whether the training steps of a profile fit on a GPU, before there is one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chainforge.cli.complete import complete, profile_names
from chainforge.cli.memory_steps import TrainingStep, read_steps
from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import show
from chainforge.config.grpo import GrpoSettings
from chainforge.config.loading import PARAMS
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sft import SftSettings
from chainforge.errors import ChainForgeError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from chainforge.learner.forecast import Forecast


@click.command(cls=ProjectCommand)
@click.argument("name", metavar="[PROFILE]", required=False, shell_complete=complete(profile_names))
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
def memory(name: str | None, gpus: int, gpu_gb: float, files: tuple[str, ...]) -> None:
    """Print what each training step of a profile, or of params.yaml, holds on a GPU, and whether it fits.

    This is arithmetic on shapes of models and on settings: no model is loaded, and no GPU is needed. A
    prompt is taken to have 512 tokens. Exit code 1 where a step does not fit.
    """
    run, runtime, steps = read_steps(name)
    given = {text.rpartition("=")[0]: Path(text.rpartition("=")[2]) for text in files}
    shards = gpus if runtime.sharding == "fully-sharded" else 1
    how = "weights shared among them" if shards > 1 else "the weights on each"
    show(
        f"{f'profile {name}' if name else PARAMS}, precision {run.precision}, {gpus} x {gpu_gb:g} GB"
        + (f", {how}" if gpus > 1 else "")
    )
    known = [step for step in steps if _has_shapes(step.model, given, steps[0].model)]
    known = known or steps  # then the first one is told to be unknown
    too_large = [
        step.name for step in known if not _tell(step, run, runtime, given, steps[0].model, shards, gpu_gb)
    ]
    for step in steps:
        if step not in known:
            show(f"\n{step.name}: {step.model} makes its model when the step runs; it is not counted")
    if too_large:
        raise ChainForgeError(
            f"{', '.join(too_large)} {'do' if len(too_large) > 1 else 'does'} not fit",
            "take one of the settings above, a larger GPU, or more of them",
        )


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
    from chainforge.learner.forecast import PROMPT, Sampling, forecast
    from chainforge.learner.micro_batch_size import USABLE

    settings = step.settings
    grpo = settings if isinstance(settings, GrpoSettings) else None
    longest = settings.max_tokens if isinstance(settings, SftSettings) else PROMPT + settings.max_new_tokens
    usable = USABLE * gpu_gb * 1e9
    sampling = None
    by_vllm = grpo is not None and grpo.engine.kind == "vllm"
    if grpo and not (by_vllm and (runtime.vllm.gpus or runtime.vllm.urls)):
        sampling = Sampling(runtime.rollout_rows, grpo.max_new_tokens, by_vllm)
    found = forecast(
        read_config(step.model, given, base),
        settings,
        run,
        runtime,
        memory=usable,
        reference=grpo is not None and grpo.kl_coeff > 0 and not grpo.adapter,
        teacher=read_config(step.teacher, given, base) if step.teacher else None,
        shards=shards,
        sampling=sampling,
        longest=longest,
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


def _given_file(model: str, given: Mapping[str, Path], base: str) -> Path | None:
    return given.get(model) or (given.get("") if model == base else None)


def _has_shapes(model: str, given: Mapping[str, Path], base: str) -> bool:
    """Whether there may be a config.json: a model of the hub, or a folder, or a file given for it."""
    return "/" in model or _given_file(model, given, base) is not None


def read_config(model: str, given: Mapping[str, Path], base: str) -> "PretrainedConfig":
    """The shapes of a model: from a file given for it, its folder, or the hub. Raises ChainForgeError."""
    from transformers import AutoConfig

    from chainforge.pretrained.config import find_config, read_json

    try:
        if not _has_shapes(model, given, base):
            raise ValueError("its plugin makes it when the step runs")
        content = read_json(_given_file(model, given, base) or find_config(model, None))
        kind = content.pop("model_type")
        return AutoConfig.for_model(kind, **content)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ChainForgeError(
            f"the shapes of {model} are not known here: {reason:.150}",
            f"get or write its config.json, and add --config {model}=FILE",
        ) from None

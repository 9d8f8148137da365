"""What a training step will hold on each GPU, by arithmetic: no weight is loaded, nothing is computed."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.learner.footprint import HALF, Activations, Sizes, Training, copy_bytes, sizes, total
from chainforge.learner.forward_passes import CASTS
from chainforge.learner.kept_bytes import kept_bytes_per_token
from chainforge.learner.micro_batch_size import choices, fewest_tokens, logits_bytes, power_of_two
from chainforge.models.adapters import attach_adapter
from chainforge.models.attention import choose_attention
from chainforge.models.policy_model import PolicyModel
from chainforge.models.precision import ROUNDED, settle_precision

LENGTHS = (1024, 2048)  # tokens; so long that attention on a CPU is computed as on a GPU
FEW = 1024  # entries of a vocabulary: what a token keeps does not depend on it
PROMPT = 512  # tokens, taken for the longest prompt


class Sampling(NamedTuple):
    """What the step samples beside training."""

    rows: int
    new_tokens: int
    by_vllm: bool = False  # on the same GPU, in a server that sleeps while the step learns


@dataclass(frozen=True)
class Forecast:
    """Bytes on one GPU. `held` lasts through a training pass; `sampling` is there in place of gradients,
    casts and activations; `loading`, before a model is split over processes."""

    training: Training
    checkpointing: bool
    tokens: int
    held: dict[str, float]
    passing: dict[str, float]
    sampling: dict[str, float]
    loading: dict[str, float]

    @property
    def peak(self) -> float:
        """The most at any time."""
        return max(total(self.held, *self.passing.values()), total(self.sampling), total(self.loading))

    @property
    def remedies(self) -> list[str]:
        """Settings that would take less at that time."""
        if total(self.loading) == self.peak:
            return ["choose a smaller model, or GPUs that have room for a whole one"]
        if total(self.sampling) < self.peak:
            return self.training.remedies(checkpointing=self.checkpointing)
        return [
            "lower runtime.rollout_rows",
            "lower grpo.max_new_tokens",
            *self.training.remedies(checkpointing=True),
        ]


def forecast(
    config: PretrainedConfig,
    settings: OptimizerSettings,
    run: RunSettings,
    runtime: RuntimeSettings,
    *,
    memory: float,
    reference: bool = False,
    teacher: PretrainedConfig | None = None,
    shards: int = 1,
    sampling: Sampling | None = None,
    longest: int = 0,
) -> Forecast:
    """Of a model with these shapes on a GPU with this memory: the passes that would be chosen there, or the
    smallest ones if none fits. `longest`: tokens of a sequence."""
    whole = shapes(config, settings, run)
    trained, bare = sizes(whole), sizes(shapes(config, settings, run, bare=True))
    taught = sizes(shapes(teacher, settings, run, bare=True)) if teacher else None
    training = Training(trained, run.precision, settings, bare if reference else None, taught, shards)
    ours = sampling is not None and not sampling.by_vllm
    apart = ours and (shards > 1 or settings.adapter is not None)
    copy = copy_bytes(trained, run.precision)
    engine = _engine(whole, bare, run, sampling) if sampling else {}
    if apart or (ours and run.precision in CASTS):
        engine = {"copy to sample from": copy} | engine
    elif sampling and sampling.by_vllm:
        engine = {"weights of vLLM": copy} | {"keys and values": engine["keys and values"]}
    plain, wanted = _kept(config, settings, run, checkpointing=False), runtime.micro_batch_tokens
    least = fewest_tokens(wanted, longest)
    for checkpointing in choices(runtime):
        kept = plain if not checkpointing else _kept(config, settings, run, checkpointing=True)
        vocabulary = config.get_text_config().vocab_size if teacher else 0
        per_token = Activations(
            kept[0] + (trained.layers - 1) * kept[1] + 2 * 4 * vocabulary, plain[1], vocabulary
        ).at_peak(checkpointing=checkpointing)
        held = training.held(checkpointing=checkpointing) | ({"copy to sample from": copy} if apart else {})
        logits = logits_bytes("cuda")
        fitting = (memory - total(held, logits)) / per_token
        if fitting >= least:
            break
    tokens = max(least, power_of_two(fitting)) if wanted == "auto" else least
    resting = {name: held[name] for name in ("weights", "moments", "reference") if name in held}
    loading = {"weights, whole": float(bare.bytes)} if shards > 1 else {}
    if shards > 1 and apart:
        loading["copy to sample from"] = copy
    if shards > 1 and reference:  # the second model is loaded when the first one is split
        loading["weights, a part"] = bare.bytes / shards
    return Forecast(
        training,
        checkpointing,
        tokens,
        held,
        {"activations": per_token * tokens, "logits": logits},
        resting | engine if sampling else {},
        loading,
    )


def shapes(
    config: PretrainedConfig, settings: OptimizerSettings, run: RunSettings, *, bare: bool = False
) -> PreTrainedModel:
    """A model as a step would have it, without data; `bare` of an adapter."""
    with torch.device("meta"):
        # whatever type its files have, a step loads it in float32
        model: PreTrainedModel = AutoModelForCausalLM.from_config(deepcopy(config), dtype=torch.float32)
        model.eval()
        settle_precision(run.precision, model)
        if settings.adapter and not bare:
            attach_adapter(model, settings.adapter.model_copy(update={"kind": "lora"}), seed=0)
    return model


def _on_cpu(model: PreTrainedModel) -> PreTrainedModel:
    """The same in name on a CPU: there is no autocast without a device."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) not in made:
                empty = torch.empty(weight.shape, dtype=weight.dtype)
                made[id(weight)] = torch.nn.Parameter(empty, requires_grad=weight.requires_grad)
            setattr(module, name, made[id(weight)])
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    choose_attention(model)
    return model


def _kept(
    config: PretrainedConfig, settings: OptimizerSettings, run: RunSettings, *, checkpointing: bool
) -> tuple[float, float]:
    """Bytes per token that a model of one layer keeps, and each layer more."""
    found = []
    for layers in (1, 2):
        thin = deepcopy(config)
        text = thin.get_text_config()
        text.num_hidden_layers, text.vocab_size, text.pad_token_id = layers, FEW, None
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
        with FakeTensorMode():
            thin_model = _on_cpu(shapes(thin, settings, run))
            model = PolicyModel(thin_model, gradient_checkpointing=checkpointing)
            with _Choosing():  # type: ignore[no-untyped-call]
                found.append(kept_bytes_per_token(model, run.precision, lengths=LENGTHS))
    return found[0], found[1] - found[0]


def _engine(model: PreTrainedModel, bare: Sizes, run: RunSettings, sampling: Sampling) -> dict[str, float]:
    """What sampling in the same process holds: linear maps that are joined, keys and values of all rows."""
    config: Any = model.config.get_text_config()
    size = HALF if run.precision in CASTS or run.precision == ROUNDED else bare.bytes / bare.all
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    states = 2 * config.num_hidden_layers * config.num_key_value_heads * width
    return {
        "joined weights": size * bare.joined,
        "keys and values": size * states * sampling.rows * (PROMPT + sampling.new_tokens),
        "logits of all rows": 3 * 4 * sampling.rows * config.vocab_size,
    }


class _Choosing(TorchDispatchMode):
    """Lets a mask choose among tensors without data. Of the one row that is measured, it takes all places."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.index.Tensor and _is_mask(args[1][-1]):
            places = args[1][-1].numel()
            chosen = places - 1 if places in LENGTHS else places  # all but the one token of the prompt
            args = (args[0].flatten(0, 1), [torch.zeros(chosen, dtype=torch.long)])
        return func(*args, **(kwargs or {}))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool

"""Any causal LM as one module: tokens in, log-probabilities of completion tokens out.

The LM head runs on those positions only. B sequences, S whole length, T completion tokens, M completion
tokens of all rows, H hidden size, V vocabulary, P prompt tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from chainforge.models.batch import Batch, Prefix
from chainforge.models.decoder import hidden_states
from chainforge.models.masks import LayerMasks, Masks
from chainforge.models.output_layer import output_layer
from chainforge.models.router import experts_per_token, router_loss


class LogProbs(NamedTuple):
    """In nats under logits / temperature; 0 where padded. What was not asked for is None."""

    logp_BT: Tensor
    entropy_BT: Tensor | None = None  # without gradient
    logp_MV: Tensor | None = None  # of every token of the vocabulary
    router_loss: Tensor | None = None  # summed over sequences


class PolicyModel(nn.Module):
    """`model` with its head inside of one forward pass, in evaluation mode: there is no dropout anywhere."""

    def __init__(
        self, model: PreTrainedModel, *, gradient_checkpointing: bool = False, balances_experts: bool = False
    ) -> None:
        """`balances_experts`: where gradients are wanted, there is a router loss, and no shared prompt."""
        super().__init__()
        if balances_experts:
            experts_per_token(model)
        self.balances_experts = balances_experts
        self.model = model
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing and model.supports_gradient_checkpointing:
            enable_checkpointing(model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def embeds_sparsely(self) -> bool:
        """Whether the input embedding's gradient may be a few rows: it is added to that of the head."""
        tables = (self.model.get_input_embeddings().weight, self.model.get_output_embeddings().weight)
        return tables[0] is tables[1] and self.device.type == "cpu"

    def forward(
        self,
        batch: Batch,
        temperature: float = 1.0,
        *,
        entropy: bool = False,
        vocabulary: bool = False,
        head_gradient_VH: Tensor | None = None,
    ) -> LogProbs:
        """Log-probabilities of the completion tokens; with `vocabulary`, of all tokens at their places too.

        `head_gradient_VH`: where the gradient of the head's weight is added up, see `head.token_logprobs`.
        """
        output = output_layer(self.model)
        sparse = head_gradient_VH is not None and self.embeds_sparsely
        routed: list[Tensor] | None = [] if self.balances_experts and torch.is_grad_enabled() else None
        hidden_MH = self._hidden_before(batch, sparse=sparse, routed=routed)
        target_M, logp_MV = batch.tokens_BS[batch.target_BS], None
        if vocabulary:
            logits_MV = output.logits(hidden_MH).float()
            logp_MV = (logits_MV if temperature == 1 else logits_MV / temperature).log_softmax(-1)
            logp_M = logp_MV.gather(-1, target_M[:, None])[:, 0]
            entropy_M = -(logp_MV.exp() * logp_MV).sum(-1).detach() if entropy else logp_M[:0]
        else:
            logp_M, entropy_M = output.token_logprobs(
                hidden_MH,
                target_M,
                temperature=temperature,
                entropy=entropy,
                gradient_VH=head_gradient_VH,
            )
        entropy_BT = _spread(entropy_M, batch.mask_BT) if entropy else None
        balance = None if routed is None else router_loss(self.model, routed, batch)
        return LogProbs(_spread(logp_M, batch.mask_BT), entropy_BT, logp_MV, balance)

    def read_prompts(
        self, tokens_NP: Tensor, length_N: Tensor, *, sparse: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """What a `Prefix` is made of: last hidden states, keys and values by layer, of right-padded rows."""
        cache = DynamicCache()
        hidden_NPH = hidden_states(self.model, tokens_NP, cache=cache, sparse=sparse)
        last_NH = hidden_NPH[torch.arange(len(tokens_NP), device=tokens_NP.device), length_N - 1]
        return last_NH, [states for layer in cache for states in layer[:2]]

    def _hidden_before(self, batch: Batch, *, sparse: bool, routed: list[Tensor] | None) -> Tensor:
        """hidden_MH: the last hidden state at the position before each completion token."""
        if batch.prefix:
            assert routed is None, "the prompts' routing is not at hand"
            return self._hidden_after(batch.prefix, batch.tokens_BS, sparse=sparse)[batch.mask_BT]
        checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        with _in_training(layers_of(self.model) if checkpointing else []):
            hidden_BSH = hidden_states(
                self.model, batch.tokens_BS, sparse=sparse, checkpointing=checkpointing, routed=routed
            )
        return hidden_BSH[:, :-1][batch.target_BS[:, 1:]]

    def _hidden_after(self, prefix: Prefix, tokens_BT: Tensor, *, sparse: bool) -> Tensor:
        """hidden_BTH of completions whose prompts were computed apart."""
        if tokens_BT.shape[1] == 1:
            return prefix.last_BH[:, None]
        cache = DynamicCache()
        for number, (key, value) in enumerate(zip(prefix.states[::2], prefix.states[1::2], strict=True)):
            cache.update(key, value, number)
        tokens_BS = tokens_BT[:, :-1]
        place_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
        hidden_BSH = hidden_states(
            self.model,
            tokens_BS,
            _masks(self.model, prefix.is_token_BP, len(place_S), prefix.states[0].dtype),
            prefix.is_token_BP.sum(-1)[:, None] + place_S,
            cache,
            sparse=sparse,
        )
        return torch.cat([prefix.last_BH[:, None], hidden_BSH], 1)


def _spread(found_M: Tensor, mask_BT: Tensor) -> Tensor:
    """found_BT, 0 where padded."""
    return torch.zeros(mask_BT.shape, device=found_M.device).masked_scatter(mask_BT, found_M)


def _masks(model: PreTrainedModel, is_token_BP: Tensor, positions: int, dtype: torch.dtype) -> Masks:
    """Masks [B, 1, S, P + S]: a position sees its prompt's tokens, and completion tokens up to its own."""
    prompt_BSP = is_token_BP[:, None].expand(-1, positions, -1)
    upto_BSS = prompt_BSP.new_ones(positions, positions).tril().expand(len(is_token_BP), -1, -1)

    def behind() -> Tensor:
        place_S, place_P = (
            torch.arange(n, device=is_token_BP.device) for n in (positions, prompt_BSP.shape[-1])
        )
        in_prompt_BSP = is_token_BP.sum(-1)[:, None, None] + place_S[:, None] - place_P
        after_BSS = (place_S[:, None] - place_S).expand(len(is_token_BP), -1, -1)
        return torch.cat([in_prompt_BSP, after_BSS], -1)[:, None]

    return LayerMasks(model)(torch.cat([prompt_BSP, upto_BSS], -1)[:, None], behind, dtype)


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Have transformers' layers keep their inputs only, and run again in the backward pass.

    transformers does that for layers in training mode: a forward pass puts them into it. A layer that runs is
    not: it might do dropout itself.
    """
    layers = layers_of(model)
    new = getattr(model, "activation_checkpointing_enable", None)  # from 5.23 on
    enable = new or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": lambda: (_running(layers), nullcontext())})


@contextmanager
def _in_training(layers: list[nn.Module]) -> Iterator[None]:
    """Inside, the layers are in training mode, but not what is inside of them."""
    _set_training(layers, True)
    try:
        yield
    finally:
        _set_training(layers, False)


@contextmanager
def _running(layers: list[nn.Module]) -> Iterator[None]:
    """Inside, they are not. After an error they stay so: torch before 2.13 leaves this block only when nobody
    needs the error any more, which is after `_in_training`."""
    _set_training(layers, False)
    yield
    _set_training(layers, True)


def _set_training(layers: list[nn.Module], training: bool) -> None:
    for layer in layers:
        layer.training = training


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The layers that transformers can checkpoint: what is computed, and kept or split, as one piece."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]

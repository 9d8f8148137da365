"""Prompts that several completions share, computed once for all of them, forward and backward.

N prompts, P their width (padded on the right, where no real token looks), B completions of a micro-batch,
S positions of theirs, T tokens, H hidden size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from chainforge.models.batches import Tokens, pad_ids
from chainforge.models.decoder.attention import additive


class SharedPrompts:
    """Keys, values and last hidden states of the prompts.

    To the passes over completions they are leaves of the graph, whose gradients add up in float32; `backward`
    takes the sums through the prompts.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        tokens_NP, self._is_token_NP = pad_ids(prompts, model.device)
        self._length_N = self._is_token_NP.sum(-1)
        cache = DynamicCache()
        hidden_NPH = model.get_decoder()(
            input_ids=tokens_NP, past_key_values=cache, use_cache=True
        ).last_hidden_state
        last_NH = hidden_NPH[torch.arange(len(prompts), device=model.device), self._length_N - 1]
        self._graph = [last_NH, *(states for layer in cache for states in layer[:2])]  # keys, values
        self._leaves = [t.detach().float().requires_grad_(t.requires_grad) for t in self._graph]

    def hidden_before(self, tokens_BT: Tensor, prompt_B: Tensor) -> Tensor:
        """hidden_BTH: the last hidden state at the position before each completion token."""
        last_BH: Tensor
        last_BH, *states = (
            leaf[prompt_B].to(t.dtype) for leaf, t in zip(self._leaves, self._graph, strict=True)
        )
        if tokens_BT.shape[1] == 1:
            return last_BH[:, None]
        cache = DynamicCache()
        for number, (key, value) in enumerate(zip(states[::2], states[1::2], strict=True)):
            cache.update(key, value, number)
        tokens_BS = tokens_BT[:, :-1]
        place_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
        hidden_BSH: Tensor = self._model.get_decoder()(
            input_ids=tokens_BS,
            attention_mask=_mask(self._is_token_NP[prompt_B], len(place_S), states[0].dtype),
            position_ids=self._length_N[prompt_B, None] + place_S,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return torch.cat([last_BH[:, None], hidden_BSH], 1)

    def backward(self) -> None:
        """Take what the passes over completions left through the prompts; nothing where there was none."""
        pairs = [
            (t, leaf.grad) for t, leaf in zip(self._graph, self._leaves, strict=True) if leaf.grad is not None
        ]
        if pairs:
            torch.autograd.backward([t for t, _ in pairs], [grad.to(t.dtype) for t, grad in pairs])


def _mask(is_token_BP: Tensor, positions: int, dtype: torch.dtype) -> Tensor:
    """mask_B1SL: a position sees its prompt's tokens, and completion tokens up to its own."""
    prompt_BSP = is_token_BP[:, None].expand(-1, positions, -1)
    upto_BSS = prompt_BSP.new_ones(positions, positions).tril().expand(len(is_token_BP), -1, -1)
    return additive(torch.cat([prompt_BSP, upto_BSS], -1)[:, None], dtype)


def can_share(model: PreTrainedModel, sequences: Sequence[Tokens]) -> bool:
    """Whether it is exact, and pays: a window of the context would count the padding."""
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None) if layers is None else set(layers) - {"full_attention"}
    return not window and 2 * len({tuple(s.prompt) for s in sequences}) <= len(sequences)

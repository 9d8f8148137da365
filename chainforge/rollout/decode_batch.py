"""The rows that are decoded together; rows that have ended leave, and new prompts come in.

R prompts, P their width, B rows, W columns of the cache, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from chainforge.models.decoder import hidden_states, merge
from chainforge.models.masks import LayerMasks
from chainforge.models.output_layer import output_layer
from chainforge.rollout.cache import PaddedCache, chunks, left_padded_mask
from chainforge.rollout.completions import Completions

TURNOVER = 0.125  # ended rows leave when they are this share of the batch


class DecodeBatch:
    """Per row: `number_B` of its completion, `taken_B` tokens so far, `logits_BV` of the next one.

    A completion that has ended is no longer `running_B`; its row may stay a while.
    """

    def __init__(
        self, model: PreTrainedModel, completions: Completions, rows: int, prompt_width: int
    ) -> None:
        """At most `rows` rows, and prompts of at most `prompt_width` tokens."""
        self._model, self._device, self._prompt_width = model, model.device, prompt_width
        self._completions = completions
        self._merged, self._masks, self._output = merge(model), LayerMasks(model), output_layer(model)
        self._layers = model.config.get_text_config().num_hidden_layers
        self._cache = PaddedCache(
            self._layers,
            rows=rows,
            width=chunks(prompt_width, model.device.type),
            end=prompt_width,
        )
        self.number_B = self.taken_B = self._start_B = torch.zeros(0, dtype=torch.long, device=self._device)
        self.running_B = torch.ones(0, dtype=torch.bool, device=self._device)
        self.logits_BV = torch.zeros(0, dtype=model.dtype, device=self._device)

    def __len__(self) -> int:
        return len(self.number_B)

    def admit(self, prompts: Sequence[Sequence[int]], numbers: Sequence[Sequence[int]]) -> None:
        """Compute these prompts, each once, and add a row for each of its completions' numbers."""
        logits_RV, cache, length_R = self._prefill(prompts)
        counts = torch.tensor([len(n) for n in numbers], device=self._device)
        row_of_B = torch.arange(len(prompts), device=self._device).repeat_interleave(counts)
        self._cache.append(cache, row_of_B)
        new_B = torch.tensor([n for each in numbers for n in each], device=self._device)
        self.logits_BV = torch.cat([self.logits_BV[: len(self)], logits_RV[row_of_B]])
        self.number_B = torch.cat([self.number_B, new_B])
        self.taken_B = torch.cat([self.taken_B, torch.zeros_like(new_B)])
        self.running_B = torch.cat([self.running_B, torch.ones_like(new_B, dtype=torch.bool)])
        self._start_B = torch.cat([self._start_B, self._cache.end - length_R[row_of_B]])

    def keep(self, wanted_B: Tensor) -> Tensor:
        """Drop the other rows; returns the order that the rest has now."""
        order_B = self._cache.keep_rows(wanted_B)
        self.number_B, self.taken_B = self.number_B[order_B], self.taken_B[order_B]
        self.running_B, self._start_B = self.running_B[order_B], self._start_B[order_B]
        return order_B

    def decode(self) -> None:
        """Draw a token for each row, drop those that have ended, and advance the others."""
        token_B, stopped_B = self._completions.extend(self.logits_BV, self.number_B, self.taken_B)
        at_limit_B = self.taken_B == self._completions.limit - 1
        self.running_B = self.running_B & ~(stopped_B | at_limit_B)
        ended = len(self) - int(self.running_B.sum())
        if ended >= TURNOVER * len(self) or at_limit_B.any():
            token_B = token_B[self.keep(self.running_B)]
        if len(self):
            self.advance(token_B)

    def advance(self, token_B: Tensor) -> None:
        """Add a token to each row, and compute the logits of the next."""
        if self._cache.end == self._cache.width:
            self._make_room()
        self.logits_BV = self.next_logits(token_B, self._start_B, self._cache.end, self._cache)
        self.taken_B = self.taken_B + 1

    def next_logits(self, token_B: Tensor, start_B: Tensor, end: int | Tensor, cache: Cache) -> Tensor:
        """logits_BV after these tokens, which go to column `end`, of rows that begin at column `start_B`."""
        column_W = torch.arange(self._cache.width, device=self._device)
        seen_BW = (column_W >= start_B[:, None]) & (column_W <= end)
        hidden_B1H = hidden_states(
            self._model,
            token_B[:, None],
            self._masks(seen_BW[:, None, None], lambda: end - column_W, self._model.dtype),
            (end - start_B)[:, None],
            cache,
            merged=self._merged,
        )
        return self._output.logits(hidden_B1H[:, -1])

    def _make_room(self) -> None:
        """Drop the columns that no row needs any more, but for as many as the next prompt may have."""
        end = self._cache.end
        columns = max(end - int(self._start_B.min()), self._prompt_width)
        self._cache.widen(columns, chunks(columns, self._device.type))
        self._start_B = self._start_B - (end - columns)

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, PaddedCache, Tensor]:
        """(logits_RV, cache, length_R) of prompts padded on the left."""
        width = max(map(len, prompts))
        tokens_RP = torch.zeros(len(prompts), width, dtype=torch.long)
        is_token_RP = torch.zeros(len(prompts), width, dtype=torch.bool)
        for row, ids in enumerate(prompts):
            tokens_RP[row, width - len(ids) :] = torch.tensor(list(ids))
            is_token_RP[row, width - len(ids) :] = True
        tokens_RP, is_token_RP = tokens_RP.to(self._device), is_token_RP.to(self._device)
        cache = PaddedCache(self._layers, rows=len(prompts), width=width)
        hidden_RPH = hidden_states(
            self._model,
            tokens_RP,
            self._masks(left_padded_mask(is_token_RP), lambda: _behind(is_token_RP), self._model.dtype),
            (is_token_RP.cumsum(-1) - 1).clamp(min=0),
            cache,
            merged=self._merged,
        )
        logits_RV = self._output.logits(hidden_RPH[:, -1])
        return logits_RV, cache, is_token_RP.sum(-1)


def _behind(is_token_RP: Tensor) -> Tensor:
    """By how many columns, here those of tokens, each lies before each other."""
    column_P = torch.arange(is_token_RP.shape[1], device=is_token_RP.device)
    return column_P[:, None] - column_P

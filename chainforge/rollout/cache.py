"""A key-value cache that is allocated once: decoding writes in place and never concatenates."""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class PreallocatedLayer(CacheLayerMixin):
    """One layer's keys and values: [rows, heads, capacity, head size], filled up to `length`.

    On a CPU, positions lie next to each other in memory and a key's components far apart, as the product of
    one query with all keys reads them.
    """

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take rows, heads and type from the first keys."""
        rows, heads, _, size = key_states.shape
        if key_states.device.type == "cpu":
            self.keys = key_states.new_zeros(rows, heads, size, self.capacity).transpose(-1, -2)
        else:
            self.keys = key_states.new_zeros(rows, heads, self.capacity, size)
        self.values = value_states.new_zeros(rows, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new states after the old ones; return views of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset that a mask over this cache has."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Positions written so far."""
        return self.length

    def get_max_length(self) -> int:
        """Positions there is room for."""
        return self.capacity

    get_max_cache_shape = get_max_length  # the name in transformers before 5.20

    def take_rows(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken several times."""
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self._taken(self.keys, rows), self._taken(self.values, rows)

    def _taken(self, states: Tensor, rows: Tensor) -> Tensor:
        taken = torch.empty_like(states[:1].expand(len(rows), -1, -1, -1))  # with the order in memory
        taken[:, :, : self.length] = states[rows, :, : self.length]
        return taken

    def close_gaps(self, gaps: Tensor, movers: Tensor, count: int) -> None:
        """Keep `count` rows: those behind them that are still needed move into the gaps."""
        assert self.keys is not None
        assert self.values is not None
        for states in (self.keys, self.values):
            states[gaps, :, : self.length] = states[movers, :, : self.length]
        self.keys, self.values = self.keys[:count], self.values[:count]


class PreallocatedCache(Cache):
    """All layers."""

    def __init__(self, layers: int, capacity: int) -> None:
        self._filled = [PreallocatedLayer(capacity) for _ in range(layers)]
        super().__init__(layers=list(self._filled))

    def take_rows(self, rows: Tensor) -> None:
        """Keep these rows in every layer."""
        for layer in self._filled:
            layer.take_rows(rows)

    def keep_rows(self, wanted_B: Tensor) -> Tensor:
        """Keep the rows that are wanted, and say in which order: only the last ones move, into the gaps."""
        count = int(wanted_B.sum())
        gaps = (~wanted_B[:count]).nonzero().squeeze(-1)
        movers = wanted_B[count:].nonzero().squeeze(-1) + count
        for layer in self._filled:
            layer.close_gaps(gaps, movers, count)
        order_B = torch.arange(count, device=wanted_B.device)
        order_B[gaps] = movers
        return order_B


def left_padded_mask(is_token_NP: Tensor) -> Tensor:
    """mask_N1PP for a prefill with left padding: causal, on real tokens; padding sees only itself."""
    width = is_token_NP.shape[1]
    square = torch.ones(width, width, dtype=torch.bool, device=is_token_NP.device)
    return (
        (square.tril() & is_token_NP[:, None]) | torch.eye(width, dtype=torch.bool, device=square.device)
    )[:, None]

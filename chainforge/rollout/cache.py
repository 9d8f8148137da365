"""A key-value cache for decoding: tokens are written in place, and room is made for many at a time.

B rows in use, R rows of another cache. Every row ends at the same column; one that began later begins further
right. So a token is written as one slice, and a new row is put in with its last token in the last column.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

CHUNK = {"cpu": 32}  # columns
CHUNK_ELSEWHERE = 256


class PaddedLayer(CacheLayerMixin):
    """One layer's keys and values: [rows, heads, width, head size], written up to column `end`.

    Attention gets the whole width, of which a mask hides what no row has written: only whole tensors lie in
    memory as the bfloat16 products of a CPU want them, and parts would be copied for every token.
    """

    is_sliding = False

    def __init__(self, rows: int, width: int, end: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most_rows, self.width, self.end = rows, width, end
        self.rows = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take heads, sizes and type from the first keys."""
        self.keys, self.values = self._empty(key_states), self._empty(value_states)
        self.clear(slice(None), slice(self.end, None))
        self.is_initialized = True

    def _empty(self, like: Tensor) -> Tensor:
        _, heads, _, size = like.shape
        return like.new_empty(self.most_rows, heads, self.width, size)

    def clear(self, rows: slice, columns: slice) -> None:
        """What is masked must be a number, too: 0 × NaN from fresh memory is NaN."""
        for states in self._storage:
            states[rows, :, columns] = 0.0

    @property
    def _storage(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new states after the old ones; return all columns."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.rows, start = len(key_states), self.end
        self.end += key_states.shape[-2]
        keys, values = self._storage
        keys[: self.rows, :, start : self.end] = key_states
        values[: self.rows, :, start : self.end] = value_states
        return keys[: self.rows], values[: self.rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset that a mask over this cache has."""
        return self.width, 0

    def get_seq_length(self) -> int:
        """Columns written."""
        return self.end

    def get_max_length(self) -> int:
        """Columns there is room for."""
        return self.width

    get_max_cache_shape = get_max_length  # the name in transformers before 5.20

    def append(self, other: "PaddedLayer", row_of_B: Tensor) -> None:
        """Put these rows of another layer behind those in use; a row may be put in several times."""
        if not self.is_initialized:
            self.lazy_initialization(*other._storage)
        rows = self.rows + len(row_of_B)
        for ours, theirs in zip(self._storage, other._storage, strict=True):
            ours[self.rows : rows, :, self.end - other.end : self.end] = theirs[row_of_B, :, : other.end]
        self.clear(slice(self.rows, rows), slice(self.end - other.end))
        self.rows = rows

    def close_gaps(self, gaps: Tensor, movers: Tensor, count: int) -> None:
        """Keep `count` rows: those behind them that are still needed move into the gaps."""
        for states in self._storage:
            states[gaps, :, : self.end] = states[movers, :, : self.end]
        self.rows = count

    def widen(self, columns: int, width: int) -> None:
        """Move the last `columns` columns to the left end of new storage."""
        self.width = width
        (keys, values), start, rows = self._storage, self.end - columns, self.rows
        self.keys, self.values = self._empty(keys), self._empty(values)
        self.keys[:rows, :, :columns] = keys[:rows, :, start : self.end]
        self.values[:rows, :, :columns] = values[:rows, :, start : self.end]
        self.clear(slice(None), slice(columns, None))
        self.end = columns

    def shift(self, columns: int) -> None:
        """As `widen` to the same width, in the storage that it has."""
        start = self.end - columns
        for states in self._storage:
            states[: self.rows, :, :columns] = states[: self.rows, :, start : self.end].clone()
        self.end = columns


class PaddedCache(Cache):
    """All layers. Tokens are written from column `end` on; shorter prompts leave columns before theirs."""

    def __init__(self, layers: int, *, rows: int, width: int, end: int = 0) -> None:
        self.filled = [PaddedLayer(rows, width, end) for _ in range(layers)]
        super().__init__(layers=list(self.filled))

    @property
    def end(self) -> int:
        """The column that is written next."""
        return self.filled[0].end

    @property
    def width(self) -> int:
        """Columns there is room for."""
        return self.filled[0].width

    def append(self, other: "PaddedCache", row_of_B: Tensor) -> None:
        """Put these rows of another cache behind those in use; their last columns become this one's last."""
        for ours, theirs in zip(self.filled, other.filled, strict=True):
            ours.append(theirs, row_of_B)

    def keep_rows(self, wanted_B: Tensor) -> Tensor:
        """Keep the rows that are wanted, and say in which order: only the last ones move, into the gaps."""
        count = int(wanted_B.sum())
        gaps = (~wanted_B[:count]).nonzero().squeeze(-1)
        movers = wanted_B[count:].nonzero().squeeze(-1) + count
        for layer in self.filled:
            layer.close_gaps(gaps, movers, count)
        order_B = torch.arange(count, device=wanted_B.device)
        order_B[gaps] = movers
        return order_B

    def widen(self, columns: int, width: int) -> None:
        """Keep the last `columns` columns only, in storage of this `width`."""
        for layer in self.filled:
            layer.widen(columns, width)

    def shift(self, columns: int) -> None:
        """As `widen` to the same width, in the storage that it has."""
        for layer in self.filled:
            layer.shift(columns)

    def skip(self, columns: int) -> None:
        """Say that as many columns more have been written, by another way."""
        for layer in self.filled:
            layer.end += columns

    def clear_rows_from(self, row: int) -> None:
        """Let there be numbers, where nothing may have been written yet."""
        for layer in self.filled:
            layer.clear(slice(row, None), slice(None))


def chunks(columns: int, device_type: str) -> int:
    """The width that has room for at least one column more."""
    chunk = CHUNK.get(device_type, CHUNK_ELSEWHERE)
    return (columns // chunk + 1) * chunk


def left_padded_mask(is_token_NP: Tensor) -> Tensor:
    """mask_N1PP for a prefill with left padding: causal, on real tokens; padding sees only itself."""
    width = is_token_NP.shape[1]
    square = torch.ones(width, width, dtype=torch.bool, device=is_token_NP.device)
    return (
        (square.tril() & is_token_NP[:, None]) | torch.eye(width, dtype=torch.bool, device=square.device)
    )[:, None]

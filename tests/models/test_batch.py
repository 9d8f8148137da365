"""Laws of padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chainforge.models.batch import Tokens, collate, pad_rows

CPU = torch.device("cpu")
ids = st.lists(st.integers(1, 10), min_size=1, max_size=6)
sequences = st.lists(st.builds(Tokens, ids, ids), min_size=1, max_size=6)


@pytest.mark.slow
@given(sequences=sequences)
def test_a_batch_holds_every_token_and_marks_exactly_the_completions(sequences: list[Tokens]) -> None:
    batch = collate(sequences, CPU)
    assert batch.tokens_BS.shape == batch.target_BS.shape == (len(sequences), max(map(len, sequences)))
    for row, s in enumerate(sequences):
        assert batch.tokens_BS[row, : len(s)].tolist() == [*s.prompt, *s.completion]
        assert batch.tokens_BS[row][batch.target_BS[row]].tolist() == list(s.completion)
        assert batch.mask_BT[row].tolist() == [i < len(s.completion) for i in range(batch.mask_BT.shape[1])]
        assert not batch.tokens_BS[row, len(s) :].any()


@given(rows=st.lists(st.lists(st.floats(-9, 0, width=32), max_size=5), min_size=1, max_size=5))
def test_padded_rows_are_the_rows_and_zeros(rows: list[list[float]]) -> None:
    padded = pad_rows(rows, 6, CPU)
    assert padded.shape == (len(rows), 6)
    for row, found in zip(rows, padded.tolist(), strict=True):
        assert found == row + [0.0] * (6 - len(row))

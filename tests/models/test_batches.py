"""Laws of padding and of micro-batches."""

import torch
from fakes import qwen2
from hypothesis import given
from hypothesis import strategies as st

from chainforge.models.batches import MOST_PADDING, Tokens, collate, micro_batches, pad_rows
from chainforge.models.logprobs import completion_logprobs, logprobs_and_entropy

CPU = torch.device("cpu")
lengths = st.lists(st.integers(1, 60), max_size=30)
ids = st.lists(st.integers(1, 10), min_size=1, max_size=6)
sequences = st.lists(st.builds(Tokens, ids, ids), min_size=1, max_size=6)


@given(lengths=lengths, most=st.integers(1, 200))
def test_micro_batches_have_every_sequence_once_and_keep_to_the_bound(lengths: list[int], most: int) -> None:
    found = list(micro_batches(lengths, most))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert batch
        assert len(batch) * max(lengths[i] for i in batch) <= most or len(batch) == 1


@given(lengths=lengths)
def test_micro_batches_put_like_lengths_together_and_open_with_the_largest(lengths: list[int]) -> None:
    order = [lengths[i] for batch in micro_batches(lengths, 64) for i in batch]
    assert order == sorted(lengths, reverse=True)  # what does not fit into memory fails at once


@given(lengths=lengths, most=st.integers(1, 200))
def test_only_a_share_of_a_micro_batch_is_padding(lengths: list[int], most: int) -> None:
    for batch in micro_batches(lengths, most):
        padding = len(batch) * max(lengths[i] for i in batch) - sum(lengths[i] for i in batch)
        assert padding <= most * MOST_PADDING


def test_uneven_lengths_are_cut_where_filling_up_would_be_mostly_padding() -> None:
    lengths = [200, 190, 20, 20, 20, 20]
    assert list(micro_batches(lengths, 1280)) == [[0, 1], [2, 3, 4, 5]]


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


MODEL = qwen2()


@given(sequences=sequences, most=st.integers(1, 60))
def test_neither_padding_nor_neighbours_change_a_log_probability(sequences: list[Tokens], most: int) -> None:
    alone = [completion_logprobs(MODEL, collate([s], CPU))[0] for s in sequences]
    for batch in micro_batches([len(s) for s in sequences], most):
        logp_BT, entropy_BT = logprobs_and_entropy(MODEL, collate([sequences[i] for i in batch], CPU))
        for index, logp_T, entropy_T in zip(batch, logp_BT, entropy_BT, strict=True):
            length = len(sequences[index].completion)
            torch.testing.assert_close(logp_T[:length], alone[index], atol=1e-5, rtol=0)
            assert not logp_T[length:].any()
            assert not entropy_T[length:].any()

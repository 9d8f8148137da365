"""Laws of the sampler: it draws from the model's own distribution, whatever else is in the batch."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from fakes import llama, make_step, mistral, policy, prompt, qwen2, qwen3
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.rollout import decode_batch
from chainforge.rollout.complete import complete
from chainforge.rollout.decode_batch import DecodeBatch
from chainforge.rollout.draw import draw, truncate, uniforms
from chainforge.rollout.engine import Request, Sampled
from chainforge.rollout.local_engine import LocalEngine
from chainforge.rollout.sampler import sample
from chainforge.run.seeds import derive

EOS = 0
MODELS = {"qwen2": qwen2, "llama": llama, "qwen3": qwen3, "mistral": mistral}
DRAWS = 20_000
probabilities = st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(any)
uniform = st.floats(0, 1, exclude_max=True, allow_subnormal=False)


def settings_of(**changes: Any) -> SamplingSettings:
    return SamplingSettings(**{"max_new_tokens": 12} | changes)


def requests_of(*lengths: int, completions: int = 5) -> list[Request]:
    """Random prompts of these lengths without EOS, each with seeds of its own."""
    random = Random(1)
    return [
        Request(
            [random.randrange(1, 11) for _ in range(length)], [derive(3, n, i) for i in range(completions)]
        )
        for n, length in enumerate(lengths)
    ]


REQUESTS = requests_of(1, 7, 3, 3, 12, 5)


def drawn(
    model: PreTrainedModel, requests: Sequence[Request], settings: SamplingSettings, *, max_rows: int = 512
) -> list[list[Sampled]]:
    return sample(model, requests, settings, eos_ids=[EOS], max_rows=max_rows)


@torch.no_grad()
def forward_logits(model: PreTrainedModel, prompt_ids: Sequence[int], answer: Sequence[int]) -> Tensor:
    """logits_TV before each token of the answer: one plain forward pass, no cache, no padding."""
    logits_SV: Tensor = model(torch.tensor([[*prompt_ids, *answer]])).logits[0]
    return logits_SV[len(prompt_ids) - 1 : -1]


@pytest.mark.dear
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_are_those_of_a_plain_forward_pass(kind: str, temperature: float) -> None:
    model = MODELS[kind]()
    results = drawn(model, REQUESTS, settings_of(temperature=temperature))
    assert (
        len({len(s.token_ids) for group in results for s in group}) > 3
    )  # some ended early: rows were dropped
    for request, group in zip(REQUESTS, results, strict=True):
        for s in group:
            logits_TV = forward_logits(model, request.prompt_ids, s.token_ids) / temperature
            logp_T = logits_TV.log_softmax(-1).gather(-1, torch.tensor(s.token_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(s.logprobs), logp_T, atol=1e-4, rtol=0)


def chi_square_p(counts: dict[Any, int], probability: dict[Any, float], draws: int) -> float:
    """Pearson's test; cells expected fewer than five times are put together."""
    rare = {cell for cell, p in probability.items() if p * draws < 5}
    cells = [(counts.get(cell, 0), p * draws) for cell, p in probability.items() if cell not in rare]
    cells.append((sum(counts.get(cell, 0) for cell in rare), draws * sum(probability[cell] for cell in rare)))
    cells = [(seen, expected) for seen, expected in cells if expected > 0]
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def test_the_chi_square_test_itself_knows_a_fair_die_from_a_loaded_one() -> None:
    fair = dict.fromkeys(range(6), 1 / 6)
    assert chi_square_p(dict.fromkeys(range(6), 1000), fair, 6000) == pytest.approx(1.0)
    # 6 degrees of freedom less one; 11.07 is the 5% point of the table
    off = math.sqrt(11.0705 * 1000 / 2)
    assert chi_square_p({0: 1000 + off, 1: 1000 - off, 2: 1000, 3: 1000, 4: 1000, 5: 1000}, fair, 6000) == (
        pytest.approx(0.05, abs=1e-4)
    )
    assert chi_square_p({**dict.fromkeys(range(6), 1000), 0: 1200, 1: 800}, fair, 6000) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "truncation"),
    [
        ("qwen2", {}),
        ("llama", {"temperature": 0.7}),
        ("qwen2", {"top_k": 4}),
        ("llama", {"top_p": 0.8, "temperature": 1.3}),
    ],
)
def test_tokens_are_as_frequent_as_the_model_says(kind: str, truncation: dict[str, Any]) -> None:
    model = MODELS[kind](vocab=8, sharpness=0.25, seed=2)
    settings = settings_of(max_new_tokens=2, **truncation)
    request = Request([3, 1, 4, 1, 5], [derive(17, "draw", i) for i in range(DRAWS)])
    (group,) = drawn(model, [request], settings)

    def distribution(answer: Sequence[int]) -> list[float]:
        logits_V = forward_logits(model, request.prompt_ids, [*answer, 0])[-1:]
        probs_V = (logits_V / settings.temperature).softmax(-1)
        kept_V = truncate(probs_V, top_p=settings.top_p, top_k=settings.top_k)[0].double()
        return (kept_V / kept_V.sum()).tolist()

    first = {(token,): p for token, p in enumerate(distribution([])) if p > 0}
    counts: Counter[Any] = Counter(s.token_ids[:1] for s in group)
    assert set(counts) <= set(first)
    assert chi_square_p(counts, first, DRAWS) > 1e-3

    for (token,), seen in counts.items():
        if token != EOS:
            second = {t: p for t, p in enumerate(distribution([token])) if p > 0}
            after = Counter(s.token_ids[1] for s in group if s.token_ids[0] == token)
            assert set(after) <= set(second)
            assert chi_square_p(after, second, seen) > 1e-3 / len(first)


@pytest.mark.slow
def test_tokens_of_one_completion_are_drawn_independently_of_each_other() -> None:
    model = qwen2(vocab=8)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)  # every token is equally likely, always
    request = Request([3, 1], [derive(17, "pairs", i) for i in range(DRAWS)])
    (group,) = drawn(model, [request], settings_of(max_new_tokens=2))
    pairs = {(a, b): 1 / 64 for a in range(1, 8) for b in range(8)} | {(EOS,): 1 / 8}
    assert chi_square_p(Counter(s.token_ids for s in group), pairs, DRAWS) > 1e-3


@pytest.mark.dear
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("max_rows", [1, 4, 12, 1000])
def test_a_completion_does_not_depend_on_what_else_is_in_the_batch(kind: str, max_rows: int) -> None:
    model, settings = MODELS[kind](), settings_of(temperature=0.9)
    alone = [drawn(model, [request], settings)[0] for request in REQUESTS]
    order = Random(max_rows).sample(range(len(REQUESTS)), len(REQUESTS))
    neighbours = requests_of(20, 2, completions=3)
    mixed = drawn(model, [*(REQUESTS[i] for i in order), *neighbours], settings, max_rows=max_rows)
    for place, index in enumerate(order):
        assert_same(mixed[place], alone[index])


def test_a_completion_does_not_depend_on_its_siblings() -> None:
    model, settings = qwen2(), settings_of()
    (whole,) = drawn(model, [REQUESTS[1]], settings)
    for index, seed in enumerate(REQUESTS[1].seeds):
        (single,) = drawn(model, [Request(REQUESTS[1].prompt_ids, [seed])], settings)
        assert_same(single, [whole[index]])


def test_a_higher_limit_only_lengthens_completions() -> None:
    model = qwen2()
    short = drawn(model, REQUESTS, settings_of(max_new_tokens=4))
    long = drawn(model, REQUESTS, settings_of(max_new_tokens=12))
    for a, b in zip(chain(*short), chain(*long), strict=True):
        assert a.token_ids == b.token_ids[:4]


@pytest.mark.dear
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, math.inf])
@pytest.mark.parametrize("kind", MODELS)
def test_dropping_finished_rows_changes_nothing(
    kind: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = MODELS[kind](), settings_of()
    usual = drawn(model, REQUESTS, settings)
    monkeypatch.setattr(decode_batch, "TURNOVER", share)
    for a, b in zip(drawn(model, REQUESTS, settings), usual, strict=True):
        assert_same(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("max_rows", [1, 2, 5, 16])
def test_what_waits_takes_the_place_of_what_has_ended_at_once(
    max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_batch, "TURNOVER", 0.0)
    together: list[int] = []
    advance = DecodeBatch.advance
    monkeypatch.setattr(
        DecodeBatch, "advance", lambda batch, ids: together.append(len(batch)) or advance(batch, ids)
    )
    requests = requests_of(*range(1, 31), completions=1)
    results = drawn(qwen2(), requests, settings_of(max_new_tokens=40), max_rows=max_rows)
    lengths = [len(s.token_ids) for s in chain(*results)]
    assert len(set(lengths)) > 10
    assert max(together) <= max_rows
    assert sum(together) == sum(lengths) - len(lengths)  # the first token comes from the prompt's pass
    # Graham's bound for a queue served in any order, doi 10.1137/0117039
    assert len(together) <= sum(lengths) / max_rows + max(lengths)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_nothing_is_read_from_memory_before_it_is_written(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic PyTorch fills new tensors with NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    model, settings = MODELS[kind](), settings_of(max_new_tokens=40)
    usual = drawn(model, REQUESTS, settings, max_rows=12)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(1).isnan()
        found = drawn(model, REQUESTS, settings, max_rows=12)
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b in zip(found, usual, strict=True):
        assert_same(a, b)


def assert_same(found: Sequence[Sampled], wanted: Sequence[Sampled]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert (a.token_ids, a.finish) == (b.token_ids, b.finish)
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=5e-5, rtol=0)


@pytest.mark.dear
@pytest.mark.parametrize("kind", MODELS)
def test_greedy_is_what_transformers_generates(kind: str) -> None:
    model = MODELS[kind](seed=5)
    requests = requests_of(1, 7, 3, 12, completions=1)
    for eos in (0, 4, 7):
        found = sample(model, requests, settings_of(temperature=0.0), eos_ids=[eos], max_rows=100)
        for request, (greedy,) in zip(requests, found, strict=True):
            ids = torch.tensor([request.prompt_ids])
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=eos,
                pad_token_id=eos,
            )
            assert greedy.token_ids == tuple(whole[0, ids.shape[1] :].tolist())


def test_greedy_does_not_look_at_seeds() -> None:
    (group,) = drawn(qwen2(), [REQUESTS[2]], settings_of(temperature=0.0))
    assert len({s.token_ids for s in group}) == 1


@pytest.mark.parametrize("kind", MODELS)
def test_a_completion_ends_with_its_first_eos_or_at_the_limit(kind: str) -> None:
    endings = set()
    for limit in (1, 2, 3, 8):
        for s in chain(*drawn(MODELS[kind](), REQUESTS, settings_of(max_new_tokens=limit))):
            assert len(s.logprobs) == len(s.token_ids) <= limit
            assert EOS not in s.token_ids[:-1]
            assert (s.finish == "stop") == (s.token_ids[-1] == EOS)
            assert s.finish == "stop" or len(s.token_ids) == limit
            endings.add((s.finish, len(s.token_ids) == limit))
    assert endings == {("stop", False), ("stop", True), ("length", True)}


@pytest.mark.dear
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("top_k", "top_p"), [(1, 1.0), (3, 1.0), (0, 0.6), (5, 0.7)])
def test_nothing_outside_the_likeliest_tokens_is_ever_drawn(kind: str, top_k: int, top_p: float) -> None:
    model = MODELS[kind]()
    results = drawn(model, REQUESTS, settings_of(top_k=top_k, top_p=top_p, temperature=1.5))
    for request, group in zip(REQUESTS, results, strict=True):
        for s in group:
            probs_TV = (forward_logits(model, request.prompt_ids, s.token_ids) / 1.5).softmax(-1)
            for token, probs_V in zip(s.token_ids, probs_TV, strict=True):
                likelier_V = probs_V > probs_V[token]
                assert top_k == 0 or likelier_V.sum() < top_k
                best = probs_V.sort(descending=True).values[: top_k or None].sum()
                assert probs_V[likelier_V].sum() < top_p * best + 1e-5


def test_the_sampler_leaves_the_random_state_and_the_gradients_alone() -> None:
    model = qwen2()
    before = torch.get_rng_state()
    drawn(model, REQUESTS, settings_of())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_nothing_asked_is_nothing_answered() -> None:
    assert drawn(qwen2(), [], settings_of()) == []


@pytest.mark.slow
@pytest.mark.parametrize("response_format", ["supercot", "r1-prefilled"])
def test_completions_carry_the_whole_response_and_the_step_they_come_from(response_format: str) -> None:
    step = make_step("distill_data", response_format=response_format)
    toy, prompts = policy(), [prompt(n) for n in range(1, 6)]
    settings = settings_of()

    def answers(rows: int) -> list[Any]:
        narrow = make_step("distill_data", response_format=response_format, rollout_rows=rows)
        engine = LocalEngine(toy, narrow)
        return complete(
            engine, toy.tokenizer, prompts, 3, settings, narrow, seed=lambda p, i: derive(1, p, i)
        )

    results = answers(512)
    prefill = step.response_format.prefill
    for p, group in zip(prompts, results, strict=True):
        assert len(group) == 3
        for c in group:
            assert (c.prompt_id, c.origin) == (p.id, "distill_data")
            text = toy.tokenizer.decode(list(c.token_ids), skip_special_tokens=True)
            assert c.text == prefill + text
    for again in (answers(4), answers(1)):
        assert [[c.token_ids for c in g] for g in again] == [[c.token_ids for c in g] for g in results]


def drawn_token(logits_BV: Tensor, uniform_B: Tensor, **settings: Any) -> Tensor:
    return draw(logits_BV.clone(), uniform_B, **settings)[0]


def logits_of(weights: Sequence[int]) -> Tensor:
    return torch.tensor([weights], dtype=torch.float32).log()  # a weight of zero: minus infinity


@pytest.mark.slow
@given(weights=probabilities, u=uniform)
def test_a_draw_inverts_the_cumulative_distribution(weights: list[int], u: float) -> None:
    u_B = torch.tensor([u], dtype=torch.float64)
    token = int(drawn_token(logits_of(weights), u_B, temperature=1.0, top_p=1.0, top_k=0))
    below, upto = sum(weights[:token]) / sum(weights), sum(weights[: token + 1]) / sum(weights)
    assert weights[token] > 0
    assert below - 1e-6 <= u <= upto + 1e-6


@pytest.mark.slow
@given(weights=probabilities, top_k=st.integers(0, 12), top_p=st.floats(0.01, 1.0))
def test_the_largest_number_below_one_still_draws_a_possible_token(
    weights: list[int], top_k: int, top_p: float
) -> None:
    last = torch.tensor([math.nextafter(1.0, 0.0)], dtype=torch.float64)
    token_B = drawn_token(logits_of(weights), last, temperature=1.0, top_p=top_p, top_k=top_k)
    kept_BV = truncate(logits_of(weights).softmax(-1), top_p=top_p, top_k=top_k)
    assert kept_BV[0, token_B[0]] > 0


@pytest.mark.slow
@given(weights=probabilities, u=uniform)
def test_temperature_zero_and_top_k_one_take_the_likeliest(weights: list[int], u: float) -> None:
    u_B = torch.tensor([u], dtype=torch.float64)
    greedy = drawn_token(logits_of(weights), u_B, temperature=0.0, top_p=1.0, top_k=0)
    assert weights[int(greedy)] == max(weights)
    one = drawn_token(logits_of(weights), u_B, temperature=1.0, top_p=1.0, top_k=1)
    assert weights[int(one)] == max(weights)


@given(
    weights=st.lists(st.integers(1, 10**6), min_size=2, max_size=12, unique=True), top_k=st.integers(1, 14)
)
def test_top_k_keeps_exactly_the_k_likeliest_as_they_were(weights: list[int], top_k: int) -> None:
    probs_BV = logits_of(weights).double().softmax(-1)
    kept_BV = truncate(probs_BV, top_p=1.0, top_k=top_k)
    kept_V = kept_BV[0] > 0
    assert int(kept_V.sum()) == min(top_k, len(weights))
    assert torch.equal(kept_BV[0][kept_V], probs_BV[0][kept_V])
    assert top_k >= len(weights) or kept_BV[0][kept_V].min() > probs_BV[0][~kept_V].max()


@given(weights=probabilities, top_p=st.floats(0.01, 0.99))
def test_the_nucleus_is_the_smallest_set_with_that_probability(weights: list[int], top_p: float) -> None:
    probs_BV = logits_of(weights).double().softmax(-1)
    kept_BV = truncate(probs_BV, top_p=top_p, top_k=0)
    kept_V = kept_BV[0] > 0
    held = float(kept_BV.sum())
    assert held >= top_p - 1e-9
    assert held - float(kept_BV[0][kept_V].min()) <= top_p + 1e-9
    assert bool((~kept_V).all()) is False
    assert (~kept_V).sum() == 0 or kept_BV[0][kept_V].min() >= probs_BV[0][~kept_V].max()


@pytest.mark.slow
@given(weights=probabilities, temperature=st.floats(0.1, 3.0))
def test_the_log_probability_is_that_of_the_tempered_distribution(
    weights: list[int], temperature: float
) -> None:
    _, logp_B = draw(
        logits_of(weights), torch.zeros(1, dtype=torch.float64), temperature=temperature, top_p=1.0, top_k=1
    )
    total = sum((w / max(weights)) ** (1 / temperature) for w in weights)
    assert float(logp_B) == pytest.approx(-math.log(total), abs=1e-5)


@given(seed=st.integers(0, 2**63 - 1), short=st.integers(0, 8), more=st.integers(0, 8))
def test_random_numbers_depend_on_the_seed_alone_not_on_how_many_are_wanted(
    seed: int, short: int, more: int
) -> None:
    long = uniforms(seed, short + more)
    assert np.array_equal(uniforms(seed, short), long[:short])
    assert ((long >= 0) & (long < 1)).all()

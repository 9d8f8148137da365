"""Attention for short rows and for one query is attention, in any model of transformers."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fakes import llama, mistral, policy, qwen2
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, FalconConfig, FalconForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from chainforge.config.sampling import SamplingSettings
from chainforge.learner.forward_passes import mixed_precision
from chainforge.models import attention, decoder
from chainforge.models.attention import NAME, attend, choose_attention
from chainforge.models.batch import Tokens, collate
from chainforge.models.checkpoint import load_policy, save_policy
from chainforge.models.policy_model import PolicyModel
from chainforge.rollout.engine import Request
from chainforge.rollout.sampler import sample

CPU = torch.device("cpu")


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("keys_before", [0, 3])
def test_short_attention_is_attention(heads: int, kv_heads: int, keys_before: int) -> None:
    module = nn.Module()
    module.num_key_value_groups = heads // kv_heads  # type: ignore[assignment]
    found, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        q = random(0, 2, heads, 9, 8).requires_grad_()
        k, v = (random(seed, 2, kv_heads, keys_before + 9, 8).requires_grad_() for seed in (1, 2))
        mask = torch.full((9, keys_before + 9), -torch.inf, dtype=dtype).triu(1 + keys_before)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            given = mask.expand(2, 1, -1, -1) if keys_before else None
            out = attend(module, q, k, v, given, 0.3)[0]
        out.float().square().sum().backward()
        found.append(out.detach().float())
        gradients.append([x.grad for x in (q, k, v)])
    torch.testing.assert_close(found[1], found[0], atol=0.03, rtol=0.03)
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() < 0.03 * one.norm()


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 1)])
def test_for_a_gpu_too(heads: int, kv_heads: int) -> None:
    """Of one query per row, with a mask; and of whole rows without, whose gradients count."""
    module = nn.Module()
    module.num_key_value_groups = heads // kv_heads  # type: ignore[assignment]
    q, k, v = random(0, 3, heads, 1, 8), random(1, 3, kv_heads, 7, 8), random(2, 3, kv_heads, 7, 8)
    mask = torch.arange(7)[None, None, None] >= torch.tensor([0, 2, 6])[:, None, None, None]
    wanted = sdpa_attention_forward(module, q, k, v, mask, scaling=0.3)[0]
    torch.testing.assert_close(attention.attend_in_groups(q, k, v, mask, 0.3), wanted)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention.attend_repeated(q, k, v, 0.3)

    def usual(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa_attention_forward(module, q, k, v, None, scaling=0.3, is_causal=True)[0]

    found = []
    for by in (ours, usual):
        q = random(3, 2, heads, 9, 8).requires_grad_()
        k, v = (random(seed, 2, kv_heads, 9, 8).requires_grad_() for seed in (4, 5))
        out = by(q, k, v)
        out.square().sum().backward()
        found.append([out.detach(), q.grad, k.grad, v.grad])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("fused", [False, True])
def test_on_a_gpu_each_shape_goes_where_it_should(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def noted(name: str) -> Callable[..., Tensor | tuple[Tensor, None]]:
        usual = getattr(attention, name)
        return lambda *a, **k: taken.append(name) or usual(*a, **k)

    for name in ("attend_in_groups", "attend_repeated", "sdpa_attention_forward", "attend_once"):
        monkeypatch.setattr(attention, name, noted(name))
    monkeypatch.setattr(attention, "type_of", lambda _: "cuda")
    monkeypatch.setattr(attention, "has_fused_groups", lambda _: fused)
    module = nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]

    def by(heads: int, queries: int, mask: Tensor | None) -> str:
        q, k, v = (random(0, 2, h, n, 8) for h, n in ((heads, queries), (2, 5), (2, 5)))
        module.num_key_value_groups = heads // 2  # type: ignore[assignment]
        with torch.inference_mode():
            attend(module, q, k, v, mask, 0.3)
        return taken.pop()

    seen = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    assert by(4, 1, seen) == "attend_in_groups"
    assert by(4, 5, None) == ("sdpa_attention_forward" if fused else "attend_repeated")
    assert by(4, 5, seen.expand(2, 1, 5, 5)) == "sdpa_attention_forward"
    assert by(2, 1, seen) == by(2, 5, None) == "sdpa_attention_forward"  # no keys are shared


def test_queries_that_share_keys_have_a_fused_kernel_in_16_bits_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for capability, fused in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert attention.has_fused_groups(torch.zeros(1, dtype=torch.bfloat16)) == fused
        assert not attention.has_fused_groups(torch.zeros(1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert attention.has_fused_groups(torch.zeros(1)) == fused


def test_long_rows_go_to_the_usual_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, seen = attention.sdpa_attention_forward, []
    monkeypatch.setattr(
        attention,
        "sdpa_attention_forward",
        lambda *a, **k: seen.append(a[1].shape[2]) or usual(*a, **k),
    )
    module = nn.Module()
    module.num_key_value_groups = 1  # type: ignore[assignment]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for length in (600, 100):
            attend(module, *(random(s, 1, 2, length, 8) for s in range(3)), None, 0.3)
    assert seen == [600]


@contextmanager
def transformers_says() -> Iterator[list[str]]:
    """What transformers logs inside."""
    said: list[str] = []

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Note(logging.WARNING)
    logging.getLogger("transformers").addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger("transformers").removeHandler(handler)


@pytest.mark.parametrize("axes", [(2, 1), (1, 1), (2, 4), (1, 4)], ids=str)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("value_size", [8, 6])
def test_masks_of_every_kind_and_values_of_another_size(
    axes: tuple[int, int], autocast: bool, queries: int, value_size: int
) -> None:
    module = nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    q, k, v = random(0, 2, 4, queries, 8), random(1, 2, 2, 7, 8), random(2, 2, 2, 7, value_size)
    seen = random(3, *axes, queries, 7) > -0.5
    seen[..., 0] = True
    wanted = sdpa_attention_forward(module, q, k, v, seen, scaling=0.4)[0]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        boolean = attend(module, q, k, v, seen, 0.4)[0]
        added = attend(module, q, k, v, attention.additive(seen, torch.float32), 0.4)[0]
    torch.testing.assert_close(boolean, added, atol=1e-6, rtol=0)
    close = 0.03 if autocast else 1e-5
    torch.testing.assert_close(boolean.float(), wanted, atol=close, rtol=close)


@pytest.mark.parametrize("told", [False, True])
def test_a_module_that_is_not_causal_sees_every_key(told: bool) -> None:
    module = nn.Module()
    module.is_causal = told  # type: ignore[assignment]
    q, k, v = (random(seed, 2, 4, 5, 8) for seed in range(3))
    wanted = nn.functional.scaled_dot_product_attention(q, k, v, scale=0.4).transpose(1, 2)
    options = {"is_causal": False} if told else {}
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(module, q, k, v, None, 0.4, **options)[0]
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "mistral": lambda: mistral(sharpness=0.1),
    "mistral with a window": lambda: mistral(sharpness=0.1, sliding_window=4),
    "qwen2 with a window": lambda: qwen2(
        sharpness=0.1, use_sliding_window=True, sliding_window=4, max_window_layers=0
    ),
    "llama": lambda: llama(sharpness=0.1),
}
SEQUENCES = [Tokens([3, 1, 4], [1, 5, 9, 2, 6, 5, 3]), Tokens([5], [3]), Tokens([5, 8, 9, 7], [2, 3, 8])]


def trained(model: PreTrainedModel, precision: str) -> tuple[Tensor, Tensor]:
    with mixed_precision(precision, CPU):
        logp_BT = PolicyModel(model)(collate(SEQUENCES, CPU)).logp_BT
    logp_BT.square().sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return logp_BT.detach(), gradient


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_trains_as_with_pytorch_s_kernel(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = trained(MODELS[kind](), "float32")
    monkeypatch.setattr(decoder, "is_known", lambda _: False)  # all by way of transformers
    sdpa, ours = MODELS[kind](), MODELS[kind]()
    choose_attention(ours)
    assert (sdpa.config._attn_implementation, ours.config._attn_implementation) == ("sdpa", NAME)
    for found, wanted in zip(trained(ours, "float32"), trained(sdpa, "float32"), strict=True):
        assert torch.equal(found, wanted)
    by_ours, by_sdpa = trained(ours, "bfloat16"), trained(sdpa, "bfloat16")
    assert not torch.equal(by_ours[1], by_sdpa[1])  # it was asked
    for found, wanted, right in zip(by_ours, by_sdpa, exact, strict=True):
        assert (found - right).norm() < 1.5 * (wanted - right).norm() + 1e-3


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_samples_as_with_pytorch_s_kernel(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "is_known", lambda _: False)
    once: list[int] = []
    usual = attention.attend_once
    monkeypatch.setattr(attention, "attend_once", lambda *a: once.append(1) or usual(*a))
    requests = [Request([1, 2, 3], [5, 6, 7]), Request([4], [8])]
    limit = 3 if "window" in kind else 12  # beyond its window a model is refused
    found = []
    for chosen in (False, True):
        model = MODELS[kind]()
        if chosen:
            assert not once
            choose_attention(model)
        results = sample(model, requests, SamplingSettings(max_new_tokens=limit), eos_ids=[0], max_rows=4)
        found.append([s for each in results for s in each])
    assert once
    for one, other in zip(*found, strict=True):
        assert (one.token_ids, one.finish) == (other.token_ids, other.finish)
        torch.testing.assert_close(
            torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5, rtol=0
        )


def test_another_attention_is_left_alone() -> None:
    model = llama()
    model.set_attn_implementation("eager")
    with transformers_says() as said:
        choose_attention(model)
    assert model.config._attn_implementation == "eager"
    assert said == []


def test_a_model_that_cannot_change_it_is_left_alone_without_a_word() -> None:
    model = FalconForCausalLM(
        FalconConfig(vocab_size=11, hidden_size=16, num_hidden_layers=1, num_attention_heads=4)
    )
    with transformers_says() as said:
        choose_attention(model)
    assert model.config._attn_implementation == "sdpa"
    assert said == []


def test_a_checkpoint_does_not_name_it(tmp_path: Path) -> None:
    made = policy()
    choose_attention(made.model)
    save_policy(made, tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert made.model.config._attn_implementation == NAME
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config._attn_implementation == "sdpa"
    assert load_policy(tmp_path, CPU).model.config._attn_implementation == NAME

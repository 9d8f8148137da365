"""Attention for short rows and for one query is attention, in any model of transformers."""

import pytest
import torch
from torch import Tensor, nn

from chainforge.models import attention
from chainforge.models.attention import attend


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

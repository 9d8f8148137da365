"""A model is computed rightly, or refused by name, before anything is done with it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import llama, qwen2, tokenizer
from transformers import AutoModelForCausalLM, Gemma3Config
from zoo import RIGHT, WRONG, make

from chainforge.errors import ChainForgeError
from chainforge.learner.forward_passes import forward_passes
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy, load_policy, make_policy, place, save_policy
from chainforge.models.masks import LayerMasks
from chainforge.models.output_layer import OutputLayer
from chainforge.models.policy_model import LogProbs, PolicyModel
from chainforge.rollout import check_engine as engine
from chainforge.rollout import sampler
from chainforge.rollout.check_engine import check_engine, deviations
from chainforge.rollout.model_variants import WINDOW, narrowed

CPU = torch.device("cpu")
QUICK = {"llama", "qwen3", "mixtral", "gemma 2", "granite", "mistral 0.1", "bloom", "gpt-neo", "bert"}
PROMPTS = [tuple(range(3, 3 + length)) for length in (WINDOW + 3, WINDOW - 2)]  # windows end in prompts
SEQUENCES = [Tokens(p, c) for p in PROMPTS for c in ((5, 3, 5, 8), (9, 7))]


def some(names: dict[str, object]) -> list[object]:
    """All of them in the slow suite, a few in the quick one."""
    return [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in names]


@pytest.mark.dear
@pytest.mark.parametrize("name", some({**RIGHT}))
def test_what_passes_is_right_in_its_gradients_too(name: str) -> None:
    whole = place(make(*RIGHT[name], loud=True), CPU)
    check_engine(whole)
    model, own = narrowed(whole), narrowed(make(*RIGHT[name], loud=True))
    own.set_attn_implementation("eager")  # transformers' plainest
    wanted = torch.zeros(())
    for s in SEQUENCES:
        ids = torch.tensor([[*s.prompt, *s.completion]])
        logp = own(ids).logits[:, len(s.prompt) - 1 : -1].log_softmax(-1)
        wanted = wanted + logp.gather(-1, ids[:, len(s.prompt) :, None]).sum()
    wanted.backward()
    true = [p.grad for p in own.parameters()]
    for share, checkpointing in ((True, False), (False, False), (False, True)):
        model.zero_grad()
        policy = PolicyModel(model, gradient_checkpointing=checkpointing)
        for _, batch in forward_passes(policy, SEQUENCES, 300, share=share):
            policy(batch).logp_BT.sum().backward()
        for (weight, p), grad in zip(model.named_parameters(), true, strict=True):
            found = torch.zeros(()) if p.grad is None else p.grad
            scale = 0.0 if grad is None else float(grad.norm())
            off = float((found - (torch.zeros(()) if grad is None else grad)).norm())
            assert off <= 1e-3 * scale + 1e-4, (weight, share, checkpointing)


@pytest.mark.parametrize("loud", [True, False], ids=["loud", "new"])
@pytest.mark.parametrize("name", some({**WRONG}))
def test_what_would_be_wrong_is_refused_by_name(name: str, loud: bool) -> None:
    config, settings, complaint = WRONG[name]
    model = make(config, settings, loud=loud)
    with pytest.raises(ChainForgeError, match=complaint) as caught:
        check_engine(model)
    assert f"the architecture {model.config.model_type} ({type(model).__name__})" in caught.value.problem
    assert len(str(caught.value).splitlines()) == 2


def test_a_new_model_of_a_known_architecture_passes() -> None:
    for name in ("llama", "qwen2"):
        check_engine(make(*RIGHT[name], loud=False))


@pytest.mark.parametrize("made", [qwen2, llama])
def test_the_try_leaves_no_trace(made: Callable[[], torch.nn.Module]) -> None:
    model = made()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    check_engine(model)
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.random.get_state()[1].tolist() == generators[2]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("part", ["the sampler", "the learner"])
def test_the_part_that_differs_is_named(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    right = engine.sample
    if part == "the sampler":
        wrong = lambda *a, **k: [  # noqa: E731
            [type(s)(s.token_ids, tuple(x - 0.5 for x in s.logprobs), s.finish) for s in each]
            for each in right(*a, **k)
        ]
        monkeypatch.setattr(engine, "sample", wrong)
    else:

        class Wrong(PolicyModel):
            def forward(self, *given: Any, **options: Any) -> LogProbs:
                said = super().forward(*given, **options)
                return said._replace(logp_BT=said.logp_BT - 0.5)

        monkeypatch.setattr(engine, "PolicyModel", Wrong)
    with pytest.raises(
        ChainForgeError, match=rf"{part} is off by 0.5 nats per token \(up to 0.01 is rounding\)\n"
    ):
        check_engine(qwen2())


@pytest.mark.slow
def test_both_ways_to_a_policy_try_it(tmp_path: Path) -> None:
    toy = tokenizer()
    config, settings, _ = WRONG["gpt-neo"]
    wrong = make(config, settings | {"vocab_size": len(toy)}, loud=True)
    with pytest.raises(ChainForgeError, match="the architecture gpt_neo"):
        make_policy(wrong, toy, CPU)
    save_policy(Policy(wrong, toy), tmp_path)
    with pytest.raises(ChainForgeError, match="the architecture gpt_neo"):
        load_policy(tmp_path, CPU)


@pytest.mark.dear
@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("gemma 2", "cap"),
        ("granite", "scale"),
        ("cohere", "scale"),
        ("mistral 0.1", "window"),
        ("gemma 3", "window"),
        ("qwen2 with a window", "window"),
    ],
)
@pytest.mark.parametrize("loud", [True, False], ids=["loud", "new"])
def test_it_would_be_noticed_if_what_a_config_asks_for_were_left_out(
    monkeypatch: pytest.MonkeyPatch, name: str, left_out: str, loud: bool
) -> None:
    plain = {"scale": 1.0, "cap": None, "window": None}[left_out]
    owner = LayerMasks if left_out == "window" else OutputLayer
    monkeypatch.setattr(owner, left_out, property(lambda _: plain, lambda *_: None), raising=False)
    with pytest.raises(ChainForgeError, match=r"is off by .* nats per token"):
        check_engine(place(make(*RIGHT[name], loud=loud), CPU))


def test_weights_of_less_precision_are_tried_in_float32() -> None:
    model = place(make(*RIGHT["gemma 2"], loud=True), CPU).to(torch.bfloat16)
    assert max(nats for _, nats, _ in deviations(model)) < 1e-4
    assert all(weight.dtype == torch.bfloat16 for weight in model.parameters())


@pytest.mark.slow
def test_the_text_part_of_a_model_that_reads_images_is_right_too() -> None:
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=RIGHT["gemma 3"][1], vision_config=vision | sizes)
    check_engine(place(AutoModelForCausalLM.from_config(config), CPU))


@pytest.mark.parametrize("name", ["gemma 2", "gpt-oss", "mistral 0.1", "qwen3 of experts"])
def test_decoding_in_blocks_is_right_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sampler.BLOCK, "cpu", 3)
    check_engine(place(make(*RIGHT[name], loud=True), CPU))


@pytest.mark.slow
def test_scores_are_capped_whatever_attention_was_asked_for() -> None:
    """PyTorch's kernel has no cap: transformers 5.23 says so, 5.17 leaves it out."""
    config, settings = RIGHT["gemma 3"]
    model = make(config, settings | {"attn_logit_softcapping": 2.0}, loud=True)
    assert model.config._attn_implementation == "sdpa"
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    own = make(config, settings | {"attn_logit_softcapping": 2.0}, loud=True)
    own.set_attn_implementation("eager")
    torch.testing.assert_close(place(model, CPU)(ids).logits, own(ids).logits)
    check_engine(model)

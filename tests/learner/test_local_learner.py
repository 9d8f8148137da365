"""A learner on one device: its step is that of the plain formula, and its state is what it trains."""

import copy
import io
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from fakes import make_step, policy, tokenizer, weights
from torch import Tensor
from zoo import RIGHT, make

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings
from chainforge.errors import ChainForgeError
from chainforge.learner import forward_passes, local_learner
from chainforge.learner.learner import Sums
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.optimizer import NotFinite
from chainforge.models.batch import Batch, Tokens
from chainforge.models.checkpoint import Policy, place
from chainforge.models.policy_model import LogProbs
from chainforge.run.step import Step

SETTINGS = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1)
APART = [Tokens([3, 1, 4], [1, 5, 9, 2, 6, 5, 3]), Tokens([5], [3]), Tokens([5, 8, 9, 7], [2, 3, 8])]
SHARED = [Tokens(p, c) for p in ([3, 1, 4], [5, 8]) for c in ([1, 5, 9], [2], [6, 5, 3, 5])]


def learner_of(made: Policy, *, precision: str = "float32", steps: int = 5, **options: Any) -> LocalLearner:
    runtime = {name: options.pop(name) for name in ("micro_batch_tokens",) if name in options}
    runtime |= {name: options.pop(name) for name in ("gradient_checkpointing",) if name in options}
    step = make_step(**runtime)
    found = LocalLearner(
        made, SETTINGS, Step(step.name, RunSettings(precision=precision), step.runtime), **options
    )
    found.begin(steps)
    return found


def squares(indices: Sequence[int], said: LogProbs, batch: Batch) -> tuple[Tensor, Sums]:
    """Weighs every sequence differently."""
    weight_B1 = torch.tensor(indices).add(1.0)[:, None]
    return (weight_B1 * said.logp_BT.square()).sum() / 50, {"tokens": batch.mask_BT.sum()}


def gradient(
    made: Policy, monkeypatch: pytest.MonkeyPatch, sequences: Sequence[Tokens], **how: Any
) -> Tensor:
    """What a step hands to the optimizer."""
    learner, found = learner_of(made, **how), []
    assert learner._optimizer is not None

    def note() -> float:
        found.append(torch.cat([w.grad.flatten() for w in made.model.parameters() if w.grad is not None]))
        return 0.0

    monkeypatch.setattr(learner._optimizer, "step", note)
    learner.step(sequences, squares)
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("sequences", [APART, SHARED], ids=["apart", "shared"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_of_a_large_vocabulary_adds_up_in_place(
    tied: bool, sequences: list[Tokens], checkpointing: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, begun = [], []
    usual = forward_passes.begin_head_gradient
    monkeypatch.setattr(
        local_learner, "begin_head_gradient", lambda model: begun.append(usual(model)) or begun[-1]
    )
    for least in (0, 10**9):
        monkeypatch.setattr(forward_passes, "LARGE", least)
        made = policy(tie_word_embeddings=tied)
        how = {"micro_batch_tokens": 12, "precision": precision, "gradient_checkpointing": checkpointing}
        found.append(gradient(made, monkeypatch, sequences, **how))
        weight = made.model.get_output_embeddings().weight
        assert (begun[-1] is not None) == (least == 0)
        assert weight.grad is begun[-1] or least > 0
        assert not weight.grad.is_sparse
    close = 1e-5 if precision == "float32" else 1e-2
    assert (found[0] - found[1]).norm() <= close * found[1].norm()
    assert found[1].norm() > 0


@pytest.mark.dear
@pytest.mark.parametrize("least", [0, 10**9])
@pytest.mark.parametrize("tied", [True, False])
def test_a_step_is_the_plain_formula_s_and_leaves_no_gradient(
    tied: bool, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_passes, "LARGE", least)
    made, twin = policy(tie_word_embeddings=tied), policy(tie_word_embeddings=tied)
    learner = learner_of(made, micro_batch_tokens=12)
    update = learner.step(SHARED, squares)
    wanted = torch.zeros(())
    for number, s in enumerate(SHARED, 1):
        ids = torch.tensor([[*s.prompt, *s.completion]])
        logp = twin.model(ids).logits[:, len(s.prompt) - 1 : -1].log_softmax(-1)
        wanted = wanted + number * logp.gather(-1, ids[:, len(s.prompt) :, None]).square().sum() / 50
    wanted.backward()
    norm = torch.stack([w.grad.norm() for w in twin.model.parameters() if w.grad is not None]).norm()
    assert update.loss == pytest.approx(wanted.item(), rel=1e-5)
    assert update.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    assert update.learning_rate == pytest.approx(1e-2)
    assert update.sums["tokens"] == sum(len(s.completion) for s in SHARED)
    assert all(weight.grad is None for weight in made.model.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(weights(made), weights(twin), strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_come_in_order_and_without_padding(temperature: float) -> None:
    made = policy()
    learner = learner_of(made, micro_batch_tokens=9)
    for sequences in (APART, SHARED):
        found = learner.logprobs(sequences, temperature)
        for s, logp_T in zip(sequences, found, strict=True):
            ids = torch.tensor([[*s.prompt, *s.completion]])
            logits = made.model(ids).logits[:, len(s.prompt) - 1 : -1] / temperature
            wanted = logits.log_softmax(-1).gather(-1, ids[:, len(s.prompt) :, None])[0, :, 0]
            torch.testing.assert_close(torch.tensor(logp_T), wanted.detach(), atol=1e-5, rtol=0)
    assert all(weight.grad is None for weight in made.model.parameters())


def test_a_loss_that_is_not_a_number_stops_before_any_weight_moves() -> None:
    made = policy()
    learner, before = learner_of(made), weights(made)
    with pytest.raises(NotFinite, match="the loss is nan\n  -> lower the learning rate"):
        learner.step(APART, lambda _, said, __: (said.logp_BT.sum() * torch.nan, {}))
    assert all(torch.equal(a, b) for a, b in zip(weights(made), before, strict=True))


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def frozen_but_for(made: Policy, part: str) -> Policy:
    for name, weight in made.model.named_parameters():
        weight.requires_grad_(part in name)
    return made


def test_the_state_is_what_is_trained_and_nothing_else() -> None:
    made = frozen_but_for(policy(), "mlp")
    trained = {f"model.{name}" for name, w in made.model.named_parameters() if w.requires_grad}
    learner = learner_of(made)
    assert learner.state_dict()["weights"].keys() == trained
    before = weights(made)
    learner.step(APART, squares)
    for (name, _), old, new in zip(made.model.named_parameters(), before, weights(made), strict=True):
        assert torch.equal(old, new) == ("mlp" not in name)


@pytest.mark.dear
@pytest.mark.parametrize("part", ["", "mlp"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_learner_goes_on_from_its_state(tied: bool, part: str) -> None:
    made = frozen_but_for(policy(tie_word_embeddings=tied), part)
    whole = learner_of(made)
    whole.step(APART, squares)
    state = through_a_file(whole.state_dict())
    updates = [whole.step(SHARED, squares) for _ in range(2)]
    other = frozen_but_for(policy(tie_word_embeddings=tied), part)
    resumed = learner_of(other)
    resumed.load_state_dict(state)
    assert [resumed.step(SHARED, squares) for _ in range(2)] == updates
    assert all(torch.equal(a, b) for a, b in zip(weights(made), weights(other), strict=True))


@pytest.mark.parametrize(("ours", "theirs"), [("mlp", ""), ("", "mlp"), ("mlp", "self_attn")])
def test_a_state_of_other_weights_is_refused(ours: str, theirs: str) -> None:
    state = learner_of(frozen_but_for(policy(), theirs)).state_dict()
    made = frozen_but_for(policy(seed=1), ours)
    learner, before = learner_of(made), weights(made)
    with pytest.raises(ValueError, match=r"that are trained differ, as model\.(lm_head|model\.layers)"):
        learner.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(weights(made), before, strict=True))


def test_a_reference_that_moved_is_part_of_the_state() -> None:
    learner = learner_of(policy(), reference=policy)
    start = learner.reference_logprobs(APART, 1.0)
    learner.step(APART, squares)
    assert "reference" not in learner.state_dict()
    assert learner.reference_logprobs(APART, 1.0) == start
    learner.move_reference()
    moved = learner.logprobs(APART)
    assert learner.reference_logprobs(APART, 1.0) == moved != start
    learner.step(APART, squares)
    assert learner.reference_logprobs(APART, 1.0) == moved != learner.logprobs(APART)
    state = through_a_file(learner.state_dict())
    resumed = learner_of(policy(), reference=policy)
    resumed.load_state_dict(state)
    assert resumed.reference_logprobs(APART, 1.0) == moved
    assert resumed.logprobs(APART) == learner.logprobs(APART)
    assert "reference" in resumed.state_dict()  # also of a run that is resumed twice


def test_one_that_did_not_move_is_what_the_run_began_with() -> None:
    learner = learner_of(policy(), reference=policy)
    learner.step(APART, squares)
    resumed = learner_of(policy(), reference=policy)
    start = resumed.reference_logprobs(APART, 1.0)
    resumed.load_state_dict(through_a_file(learner.state_dict()))
    assert resumed.reference_logprobs(APART, 1.0) == start


@pytest.mark.dear
@pytest.mark.parametrize("most", [7, 1000])
@pytest.mark.parametrize("sequences", [APART, SHARED], ids=["apart", "shared"])
def test_the_router_loss_is_a_mean_over_sequences_however_they_are_put_together(
    sequences: list[Tokens], most: int
) -> None:
    toy = tokenizer()
    config, sizes = RIGHT["mixtral"]
    model = place(make(config, sizes | {"vocab_size": len(toy)}, loud=True), torch.device("cpu"))
    router = [
        model(torch.tensor([[*s.prompt, *s.completion]]), output_router_logits=True).aux_loss.item()
        for s in sequences
    ]
    found = {}
    for coef in (0.0, 0.5):
        settings = SETTINGS.model_copy(update={"router_aux_loss_coef": coef})
        step = make_step(micro_batch_tokens=most)
        learner = LocalLearner(Policy(copy.deepcopy(model), toy), settings, step)
        learner.begin(5)
        found[coef] = learner.step(sequences, squares)
    assert "router_loss" not in found[0.0].sums
    total, count = found[0.5].sums["router_loss"].tolist()
    assert (total, count) == (pytest.approx(sum(router), rel=1e-5), len(sequences))
    assert found[0.5].loss == pytest.approx(found[0.0].loss + 0.5 * total / count, rel=1e-5)
    assert found[0.5].grad_norm != found[0.0].grad_norm


def test_a_router_loss_of_a_model_without_experts_is_refused() -> None:
    with pytest.raises(ChainForgeError, match=r"has no experts .*\n.*set router_aux_loss_coef to 0"):
        LocalLearner(policy(), OptimizerSettings(learning_rate=1.0, router_aux_loss_coef=0.1), make_step())

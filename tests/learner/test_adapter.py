"""A learner with an adapter: the base stays as it is, is the reference, and is no part of the state."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import make_step, policy, weights
from torch import Tensor

from chainforge.config.adapter import AdapterSettings
from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.learner.learner import Sums
from chainforge.learner.local_learner import LocalLearner
from chainforge.models.adapters import adapter_weights
from chainforge.models.batch import Batch, Tokens
from chainforge.models.checkpoint import Policy, load_policy
from chainforge.models.policy_model import LogProbs
from chainforge.rollout.engine import Request
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.step import Step

pytestmark = pytest.mark.slow

LORA = AdapterSettings(kind="lora", rank=4, alpha=8)
SETTINGS = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1, adapter=LORA)
APART = [Tokens([3, 1, 4], [1, 5, 9, 2, 6, 5, 3]), Tokens([5], [3]), Tokens([5, 8, 9, 7], [2, 3, 8])]
SHARED = [Tokens(p, c) for p in ([3, 1, 4], [5, 8]) for c in ([1, 5, 9], [2], [6, 5, 3, 5])]


def learner_of(made: Policy, *, precision: str = "float32", **runtime: Any) -> LocalLearner:
    step = make_step(**runtime)
    found = LocalLearner(made, SETTINGS, Step(step.name, RunSettings(precision=precision), step.runtime))
    found.begin(5)
    return found


def squares(indices: Sequence[int], said: LogProbs, batch: Batch) -> tuple[Tensor, Sums]:
    """Weighs every sequence differently."""
    weight_B1 = torch.tensor(indices).add(1.0)[:, None]
    return (weight_B1 * said.logp_BT.square()).sum() / 50, {}


def logp(model: torch.nn.Module, s: Tokens) -> Tensor:
    """By the model's own forward pass."""
    ids = torch.tensor([[*s.prompt, *s.completion]])
    found = model(ids).logits[:, len(s.prompt) - 1 : -1].log_softmax(-1)
    return found.gather(-1, ids[:, len(s.prompt) :, None])[0, :, 0]  # type: ignore[no-any-return]


def close(found: Sequence[Sequence[float]], model: torch.nn.Module, sequences: Sequence[Tokens]) -> None:
    for row, s in zip(found, sequences, strict=True):
        torch.testing.assert_close(torch.tensor(row), logp(model, s).detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("sequences", [APART, SHARED], ids=["apart", "shared"])
def test_a_step_is_that_of_peft_s_own_forward_pass(sequences: list[Tokens], checkpointing: bool) -> None:
    made, twin = policy(), policy()
    learner = learner_of(made, micro_batch_tokens=12, gradient_checkpointing=checkpointing)
    learner_of(twin)
    for _ in range(2):  # B is 0 before the first, and so is the gradient of A
        total = sum((n * logp(twin.model, s).square()).sum() for n, s in enumerate(sequences, 1)) / 50
        total.backward()
        norm = torch.stack([w.grad.norm() for w in adapter_weights(twin.model).values()]).norm()
        update = learner.step(sequences, squares)
        assert update.loss == pytest.approx(total.item(), rel=1e-5)
        assert update.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        twin.model.load_state_dict(made.model.state_dict())
        twin.model.zero_grad()
    assert all(w.grad is None for w in made.model.parameters())


def test_the_reference_is_the_base_without_a_second_model() -> None:
    made, base = policy(), policy()
    learner, frozen = learner_of(made), weights(policy())
    for _ in range(3):
        learner.step(SHARED, squares)
        close(learner.reference_logprobs(APART, 1.0), base.model, APART)
    assert learner.reference_logprobs(APART, 1.0) != learner.logprobs(APART)
    kept = [w for name, w in made.model.named_parameters() if "lora" not in name]
    assert all(torch.equal(a, b) for a, b in zip(kept, frozen, strict=True))


def test_a_reference_that_moved_is_the_adapter_as_it_was_then() -> None:
    learner = learner_of(policy())
    learner.step(APART, squares)
    then = learner.logprobs(APART)
    learner.move_reference()
    learner.step(APART, squares)
    assert learner.reference_logprobs(APART, 1.0) == then != learner.logprobs(APART)
    resumed = learner_of(policy())
    resumed.load_state_dict(through_a_file(learner.state_dict()))
    assert resumed.reference_logprobs(APART, 1.0) == then
    assert resumed.logprobs(APART) == learner.logprobs(APART)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def test_the_state_is_the_adapter_and_its_moments() -> None:
    made = policy()
    learner = learner_of(made)
    learner.step(APART, squares)
    state = learner.state_dict()
    assert state.keys() == {"weights", "optimizer"}
    assert state["weights"].keys() == {f"model.{name}" for name in adapter_weights(made.model)}
    numbers = sum(weight.numel() for weight in adapter_weights(made.model).values())
    (adamw,) = state["optimizer"]["optimizers"]
    moments = [t for each in adamw["state"].values() for t in each.values()]
    assert sum(t.numel() for t in moments if t.ndim) == 2 * numbers


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_engine_samples_from_merged_weights_of_its_own(precision: str) -> None:
    made = policy()
    step = Step("grpo", RunSettings(precision=precision), make_step().runtime)
    engine, learner = LocalEngine(made, step, apart=True), learner_of(made, precision=precision)
    requests = [Request([3, 1, 4], [1, 2]), Request([5], [3])]
    before = None
    for version in range(2):
        engine.update(learner, version)
        sampled = [s for each in engine.generate(requests, SamplingSettings(max_new_tokens=6)) for s in each]
        sequences = [Tokens(r.prompt_ids, ()) for r in requests for _ in r.seeds]
        sequences = [Tokens(s.prompt, done.token_ids) for s, done in zip(sequences, sampled, strict=True)]
        off = 1e-5 if precision == "float32" else 0.1
        for logprobs, done in zip(learner.logprobs(sequences), sampled, strict=True):
            assert logprobs == pytest.approx(done.logprobs, abs=off)
        assert sampled != before
        before = sampled
        learner.step(sequences, squares)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_the_checkpoint_is_a_plain_folder_with_the_adapter_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    monkeypatch.chdir(tmp_path)
    cpu, parent, folder = torch.device("cpu"), Path("checkpoints/parent"), Path("checkpoints/child")
    LocalLearner(policy(), OptimizerSettings(learning_rate=1.0), make_step()).save(parent)
    learner = learner_of(load_policy(parent, cpu))
    for _ in range(2):
        learner.step(SHARED, squares)
    learner.save(folder)
    merged = load_policy(folder, cpu).model
    assert {path.name for path in folder.iterdir()} == {p.name for p in parent.iterdir()} | {"adapter"}
    assert all(torch.equal(w, merged.state_dict()[name]) for name, w in learner.weights())
    assert not any("lora" in name for name in merged.state_dict())
    close(learner.logprobs(APART), merged, APART)
    close(
        learner.logprobs(APART),
        PeftModel.from_pretrained(load_policy(parent, cpu).model, folder / "adapter"),
        APART,
    )
    nxt = learner_of(load_policy(folder, cpu))  # a new adapter on the merged weights
    close(nxt.logprobs(APART), merged, APART)
    nxt.step(SHARED, squares)
    nxt.save(Path("checkpoints/grandchild"))
    said = Path("checkpoints/grandchild/adapter/adapter_config.json").read_text(encoding="utf-8")
    assert '"base_model_name_or_path": "checkpoints/child"' in said


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        torch.rand(len(name))
        learner = learner_of(policy())
        learner.step(SHARED, squares)
        learner.save(tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert Path("adapter/adapter_model.safetensors") in files
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "other" / f).read_bytes() for f in files)

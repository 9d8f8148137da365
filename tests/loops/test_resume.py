"""Stopped at any safe point and begun again, a loop ends in the same bytes as one that never stopped."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import SUPERCOT, Beside, Interrupted, completion, learner_of, make_step, policy, prompt, weights

from chainforge.config.adapter import AdapterSettings
from chainforge.config.distill import DistillSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.teacher import Teacher
from chainforge.loops import sft
from chainforge.loops.collect import collect
from chainforge.loops.grpo import train as grpo
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.own_answers import OwnAnswers
from chainforge.loops.scored_batches import sample_and_score
from chainforge.models.policy_model import PolicyModel
from chainforge.records import Completion, Example, Group, Prompt, Trace
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.stopping import Stopped
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward

PROMPTS = [prompt(n) for n in range(1, 9)]
LORA = AdapterSettings(kind="lora", rank=4)
OWN = {"share": 0.5, "max_new_tokens": 6}


def stopped_everywhere(run: Callable[[Work], Any], folder: Path, *, every: int = 1) -> int:
    """Stop at a safe point, go on to the next, stop again, …: how many runs it takes to the end."""
    for number in count(1):
        try:
            run(Interrupted(folder, every))
        except Stopped:
            continue
        return number
    raise AssertionError


@dataclass
class Rewarder:
    """Scores by the length of the text: differs within a group."""

    def scorer(self) -> Scorer:
        reward = WeightedReward(
            "length", 1.0, lambda completions: [float(len(t) % 5) for t in completions], "toy"
        )
        return Scorer((reward,), SUPERCOT, 10.0)


GRPO = {
    "output": Path("out"),
    "start_from": Path("in"),
    "prompts": Path("prompts"),
    "rewards": {"length": 1.0},
    "num_rl_steps": 4,
    "prompts_per_step": 4,
    "group_size": 4,
    "max_new_tokens": 6,
    "learning_rate": 1e-2,
    "kl_coeff": 0.05,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"num_iterations": 3, "mini_batches": 2}, id="in the middle of the iterations"),
        pytest.param({"ref_sync_steps": 2, "num_iterations": 2}, id="a reference that moves"),
        pytest.param({"adapter": LORA, "ref_sync_steps": 2, "num_iterations": 2}, id="an adapter"),
        pytest.param({"max_lag": 1, "engine": {"kind": "vllm"}, "num_iterations": 2}, id="sampled ahead"),
        pytest.param({"resample_rounds": 2, "schedule": "cosine", "warmup_fraction": 0.5}, id="resampled"),
    ],
)
def test_grpo(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = GrpoSettings(**GRPO | changes)
    step = make_step()

    def run(work: Work) -> tuple[list[torch.Tensor], str, dict[str, float]]:
        toy, reference = policy(), None if settings.adapter else policy()
        engine = (
            Beside(toy, step)
            if settings.max_lag
            else LocalEngine(toy, step, apart=settings.adapter is not None)
        )
        learner = learner_of(toy, settings, step, reference)
        mix = PromptMix(PROMPTS, [], 0.0, 17)
        table, summary = grpo.train(learner, engine, Rewarder().scorer(), mix, settings, step, work)
        return weights(toy), table.state_dict()["rows"], summary

    expected = run(Work())
    runs = stopped_everywhere(run, tmp_path / "work")
    updates = settings.num_iterations * settings.mini_batches
    assert runs > settings.num_rl_steps * (1 + updates) / 2
    found = run(Work(tmp_path / "work"))
    assert all(torch.equal(a, b) for a, b in zip(found[0], expected[0], strict=True))
    assert repr(found[1:]) == repr(expected[1:])  # nan is not equal to itself
    assert not all(torch.equal(a, b) for a, b in zip(weights(policy()), expected[0], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"muon_learning_rate": 1e-2},
        {"eval_fraction": 0.3, "eval_every": 2},
        {"adapter": LORA},
        {"on_policy": OWN, "teacher": "t"},
        {"on_policy": OWN, "teacher": "t", "adapter": LORA},
    ],
)
def test_sft(changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"output": Path("out"), "examples": Path("examples"), "start_from": Path("in")}
    settings = DistillSettings(
        **given | {"num_epochs": 2.0, "batch_size": 2, "learning_rate": 1e-2} | changes
    )
    examples = [
        Example(p.id, p.messages, SUPERCOT.render("7" * n, str(n)), "toy") for n, p in enumerate(PROMPTS)
    ]
    step = make_step("sft_cold_start")

    def run(work: Work) -> tuple[list[torch.Tensor], str, dict[str, float | None]]:
        toy, teacher, own = policy(), None, None
        if settings.on_policy:
            teacher = Teacher(PolicyModel(policy(seed=1).model), 290)
            engine = LocalEngine(toy, step, apart=settings.adapter is not None)
            own = OwnAnswers(engine, settings.on_policy, step)
        learner = LocalLearner(toy, settings, step, teacher=teacher)
        table, summary = sft.train(learner, teacher, examples, settings, step, work, own)
        return weights(toy), table.state_dict()["rows"], summary

    expected = run(Work())
    assert stopped_everywhere(run, tmp_path / "work") > 2
    found = run(Work(tmp_path / "work"))
    assert all(torch.equal(a, b) for a, b in zip(found[0], expected[0], strict=True))
    assert repr(found[1:]) == repr(expected[1:])  # nan is not equal to itself


def test_answers(tmp_path: Path) -> None:
    asked: list[str] = []

    def sample(batch: Sequence[Prompt]) -> list[list[Completion]]:
        asked.extend(p.id for p in batch)
        return [[completion(p, f"\ud800{p.id}" * n, [n, 1]) for n in (1, 2)] for p in batch]

    def run(work: Work) -> list[Group]:
        return sample_and_score(PROMPTS, sample, 3, Rewarder().scorer(), work.journal("groups"), work, "test")

    expected = run(Work())
    asked.clear()
    stopped_everywhere(run, tmp_path)
    assert run(Work(tmp_path)) == expected
    assert set(asked) == {p.id for p in PROMPTS}
    asked.clear()
    run(Work(tmp_path))
    assert asked == [], "the journal has everything"


def test_answers_to_prompts_of_one_name_keep_to_their_own_prompt(tmp_path: Path) -> None:
    both = [prompt(1, "of one set"), prompt(1, "of the other")]

    def run(work: Work) -> list[Group]:
        def sample(batch: Sequence[Prompt]) -> list[list[Completion]]:
            return [[completion(p, "a", [1]), completion(p, "ab", [2])] for p in batch]

        return sample_and_score(both, sample, 1, Rewarder().scorer(), work.journal("groups"), work, "test")

    stopped_everywhere(run, tmp_path)
    assert [group.prompt for group in run(Work(tmp_path))] == both


def test_a_batch_is_kept_before_the_next_is_sampled(tmp_path: Path) -> None:
    kept = []

    def sample(batch: Sequence[Prompt]) -> list[list[Completion]]:
        kept.append(len(Work(tmp_path).journal("groups").rows))
        return [[completion(p, "a", [1]), completion(p, "ab", [2])] for p in batch]

    work = Work(tmp_path)
    sample_and_score(PROMPTS, sample, 2, Rewarder().scorer(), work.journal("groups"), work, "test")
    assert kept == [0, 1, 2, 3]


def test_collect_asks_no_prompt_again_that_has_all_its_traces(tmp_path: Path) -> None:
    asked: list[str] = []

    class Teacher:
        def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int) -> Any:
            for p in prompts:
                for number in range(n):
                    asked.append(p.id)
                    yield Trace(p.id, f"{seed} {number}", p.id, "stop", "toy")

    step = make_step("collect_cot")

    def run(work: Work) -> list[Trace]:
        return collect(Teacher(), PROMPTS, 2, step, work)

    expected = run(Work())
    asked.clear()
    runs = stopped_everywhere(run, tmp_path, every=3)  # in the middle of a prompt
    assert run(Work(tmp_path)) == expected
    assert len(asked) == 2 * len(PROMPTS) + runs - 1

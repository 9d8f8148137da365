"""What two processes saved together goes on in two, in the same bytes, and in one; what one saved, in two."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import Interrupted, MadeUp, make_step, policy, prompt, scorer_of
from two_processes import SHARINGS, by_two

from chainforge.config.grpo import GrpoSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.train import train
from chainforge.run.stopping import Stopped
from chainforge.run.work import Work

PROMPTS = [prompt(n) for n in range(1, 9)]
SETTINGS = GrpoSettings(
    output=Path("out"), start_from=Path("model"), prompts=Path("in"), rewards={"correct": 1.0}, group_size=3,
    prompts_per_step=3, num_rl_steps=4, num_iterations=2, max_new_tokens=8, kl_coeff=0.05, ref_sync_steps=2,
    learning_rate=5e-4, clip_ratio_high=0.3,
)  # fmt: skip
SAFE_POINTS = 4 * (1 + 2)  # of the whole run


def run(sharing: str, work: Work) -> dict[str, Any] | None:
    """Weights and figures at the end; None where it stopped before."""
    step = make_step("step", micro_batch_tokens=64, sharding=sharing)
    made = policy(tie_word_embeddings=True)
    learner = LocalLearner(made, SETTINGS, step, reference=partial(policy, tie_word_embeddings=True))
    scorer, mix = scorer_of(lambda ids: float(ids[0] % 3)), PromptMix(PROMPTS, [], 0.0, 3)
    try:
        table, _ = train(learner, MadeUp(), scorer, mix, SETTINGS, step, work)
    except Stopped:
        return None
    weights = {name: weight.clone() for name, weight in learner.weights()}
    return {"weights": weights, "table": table.state_dict()["rows"]}


def go_on_everywhere(folder: Path) -> dict[str, Any]:
    """By sharing: a run that nobody stops; one that is stopped at every second safe point."""
    found: dict[str, Any] = {}
    for sharing in SHARINGS:
        whole = run(sharing, Work(folder / f"whole-{sharing}"))
        stopped = None
        while stopped is None:
            stopped = run(sharing, Interrupted(folder / f"stopped-{sharing}", 2, every_s=0))
        found[sharing] = whole, stopped
    return found


@pytest.mark.slow
def test_stopped_and_begun_again_two_processes_end_in_the_same_bytes(tmp_path: Path) -> None:
    for sharing, (whole, stopped) in by_two(go_on_everywhere, tmp_path)[0].items():
        saves = sorted(tmp_path.glob(f"stopped-{sharing}/*.pt"))
        assert len(saves) == 2, "the two newest are kept"
        assert all(path.is_dir() for path in saves)
        assert whole["table"] == stopped["table"]
        for name, weight in whole["weights"].items():
            assert torch.equal(stopped["weights"][name], weight)


def stop_in_the_middle(folder: Path) -> dict[str, Any]:
    return {
        sharing: run(sharing, Interrupted(folder / sharing, SAFE_POINTS // 2, every_s=0))
        for sharing in SHARINGS
    }


def go_on(folder: Path) -> dict[str, Any]:
    return {sharing: run(sharing, Work(folder / sharing)) for sharing in SHARINGS}


@pytest.mark.slow
@pytest.mark.parametrize("first", [2, 1], ids=["from two to one", "from one to two"])
def test_another_number_of_processes_goes_on_from_the_same_state(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if first == 2:
        by_two(stop_in_the_middle, tmp_path)
        found = go_on(tmp_path)
    else:
        stop_in_the_middle(tmp_path)
        found = by_two(go_on, tmp_path)[0]
    wanted = run("data-parallel", Work())
    assert wanted is not None
    for each in found.values():
        for name, weight in wanted["weights"].items():
            torch.testing.assert_close(each["weights"][name], weight, atol=1e-5, rtol=0)
        rows = [text.replace("\n", ",").split(",") for text in (each["table"], wanted["table"])]
        for one, other in zip(*rows, strict=True):
            assert one == other or float(one) == pytest.approx(float(other), rel=1e-4, abs=1e-5)

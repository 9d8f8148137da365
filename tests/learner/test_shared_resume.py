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


# Half of a matrix has 4,096 weights and more, in whole blocks of 256: moments in 8 bits, split or not.
WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}


def run(sharing: str, work: Work, optimizer: str = "adamw") -> dict[str, Any] | None:
    """Weights and figures at the end; None where it stopped before."""
    step = make_step("step", micro_batch_tokens=64, sharding=sharing)
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    new = partial(policy, tie_word_embeddings=True, **WIDE if optimizer == "adamw-8bit" else {})
    learner = LocalLearner(new(), settings, step, reference=new)
    scorer, mix = scorer_of(lambda ids: float(ids[0] % 3)), PromptMix(PROMPTS, [], 0.0, 3)
    try:
        table, _ = train(learner, MadeUp(), scorer, mix, settings, step, work)
    except Stopped:
        return None
    weights = {name: weight.clone() for name, weight in learner.weights()}
    return {"weights": weights, "table": table.state_dict()["rows"]}


def go_on_everywhere(folder: Path, *, optimizer: str, every: int) -> dict[str, Any]:
    """By sharing: a run that nobody stops; one that is stopped at each of these safe points."""
    found: dict[str, Any] = {}
    for sharing in SHARINGS:
        whole = run(sharing, Work(folder / f"whole-{sharing}"), optimizer)
        stopped = None
        while stopped is None:
            work = Interrupted(folder / f"stopped-{sharing}", every, every_s=0)
            stopped = run(sharing, work, optimizer)
        found[sharing] = whole, stopped
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "every"), [("adamw", 2), ("adamw-8bit", 5)])
def test_stopped_and_begun_again_two_processes_end_in_the_same_bytes(
    optimizer: str, every: int, tmp_path: Path
) -> None:
    if optimizer == "adamw-8bit":
        pytest.importorskip("torchao")
    go_on = partial(go_on_everywhere, optimizer=optimizer, every=every)
    for sharing, (whole, stopped) in by_two(go_on, tmp_path)[0].items():
        saves = sorted(tmp_path.glob(f"stopped-{sharing}/*.pt"))
        assert len(saves) == 2, "the two newest are kept"
        assert all(path.is_dir() for path in saves)
        assert whole["table"] == stopped["table"]
        for name, weight in whole["weights"].items():
            assert torch.equal(stopped["weights"][name], weight)


def stop_in_the_middle(folder: Path, *, optimizer: str) -> dict[str, Any]:
    middle = SAFE_POINTS // 2
    return {
        sharing: run(sharing, Interrupted(folder / sharing, middle, every_s=0), optimizer)
        for sharing in SHARINGS
    }


def go_on(folder: Path, *, optimizer: str) -> dict[str, Any]:
    return {sharing: run(sharing, Work(folder / sharing), optimizer) for sharing in SHARINGS}


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "close"), [("adamw", 1e-5), ("adamw-8bit", 2e-3)])
@pytest.mark.parametrize(
    "first",
    [pytest.param(2, id="from two to one"), pytest.param(1, id="from one to two", marks=pytest.mark.long)],
)
def test_another_number_of_processes_goes_on_from_the_same_state(
    first: int, optimizer: str, close: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 8 bits moments are rounded in other blocks: as far apart as a few updates at the learning rate."""
    if optimizer == "adamw-8bit":
        pytest.importorskip("torchao")
    monkeypatch.chdir(tmp_path)
    stop, start = (partial(do, optimizer=optimizer) for do in (stop_in_the_middle, go_on))
    if first == 2:
        by_two(stop, tmp_path)
        found = start(tmp_path)
    else:
        stop(tmp_path)
        found = by_two(start, tmp_path)[0]
    wanted = run("data-parallel", Work(), optimizer)
    assert wanted is not None
    for each in found.values():
        for name, weight in wanted["weights"].items():
            torch.testing.assert_close(each["weights"][name], weight, atol=close, rtol=0)

"""What a step sampled, kept beside its result: the same after any stops, and nothing where nobody asked."""

from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from fakes import Interrupted, MadeUp, completion, group, learner_of, make_step, policy, prompt
from grpo_cases import PROMPTS, by_token, mix, settings_of

from chainforge.completions.kept import read_kept
from chainforge.config.sample import SampleSettings
from chainforge.errors import ChainForgeError
from chainforge.loops.grpo.train import train
from chainforge.loops.rejection import accept, choose
from chainforge.run.kept_completions import completions_folder, keep_samples
from chainforge.run.step import Step
from chainforge.run.stopping import Stopped
from chainforge.run.work import Work

pytestmark = pytest.mark.slow

SETTINGS = settings_of(num_iterations=2, num_rl_steps=4)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def step_of(*, keeps: bool = True, **more: Any) -> Step:
    return make_step("grpo_reasoning", keep_completions=keeps, **more)


def run(work: Work, step: Step) -> str:
    table, _ = train(
        learner_of(policy(), SETTINGS, step), MadeUp(), by_token, mix(PROMPTS), SETTINGS, step, work
    )
    return table.state_dict()["rows"]


def kept() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in completions_folder("grpo_reasoning").glob("*")}


def test_every_completion_of_every_rl_step_is_there_once_and_agrees_with_the_table() -> None:
    rows = run(Work(), step_of()).splitlines()
    place = rows[0].split(",").index("reward")
    rewards = [float(row.split(",")[place]) for row in rows[1:]]
    assert sorted(kept()) == [f"00000{number}.jsonl.gz" for number in range(1, 5)]
    for number, reward in enumerate(rewards, start=1):
        found = list(read_kept(completions_folder("grpo_reasoning") / f"{number:06}.jsonl.gz"))
        size = SETTINGS.prompts_per_step * SETTINGS.group_size
        assert len({(row["group"], row["index"]) for row in found}) == len(found) == size
        assert isclose(fmean(row["total"] for row in found), reward, rel_tol=1e-5)
        assert isclose(sum(row["advantage"] for row in found), 0, abs_tol=1e-5)
        assert all(row["logprob_sum"] <= 0 and row["tokens"] > 0 for row in found)


def test_stopped_at_every_safe_point_the_store_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    run(Work(), step_of())
    expected, runs = kept(), 0
    while True:
        try:
            run(Interrupted(tmp_path / "work", 1), step_of())
        except Stopped:
            runs += 1
            continue
        break
    assert runs > SETTINGS.num_rl_steps
    assert kept() == expected


def test_who_did_not_ask_gets_no_store_and_none_of_an_earlier_run() -> None:
    expected = run(Work(), step_of())
    assert kept()
    assert run(Work(), step_of(keeps=False)) == expected, "it changes no result"
    assert kept() == {}


def test_a_run_begun_afresh_leaves_no_rl_step_of_a_longer_one_before() -> None:
    run(Work(), step_of())
    stale = completions_folder("grpo_reasoning") / "000099.jsonl.gz"
    stale.write_bytes(b"of another run")
    run(Work(), step_of())
    assert not stale.exists()


def test_the_samples_that_are_kept_are_those_that_become_examples() -> None:
    settings = SampleSettings(
        output=Path("out"),
        start_from=Path("in"),
        prompts=Path("prompts"),
        rewards={"correct": 1.0},
        min_reward=0.5,
    )
    texts, rewards = ["a", "bb", "\ud800", "a"], [1.0, 0.0, 0.7, 1.0]
    groups = [
        group(p, [completion(p, text, [5, n]) for n, text in enumerate(texts)], rewards)
        for p in (prompt(1), prompt(2))
    ]
    step = make_step("rejection_sampling", keep_completions=True)
    keep_samples(groups, lambda g: choose(g, settings)[0], step)
    rows = list(read_kept(completions_folder(step.name) / "samples.jsonl.gz"))
    examples, counts = accept(groups, settings)
    assert len(rows) == counts["read"]
    assert [row["text"] for row in rows if row["kept"]] == [example.response for example in examples]
    keep_samples(groups, lambda g: [], make_step(step.name))
    assert not list(completions_folder(step.name).iterdir())


def test_a_damaged_file_is_named() -> None:
    path = Path("000001.jsonl.gz")
    for content in (b"", b"\x1f\x8b\x08", b"no gzip"):
        path.write_bytes(content)
        if not content:
            assert list(read_kept(path)) == []
            continue
        with pytest.raises(ChainForgeError, match=r"000001\.jsonl\.gz is damaged"):
            list(read_kept(path))

"""Evaluation: the figures are those of the answers, and unknown is never zero."""

import dataclasses
import re
import time
from typing import Any

import pytest
from fakes import ROOT, SUPERCOT, completion, group, make_step, prompt, response
from hypothesis import given
from hypothesis import strategies as st

from chainforge.algorithms.statistics import mean_interval
from chainforge.config.evaluate import EvaluateSettings
from chainforge.errors import ChainForgeError
from chainforge.loops.evaluate import check_bench, grade_anywhere, outcome
from chainforge.loops.figures import figures, passes
from chainforge.loops.votes import Reading, majority_passes, reading_of
from chainforge.plugins import load_plugins
from chainforge.records import Group, Score
from chainforge.reward_options import RewardOptions
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward
from chainforge.wiring import make_reward

RIGHT, WRONG, BROKEN = response(summary="42"), response(summary="41"), "42"


def settings_of(**changes: Any) -> EvaluateSettings:
    return EvaluateSettings(**{"prompts": "in", "rewards": ["correct"], "samples": 3} | changes)


def answered(number: int, *texts: str, finish: str = "stop") -> Group:
    p = prompt(number)
    answers = [completion(p, text, [1] * len(text), finish) for text in texts]  # type: ignore[arg-type]
    return group(p, answers, [float(text == RIGHT) for text in texts])


def figures_of(
    groups: list[Group], greedy: list[Group] | None = None, read: Reading = lambda summary: None
) -> dict[str, Any]:
    best: list[Any] = greedy if greedy else [None] * len(groups)
    rows = [outcome(g, b) for g, b in zip(groups, best, strict=True)]
    return figures(rows, settings_of(), SUPERCOT, read)


def test_the_figures_of_a_small_bench_are_those_of_paper_and_pencil() -> None:
    groups = [answered(1, RIGHT, RIGHT, WRONG), answered(2, WRONG, BROKEN, RIGHT)]
    found = figures_of(groups, [answered(1, RIGHT), answered(2, BROKEN)])
    mean, lo, hi = mean_interval([2 / 3, 1 / 3])
    assert (found["pass_at_1"], found["ci95_lo"], found["ci95_hi"]) == (pytest.approx(0.5), lo, hi)
    assert mean == pytest.approx(0.5)
    assert (found["n"], found["k"], found["greedy"]) == (2, 3, 0.5)
    assert found["greedy_ci95_lo"] < 0.5 < found["greedy_ci95_hi"]
    # the first problem's majority is right; in the second two summaries have a vote each, the first wins
    assert found["maj_at_k"] == 0.5
    assert found["format_rate"] == pytest.approx(5 / 6)
    assert found["mean_tokens"] == pytest.approx((5 * len(RIGHT) + len(BROKEN)) / 6)
    assert found["truncated_rate"] == 0.0


def test_what_was_not_measured_is_unknown_not_zero() -> None:
    found = figures_of([answered(1, RIGHT, RIGHT, RIGHT)])
    assert (found["greedy"], found["greedy_ci95_lo"], found["greedy_ci95_hi"]) == (None, None, None)


def test_cut_answers_are_counted() -> None:
    groups = [answered(1, BROKEN, BROKEN, finish="length"), answered(2, RIGHT, RIGHT)]
    assert figures_of(groups)["truncated_rate"] == 0.5


def test_an_answer_that_cannot_be_read_has_no_vote() -> None:
    assert figures_of([answered(1, BROKEN, BROKEN, RIGHT)])["maj_at_k"] == 1.0
    assert figures_of([answered(1, BROKEN, BROKEN, BROKEN)])["maj_at_k"] == 0.0


def reading_by(function: Any, seconds: float = 60.0) -> Reading:
    return reading_of(WeightedReward("toy", 1.0, len, "here", RewardOptions(reading=function)), seconds)


def last_number(summary: str) -> str | None:
    found = re.findall(r"[0-9.]+", summary)
    return f"{float(found[-1]):g}" if found else None


def voted(*summaries: str, read: Reading) -> float:
    """maj@k, where what reads as 18 is right."""
    texts = [response(summary=summary) for summary in summaries]
    return majority_passes(texts, [float(read(s) == "18") for s in summaries], SUPERCOT, read)


def test_answers_that_the_deciding_reward_reads_as_one_vote_together() -> None:
    read = reading_by(last_number)
    assert voted("18", "18.0", "The answer is 18", "17", "17", read=read) == 1.0
    assert voted("$18", "18", "18.00", "17", "17", read=read) == 1.0
    assert voted("17", "18", "17.0", read=read) == 0.0
    correct = make_reward(load_plugins(ROOT / "plugins").pick("rewards", "correct"))
    assert voted("17", "17", "18", "$18", "The answer is 18.0.", read=reading_of(correct, 60)) == 1.0


@pytest.mark.slow
@given(right=st.permutations(["18", "18.0", "17", "17.0"]))
def test_of_equally_common_answers_the_one_sampled_first_wins(right: list[str]) -> None:
    assert voted(*right, read=reading_by(last_number)) == float(right[0].startswith("18"))


def test_where_a_reward_reads_nothing_words_vote() -> None:
    texts = [response(summary=words) for words in ("red and blue", "green", " red  and blue ")]
    for read in (reading_by(None), reading_by(last_number)):
        assert majority_passes(texts, [1.0, 0.0, 1.0], SUPERCOT, read) == 1.0


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda summary: 1 / 0, "raised ZeroDivisionError: division by zero for 'x'"),
        (lambda summary: 18, "returned 18, no text"),
        (lambda summary: time.sleep(60), "did not return within 0.05 s for 'x'"),
    ],
)
def test_a_reading_that_fails_is_an_error_that_names_its_reward(function: Any, problem: str) -> None:
    with pytest.raises(ChainForgeError, match=re.escape(f"the reading of reward 'toy' (here) {problem}")):
        reading_by(function, 0.05)("x")


def test_a_reward_that_is_not_full_does_not_pass() -> None:
    p = prompt()
    half = group(p, [completion(p, RIGHT)], [0.99])
    assert figures_of([half])["pass_at_1"] == 0.0


@pytest.mark.slow
@given(texts=st.lists(st.lists(st.sampled_from([RIGHT, WRONG, BROKEN]), min_size=3, max_size=3), min_size=1))
def test_fractions_are_fractions_and_the_interval_holds_the_mean(texts: list[list[str]]) -> None:
    found = figures_of([answered(n, *group) for n, group in enumerate(texts)])
    assert 0 <= found["ci95_lo"] <= found["pass_at_1"] <= found["ci95_hi"] <= 1
    assert found["ci95_lo"] < found["ci95_hi"]
    for name in ("maj_at_k", "format_rate", "truncated_rate"):
        assert 0 <= found[name] <= 1
    assert found["pass_at_1"] <= found["format_rate"]
    assert found["n"] == len(texts)


def test_a_problem_is_written_down_with_every_answer_and_every_reward() -> None:
    p = prompt(7)
    scores = (Score(1.2, {"correct": 1.0, "format": None}),)
    row = outcome(Group(p, (completion(p, RIGHT, [1, 2]),), scores), None)
    assert row == {
        "prompt_id": "p7",
        "source": "toy",
        "question": "What is 7 times 7?",
        "answer": "42",
        "samples": [
            {"text": RIGHT, "finish": "stop", "tokens": 2, "rewards": {"correct": 1.0, "format": None}}
        ],
        "greedy": None,
    }


def test_a_problem_that_cannot_be_decided_is_refused() -> None:
    p = prompt(7)
    undecided = Group(p, (completion(p, RIGHT),), (Score(float("nan"), {"correct": None}),))
    check_bench([answered(1, RIGHT)], settings_of(), "general")
    with pytest.raises(ChainForgeError) as caught:
        check_bench([answered(1, RIGHT), undecided], settings_of(), "general")
    assert str(caught.value) == (
        "bench 'general': the reward 'correct' does not apply to 'p7'\n"
        "  -> give that prompt an answer, or choose another evaluate.reward"
    )


def test_an_answer_that_could_not_be_graded_is_not_passed_and_no_reason_to_stop() -> None:
    p = prompt(7)
    score = Score(float("nan"), {"correct": None}, ("correct",))
    late = Group(p, (completion(p, RIGHT),), (score,))
    check_bench([late], settings_of(), "general")
    assert passes(outcome(late, None)["samples"][0], "correct") == 0.0


def test_a_conversation_is_written_down_whole() -> None:
    p = prompt(7)
    turns = ({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, *p.messages)
    scores = (Score(1.0, {"correct": 1.0}),)
    row = outcome(Group(dataclasses.replace(p, messages=turns), (completion(p, RIGHT, [1]),), scores), None)
    assert row["question"] == p.messages[-1]["content"]
    assert row["messages"] == list(turns)


def test_a_right_answer_outside_of_the_format_counts_for_the_lenient_score_alone() -> None:
    """`correct` finds it wherever it stands; a text in the format keeps what it has."""
    correct = make_reward(load_plugins(ROOT / "plugins").pick("rewards", "correct"))
    scorer = Scorer((correct,), SUPERCOT, 60.0)
    p = prompt()
    texts = [RIGHT, WRONG, "The answer is 42.", "<summary>41", f"{WRONG} No, the answer is 42.", "17 or 42"]
    answers = [completion(p, text, [1]) for text in texts]
    (sampled,) = scorer.score([p], [answers])
    (greedy,) = scorer.score([p], [answers[2:3]])
    anywhere = grade_anywhere([sampled, greedy], "correct", scorer, 8, make_step(), Work())
    assert anywhere == {("p1", text): float(text == texts[2]) for text in texts[2:]}
    row = outcome(sampled, greedy, anywhere)
    assert [a.get("lenient") for a in row["samples"]] == [None, None, 1.0, 0.0, 0.0, 0.0]
    found = figures([row], settings_of(samples=len(texts)), SUPERCOT, lambda summary: None)
    assert (found["pass_at_1"], found["strict"], found["lenient"]) == pytest.approx((1 / 6, 1 / 6, 2 / 6))
    assert (found["greedy"], found["greedy_strict"], found["greedy_lenient"]) == (0.0, 0.0, 1.0)


@pytest.mark.slow
@given(
    problems=st.lists(
        st.lists(st.tuples(st.sampled_from([RIGHT, WRONG, BROKEN]), st.booleans()), min_size=3, max_size=3),
        min_size=1,
    )
)
def test_strict_is_at_most_pass_at_1_is_at_most_lenient(problems: list[list[tuple[str, bool]]]) -> None:
    rows = []
    for number, answers in enumerate(problems):
        group = answered(number, *(text for text, _ in answers))
        rows.append(outcome(group, None, {(group.prompt.id, text): float(found) for text, found in answers}))
    found = figures(rows, settings_of(), SUPERCOT, lambda summary: None)
    assert found["strict"] <= found["pass_at_1"] + 1e-12  # type: ignore[operator]
    assert found["pass_at_1"] <= found["lenient"] + 1e-12  # type: ignore[operator]
    assert found["pass_at_1"] <= found["pass_at_2"] + 1e-12  # type: ignore[operator]
    assert found["pass_at_2"] <= found["pass_at_3"]  # type: ignore[operator]
    for score in ("strict", "lenient", "maj_at_k", "pass_at_2", "pass_at_3"):
        assert found[f"{score}_ci95_lo"] <= found[score] <= found[f"{score}_ci95_hi"]  # type: ignore[operator]


@pytest.mark.parametrize(("reasoning", "summary"), [("", "42"), ("6 * 7", " \n"), ("", "")])
def test_an_answer_with_an_empty_part_is_not_in_the_format(reasoning: str, summary: str) -> None:
    text = SUPERCOT.render(reasoning, summary)
    assert figures_of([answered(1, text, RIGHT)])["format_rate"] == 0.5

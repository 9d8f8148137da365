"""What to do with an answer, or with the lack of one: the table of errors, line by line."""

from collections import Counter
from itertools import product

import pytest
from fake_api import answer, broken, refusal
from hypothesis import given
from hypothesis import strategies as st

from chainforge.providers.calls import CallFailed, Reply
from chainforge.providers.openai_chat import read_chat
from chainforge.teachers.finishes import WORDS, finish_of
from chainforge.teachers.verdict import LAST, TRIES, Action, Verdict, on_answer, on_failure

NONE: Counter[str] = Counter()


@pytest.mark.parametrize(
    ("failure", "action", "cause"),
    [
        (refusal(400, "Model Not Exist"), "again", "model"),
        (refusal(400, "The model `gpt-9` does not exist"), "again", "model"),
        (refusal(401), "again", "key"),
        (refusal(402, "Insufficient Balance"), "again", "balance"),
        (refusal(403), "again", "forbidden"),
        (refusal(404), "again", "model"),
        (refusal(400, "messages is empty"), "skip", "refused"),
        (refusal(400, "this model takes no temperature"), "skip", "refused"),
        (refusal(413), "skip", "refused"),
        (refusal(422), "skip", "refused"),
        (refusal(408), "again", "failed"),
        (refusal(409), "again", "failed"),
        (refusal(425), "again", "failed"),
        (refusal(429), "again", "busy"),
        *((refusal(status), "again", "failed") for status in (500, 502, 503, 504, 520, 529)),
        (broken("connection reset"), "again", "failed"),
        (broken("no connection", billed=False), "again", "failed"),
        (broken("not an answer: Expecting value"), "again", "failed"),
        (broken("it was cut", choices=[{"message": {"content": "4"}}]), "again", "cut"),
        (TimeoutError(), "again", "deadline"),
    ],
    ids=str,
)
def test_a_failure_has_its_action(failure: CallFailed | TimeoutError, action: Action, cause: str) -> None:
    verdict = on_failure(failure, NONE)
    assert (verdict.action, verdict.cause, verdict.answered) == (action, cause, False)


@pytest.mark.parametrize(
    ("failure", "tries"),
    [
        (refusal(500), 6),
        (refusal(408), 6),
        (broken(), 6),
        (broken("it was cut", choices=[]), 3),
        (TimeoutError(), 2),
    ],
    ids=str,
)
def test_a_failure_is_tried_again_so_often_and_then_skipped(
    failure: CallFailed | TimeoutError, tries: int
) -> None:
    cause = on_failure(failure, NONE).cause
    actions = [on_failure(failure, Counter({cause: n})).action for n in range(tries + 2)]
    assert actions == ["again"] * tries + ["skip"] * 2
    others = Counter(dict.fromkeys({*TRIES, "busy"} - {cause}, 99))
    assert on_failure(failure, others).action == "again", "every cause has its own tries"


def test_a_busy_provider_is_asked_again_for_ever_but_not_about_a_question_that_is_passed_over() -> None:
    assert on_failure(refusal(429), Counter(busy=10**9)).action == "again"
    assert on_failure(refusal(429), NONE, passed=True) == Verdict("skip", "busy")


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_question_that_alone_is_refused_is_skipped(status: int) -> None:
    assert on_failure(refusal(status), NONE, its_own=True) == Verdict("skip", "refused")


GOOD, TRUNCATED = answer(), answer("", finish="length")


@pytest.mark.parametrize(
    ("said", "action", "cause"),
    [
        (GOOD, "keep", "answered"),
        (TRUNCATED, "keep", "truncated"),
        (answer("4", finish="length"), "keep", "truncated"),
        (answer("", "", "content_filter"), "keep", "content_filter"),
        (answer(finish="content_filter"), "keep", "content_filter"),
        (answer(reasoning=""), "again", "no_reasoning"),
        (answer(reasoning=" \n"), "again", "no_reasoning"),
        (answer(""), "again", "no_reasoning"),
        (answer(None), "again", "no_reasoning"),
        (answer("4", finish="insufficient_system_resource"), "again", "cut"),
        (answer(finish="tool_calls"), "keep", "unknown finish"),
        (answer(finish="mystery"), "keep", "unknown finish"),
        (answer("", "", "answered"), "keep", "unknown finish"),
    ],
)
def test_an_answer_has_its_action(said: dict[str, object], action: Action, cause: str) -> None:
    verdict = on_answer(read_chat(said), NONE, thinks=True, retry_truncated=False)
    assert (verdict.action, verdict.cause, verdict.answered) == (action, cause, True)


@pytest.mark.parametrize(
    ("said", "cause", "tries"),
    [
        (answer(reasoning=""), "no_reasoning", 1),
        (answer("4", finish="insufficient_system_resource"), "cut", 3),
        (TRUNCATED, "truncated", 1),
    ],
)
def test_an_answer_is_asked_for_again_so_often_and_then_kept(
    said: dict[str, object], cause: str, tries: int
) -> None:
    verdicts = [
        on_answer(read_chat(said), Counter({cause: n}), thinks=True, retry_truncated=True) for n in range(5)
    ]
    actions = [verdict.action for verdict in verdicts]
    assert actions == ["again"] * tries + ["keep"] * (5 - tries)


texts = st.sampled_from(["", "some"])
finishes = st.sampled_from(["stop", "length", "content_filter", "insufficient_system_resource"]) | st.text()
replies = st.builds(
    Reply,
    reasoning=texts,
    content=texts,
    source=st.none(),
    finish=finishes,
    usage=st.just(read_chat(GOOD).usage),
    model=st.just("toy"),
)


@pytest.mark.slow
@given(
    reply=replies,
    tries=st.dictionaries(st.sampled_from([*TRIES]), st.integers(0, 9)),
    thinks=st.booleans(),
    retry=st.booleans(),
)
def test_an_answer_that_was_paid_for_is_never_thrown_away(
    reply: Reply, tries: dict[str, int], thinks: bool, retry: bool
) -> None:
    verdict = on_answer(reply, tries, thinks=thinks, retry_truncated=retry)
    assert verdict.answered
    assert verdict.action in ("keep", "again")
    if verdict.action == "again":
        assert tries.get(verdict.cause, 0) < TRIES[verdict.cause]


@given(reply=replies)
def test_without_thinking_only_the_reasoning_may_be_missing(reply: Reply) -> None:
    asked, not_asked = (on_answer(reply, NONE, thinks=t, retry_truncated=False) for t in (True, False))
    if asked.cause == "no_reasoning" and reply.content:
        assert not_asked == Verdict("keep", "answered", answered=True)
    else:
        assert asked == not_asked


def test_every_status_has_a_verdict() -> None:
    for status, partial in product(range(300, 600), (None, {"choices": []})):
        failure = CallFailed(str(status), status=status, partial=partial)
        assert on_failure(failure, NONE).cause in {*TRIES, *LAST, "busy", "refused"}
        alone = on_failure(failure, NONE, its_own=True, passed=True)
        assert alone.action in ("again", "skip")
        assert alone.cause in {*TRIES, "busy", "refused"}


@pytest.mark.parametrize("finish", ["eos", "end", "END_TURN", "stop_sequence", "completed"])
def test_a_normal_end_by_another_name_is_an_answer(finish: str) -> None:
    assert on_answer(read_chat(answer(finish=finish)), NONE, thinks=True, retry_truncated=False) == Verdict(
        "keep", "answered", answered=True
    )


@pytest.mark.parametrize("finish", ["network_error", "aborted", "overloaded"])
def test_a_provider_that_broke_off_is_asked_again(finish: str) -> None:
    verdict = on_answer(read_chat(answer(finish=finish)), NONE, thinks=True, retry_truncated=False)
    assert (verdict.action, verdict.cause) == ("again", "cut")


@given(st.text())
def test_a_finish_has_at_most_one_meaning_and_none_if_nobody_knows_it(word: str) -> None:
    assert sum(word.strip().casefold() in words for words in WORDS.values()) <= 1
    known = any(word.strip().casefold() in words for words in WORDS.values())
    assert (finish_of(word) is not None) == known

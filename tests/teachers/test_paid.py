"""What a journal holds adds up, in whatever order calls went out, ended or were killed."""

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fake_api import FakeTeacher, answer, ask, broken, made, refusal
from hypothesis import given
from hypothesis import strategies as st

from chainforge.teachers.account import Account, account_of, calls_json
from chainforge.teachers.paid import Paid, final_answers, read_paid
from chainforge.teachers.traces import traces_of

cents = st.decimals(0, 100, places=6)
CALL = st.tuples(
    st.sampled_from("abcde"),  # fingerprint
    cents,  # the most
    st.sampled_from(["final", "again", "billed", "free", "flying"]),
    st.decimals(0, 1, places=3),  # share of the most that it costs
)


@pytest.mark.slow
@given(calls=st.lists(CALL), data=st.data())
def test_spent_lost_and_in_flight_add_up(calls: list[tuple[str, Decimal, str, Decimal]], data: Any) -> None:
    attempts: Counter[str] = Counter()
    sent, ends = [], []
    finals: dict[str, int] = {}
    for fingerprint, most, end, share in calls:
        about = {"fingerprint": fingerprint, "attempt": attempts[fingerprint]}
        attempts[fingerprint] += 1
        sent.append({"kind": "sent", **about, "most_usd": str(most)})
        if end in ("final", "again"):
            cost = str(most * share)
            ends.append({"kind": "answer", **about, "final": end == "final", "cost_usd": cost})
        elif end in ("billed", "free"):
            ends.append({"kind": "failed", **about, "final": False, "billed": end == "billed"})
    paid = Paid()
    lines = [{"kind": "run", "run": "x"}, *sent, *data.draw(st.permutations(ends))]
    for offset, line in enumerate(lines):
        paid.add(offset, line)
        if line["kind"] == "answer" and line["final"]:
            finals[line["fingerprint"]] = offset
    by_end = {end: [(most, share) for _, most, e, share in calls if e == end] for end in CALL_ENDS}
    assert paid.spent == sum(most * share for e in ("final", "again") for most, share in by_end[e])
    assert paid.lost == sum(most for most, _ in by_end["billed"])
    assert paid.possibly == paid.lost + sum(most for most, _ in by_end["flying"])
    assert paid.broken == len(by_end["billed"])
    assert len(paid.flying) == len(by_end["flying"])
    assert paid.sent == attempts
    assert paid.finals == finals
    assert paid.run == lines[0]


CALL_ENDS = ("final", "again", "billed", "free", "flying")


def collected(folder: Path) -> FakeTeacher:
    """A journal with some of everything."""
    steps = {
        "p0": [refusal(500), answer(reasoning="")],
        "p1": [broken("it was cut", choices=[])],
        "p2": [answer("", finish="length")],
        "p3": [refusal(422)],
    }
    teacher = FakeTeacher(steps=steps)
    ask(teacher, 5, folder, samples=2, base_s=0.01)
    return teacher


@pytest.mark.usefixtures("clock")
def test_an_account_agrees_with_what_was_billed(tmp_path: Path) -> None:
    teacher = collected(tmp_path)
    account = account_of(tmp_path)
    assert account.requests == len(teacher.calls) == 16
    assert account.causes == {
        "answered": 6,
        **dict.fromkeys(("failed", "no_reasoning", "cut", "truncated", "refused"), 2),
    }
    assert account.answers == 10
    assert account.paid == read_paid(tmp_path)
    assert teacher.billed <= account.paid.spent + account.paid.possibly
    assert account.models == {"toy-1-0809": 10}
    assert account.sources == {"reasoning_content": 8, "None": 2}
    assert account.tokens == {"hit": 40, "miss": 60, "output": 200, "reasoning": 0}
    assert account.price_tables == {"toy 2026"}
    assert not account.synthetic


@pytest.mark.usefixtures("clock")
def test_an_account_is_the_sum_of_the_accounts_of_its_questions(tmp_path: Path) -> None:
    teacher = collected(tmp_path)
    parts = [account_of(tmp_path, {question.fingerprint}) for question in made(teacher, 5, 2)]
    total = account_of(tmp_path)
    assert sum(part.requests for part in parts) == total.requests
    assert sum((part.tokens for part in parts), Counter()) == total.tokens
    assert sum(part.paid.spent for part in parts) == total.paid.spent
    assert sum(part.paid.possibly for part in parts) == total.paid.possibly
    nobody = account_of(tmp_path, ())
    assert (nobody.requests, nobody.paid.spent, nobody.price_tables) == (0, 0, {"toy 2026"})


@pytest.mark.usefixtures("clock")
def test_the_card_is_told_what_was_asked_and_paid(tmp_path: Path) -> None:
    collected(tmp_path)
    told = calls_json(account_of(tmp_path), "toy", {"effort": "high"})
    assert (told["requests"], told["answers"], told["possibly_paid"]) == (16, 10, 2)
    assert Decimal(told["cost_usd"]) == read_paid(tmp_path).spent
    assert told["first_day"] == told["last_day"]
    assert told["price_table"] == "toy 2026"
    empty = calls_json(Account(), "toy", {})
    assert (empty["first_day"], empty["price_table"], empty["cost_usd"]) == (None, None, None)


@pytest.mark.usefixtures("clock")
def test_final_answers_come_in_the_order_they_are_asked_for(tmp_path: Path) -> None:
    teacher = FakeTeacher()
    paid = ask(teacher, 5, tmp_path)
    backwards = [question.fingerprint for question in made(teacher, 5)][::-1]
    assert [a["fingerprint"] for a in final_answers(tmp_path, paid, iter(backwards))] == backwards
    assert [t.prompt_id for t in traces_of(teacher, made(teacher, 5)[::-1], tmp_path, paid)] == [
        f"p{n}" for n in range(4, -1, -1)
    ]

"""Collecting traces: every prompt answered as often as asked, in the order of the prompts."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from fakes import make_step, prompt

from chainforge.errors import ChainForgeError
from chainforge.loops.collect import collect
from chainforge.records import Prompt, Trace
from chainforge.run.work import Work

PROMPTS = [prompt(n) for n in (3, 1, 2)]
STEP = make_step("collect_cot")


class Fake:
    """Answers in any order, and remembers how it was asked."""

    def __init__(self, *, order: int = 0, lose: int = 0, repeat: int = 0, stranger: bool = False) -> None:
        self.order, self.lose, self.repeat, self.stranger = order, lose, repeat, stranger
        self.seeds: list[int] = []

    def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int) -> Iterator[Trace]:
        self.seeds.append(seed)
        traces = [Trace(p.id, f"r{i}", "42", "stop", "fake") for p in prompts for i in range(n)]
        traces = traces[self.lose :] + traces[: self.repeat]
        if self.stranger:
            traces.append(Trace("p9", "r", "42", "stop", "fake"))
        yield from Random(self.order).sample(traces, len(traces))


@pytest.mark.parametrize("order", range(5))
def test_traces_have_the_order_of_the_prompts_whatever_order_they_came_in(order: int) -> None:
    assert [t.prompt_id for t in collect(Fake(order=order), PROMPTS, 1, STEP, Work())] == ["p3", "p1", "p2"]
    twice = collect(Fake(order=order), PROMPTS, 2, STEP, Work())
    assert [t.prompt_id for t in twice] == ["p3", "p3", "p1", "p1", "p2", "p2"]
    assert {(t.prompt_id, t.reasoning) for t in twice} == {(p.id, r) for p in PROMPTS for r in ("r0", "r1")}


def test_the_seed_is_the_step_s_own() -> None:
    teacher = Fake()
    collect(teacher, PROMPTS, 1, STEP, Work())
    collect(teacher, PROMPTS, 1, make_step("collect_general"), Work())
    collect(teacher, PROMPTS, 1, make_step("collect_cot", seed=18), Work())
    assert teacher.seeds[0] == STEP.seed("teacher")
    assert len(set(teacher.seeds)) == 3


def test_a_teacher_that_answers_what_nobody_asked_is_an_error() -> None:
    with pytest.raises(
        ChainForgeError, match="answered 'p9', which nobody asked\n  -> mend the teacher plugin"
    ):
        collect(Fake(stranger=True), PROMPTS, 1, STEP, Work())


def test_a_teacher_that_answers_too_seldom_or_too_often_is_an_error() -> None:
    with pytest.raises(
        ChainForgeError, match="gave 1 answers to 'p3', not 2\n  -> a teacher yields n traces"
    ):
        collect(Fake(lose=1), PROMPTS, 2, STEP, Work())
    with pytest.raises(ChainForgeError, match="gave 0 answers to 'p3', not 1"):
        collect(Fake(lose=1), PROMPTS, 1, STEP, Work())
    with pytest.raises(ChainForgeError, match="gave 2 answers to 'p3', not 1"):
        collect(Fake(repeat=1), PROMPTS, 1, STEP, Work())


class Says(Fake):
    """Gives what it is told to."""

    def __init__(self, given: Callable[[], Any]) -> None:
        super().__init__()
        self.given = given

    def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int) -> Any:
        return self.given()


def trace(prompt_id: str = "p3", **changes: Any) -> Trace:
    return replace(Trace(prompt_id, "r", "42", "stop", "fake"), **changes)


def leaves() -> Iterator[Trace]:
    yield trace()
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (lambda: None, "gives NoneType, not traces"),
        (lambda: [{}], "trace 1: expected a Trace, found {}"),
        (lambda: [trace(reasoning=None)], "trace 1: field 'reasoning' must be a string, found None"),
        (lambda: [trace(finish="banana")], "field 'finish' must be one of"),
        (leaves, "raised SystemExit: 0"),
        (lambda: itertools.repeat(trace()), "gave 2 answers to 'p3', not 1"),
    ],
)
def test_a_teacher_that_gives_anything_but_the_traces_asked_for_is_an_error(
    given: Callable[[], Any], complaint: str
) -> None:
    with pytest.raises(ChainForgeError) as caught:
        collect(Says(given), PROMPTS, 1, STEP, Work(), "teacher 'odd' (plugins/odd.py)")
    assert complaint in caught.value.problem

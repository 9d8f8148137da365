"""The mock teacher answers as the teachers in the process do."""

import asyncio
import random
import statistics
from collections.abc import Iterator, Sequence

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_asking import PLUGINS, QUESTION, ask, careful, label, question, teachers, with_server

from chainforge.errors import ChainForgeError
from chainforge.mock_teacher.answers import answer
from chainforge.mock_teacher.asked import Label, read_asked, read_label
from chainforge.mock_teacher.deal import drafted
from chainforge.mock_teacher.draft import tokens
from chainforge.mock_teacher.filler import Filler
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.refused import Refused
from chainforge.mock_teacher.serve import Served
from chainforge.records import Prompt, Trace

TEACHERS = teachers(wrong_fraction=0.3)


def some_prompts(source: str, n: int) -> list[Prompt]:
    return list(PLUGINS.pick("prompt_sources", source).component(split="train", n=n, seed=17))


@pytest.mark.parametrize(
    ("source", "teacher"), [("procedural_reasoning", 0), ("procedural_instructions", 1)], ids=str
)
def test_every_answer_is_the_trace_of_the_teacher_in_the_process(source: str, teacher: int) -> None:
    prompts, samples, seed = some_prompts(source, 60), 3, 23
    expected = list(TEACHERS[teacher].generate(prompts, n=samples, seed=seed))

    async def story(session: aiohttp.ClientSession, served: Served) -> list[Trace]:
        async def one(prompt: Prompt, sample: int) -> Trace:
            body = question(prompt.messages[-1]["content"])
            status, reply = await ask(session, served, body, label(prompt.id, sample, seed=seed))
            assert status == 200
            (choice,) = orjson.loads(reply)["choices"]
            message = choice["message"]
            reasoning = message["reasoning_content"] or ""
            return Trace(prompt.id, reasoning, message["content"], choice["finish_reason"], "procedural")

        return await asyncio.gather(*(one(prompt, i) for prompt in prompts for i in range(samples)))

    found, _ = with_server(MockTeacher(teachers=TEACHERS), story)
    assert found == expected
    assert {trace.finish for trace in found} == {"stop", "length"}


def test_the_last_message_of_the_user_is_the_question() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "47 mod 6?"},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": [{"type": "text", "text": "99+16"}, {"type": "text", "text": "=?"}]},
    ]
    asked = read_asked(orjson.dumps({"model": "m", "messages": turns}), None)
    assert answer(asked.messages, Label(1, "p", 0, 0), teachers(), Filler()).content == "115"


def test_the_same_label_gets_the_same_bytes_and_another_sample_another_id() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[bytes]:
        headers = [label(), label(), label(attempt=3), label(sample=1), label("p2"), label(seed=18)]
        return [(await ask(session, served, None, each))[1] for each in headers]

    (first, again, retried, *others), _ = with_server(careful(), story)
    assert first == again == retried
    assert len({orjson.loads(body)["id"] for body in (first, *others)}) == 4


def test_without_a_label_the_conversation_and_its_seed_decide() -> None:
    async def story(session: aiohttp.ClientSession, served: Served) -> list[bytes]:
        bodies = [question("Why?"), question("Why?"), question("Why?", seed=1), question("Who?")]
        key = {"x-api-key": "any"}
        return [(await ask(session, served, body, key))[1] for body in bodies]

    (first, again, *others), served = with_server(MockTeacher(), story)
    assert first == again
    assert len({first, *others}) == 3
    assert [entry.label.attempt for entry in served.ledger.entries] == [0, 1, 0, 0]


@given(st.integers(), st.text(st.characters(codec="utf-8")), st.integers(0, 99), st.integers(0, 9))
def test_a_label_is_read_as_it_was_written(seed: int, prompt: str, sample: int, attempt: int) -> None:
    header = label(prompt, sample, attempt, seed)["X-Client-Request-Id"]
    assert header.isascii()
    assert read_label(header) == Label(seed, prompt, sample, attempt)


@pytest.mark.parametrize("text", [None, "", "a uuid", "1/p/0", "1/p/0/0/0", "x/p/0/0", "1/p/-1/0", "1/p/0/x"])
def test_any_other_header_is_no_label(text: str | None) -> None:
    assert read_label(text) is None


def test_filler_has_the_median_length_that_was_asked_for_and_a_long_tail() -> None:
    filler = Filler(median_tokens=300, sigma=0.6)
    lengths = [tokens(filler.trace("p", random.Random(i)).reasoning) for i in range(400)]
    assert 250 < statistics.median(lengths) < 350
    assert (
        1.5 < statistics.quantiles(lengths, n=100)[83] / statistics.median(lengths) < 2.2
    )  # e^sigma is 1.82


@pytest.mark.parametrize("settings", [{"median_tokens": 0}, {"sigma": -1.0}])
def test_filler_without_a_length_is_an_error(settings: dict[str, float]) -> None:
    with pytest.raises(ChainForgeError, match="filler of"):
        Filler(**settings)  # type: ignore[arg-type]


@given(limit=st.integers(1, 60))
def test_an_answer_never_has_more_tokens_than_allowed_and_is_a_beginning_of_the_whole(limit: int) -> None:
    def draft(max_tokens: int | None) -> tuple[str, str, str | None, int]:
        asked = read_asked(orjson.dumps(question(max_tokens=max_tokens)), None)
        made = drafted(careful(), asked, Label(17, "p1", 0, 0))
        return made.reasoning or "", made.content or "", made.finish, made.usage.output

    reasoning, content, finish, output = draft(None)
    cut_reasoning, cut_content, cut_finish, cut_output = draft(limit)
    assert cut_output == min(limit, output)
    assert cut_finish == ("length" if limit < output else finish)
    assert reasoning.startswith(cut_reasoning)
    assert content.startswith(cut_content)
    assert not cut_content or cut_reasoning == reasoning


class Broken:
    def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int) -> Iterator[Trace]:
        raise ZeroDivisionError("oh")


def test_a_teacher_that_breaks_says_so_and_is_not_covered_up() -> None:
    turns = ({"role": "user", "content": QUESTION},)
    with pytest.raises(Refused, match="Broken failed: ZeroDivisionError: oh") as refused:
        answer(turns, Label(1, "p", 0, 0), [Broken()], Filler())  # type: ignore[arg-type]
    assert refused.value.status == 500

"""A fingerprint changes with all that an answer depends on, and with nothing else."""

import json
from typing import Any

import orjson
import pytest
from fake_api import FakeTeacher, prompts
from hypothesis import assume, given
from hypothesis import strategies as st

from chainforge.plugins import load_plugins
from chainforge.records import Message, Prompt
from chainforge.teachers import record
from chainforge.teachers.line import write_line
from chainforge.teachers.question import Question, questions

any_text = st.lists(st.text() | st.sampled_from(["\ud83d", "\ude00", "a/b"])).map(
    "".join
)  # with lone surrogates


def one(
    content: str = "6*7?", sample: int = 0, *, prompt_id: str = "p", seed: int = 17, **teacher: Any
) -> Question:
    """A question with this many earlier ones about the same prompt."""
    prompt = Prompt(prompt_id, "toy", (Message(role="user", content=content),))
    return list(questions(FakeTeacher(**teacher), [prompt], sample + 1, seed))[sample]


def identified(**changes: Any) -> dict[str, Any]:
    return {"identity": {"provider": "toy", "model": "toy-1", "parameters": {"max_tokens": 9}} | changes}


def openai_compatible(root: Any, **settings: Any) -> str:
    """The fingerprint of a question to the bundled plugin."""
    factory = load_plugins(root / "plugins").pick("teachers", "openai_compatible").component
    return next(questions(factory(**settings), prompts(1), 1, 17)).fingerprint


def test_a_fingerprint_is_that_of_teacher_parameters_messages_and_sample() -> None:
    variants = [
        one(**identified()),
        one(**identified(model="toy-2")),
        one(**identified(provider="other")),
        one(**identified(parameters={"max_tokens": 9, "effort": "low"})),
        one("6*8?", **identified()),
        one(sample=1, **identified()),
    ]
    assert len({question.fingerprint for question in variants}) == len(variants)
    assert one(prompt_id="another", **identified()).fingerprint == variants[0].fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "toy@other.test"},
        {"parameters": {"max_tokens": 10}},
        {"parameters": {"max_completion_tokens": 10, "timeout": 600, "user": "me"}},
        {"parameters": {}},
    ],
)
def test_what_cannot_have_changed_a_finished_answer_is_not_in_it(change: dict[str, Any]) -> None:
    assert one(**identified(**change)).fingerprint == one(**identified()).fingerprint


def test_the_order_of_settings_means_nothing() -> None:
    shuffled = (
        {"parameters": {"b": 1, "a": {"d": 2, "c": 3}}},
        {"parameters": {"a": {"c": 3, "d": 2}, "b": 1}},
    )
    first, second = (one(**identified(**parameters)).fingerprint for parameters in shuffled)
    assert first == second


def test_a_message_s_role_and_place_count() -> None:
    def of(*turns: tuple[str, str]) -> str:
        messages = tuple(Message(role=role, content=content) for role, content in turns)
        return next(questions(FakeTeacher(), [Prompt("p", "toy", messages)], 1, 17)).fingerprint

    variants = [
        of(("user", "a"), ("user", "b")),
        of(("user", "b"), ("user", "a")),
        of(("system", "a"), ("user", "b")),
        of(("user", "ab")),
    ]
    assert len(set(variants)) == len(variants)


def test_an_instruction_comes_first_and_counts() -> None:
    plain, told = (next(questions(FakeTeacher(), prompts(1), 1, 17, text)) for text in (None, "Be brief."))
    assert told.messages == ({"role": "system", "content": "Be brief."}, *plain.messages)
    assert told.fingerprint != plain.fingerprint


@pytest.mark.slow
def test_neither_key_nor_server_nor_length_belongs_to_a_fingerprint(
    root: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def served_by(**settings: Any) -> str:
        return openai_compatible(root, preset="vllm", model="m", **settings)

    before = served_by(base_url="http://gpu1:8000/v1")
    monkeypatch.setenv("VLLM_API_KEY", "sk-secret")
    assert served_by(base_url="https://gpu1:9999/v2", key_env="OTHER") == before
    assert served_by(base_url="http://gpu2:8000/v1", max_tokens=9) == before
    assert openai_compatible(root, preset="sglang", model="m", base_url="http://gpu1:8000/v1") != before
    assert served_by(base_url="http://gpu1:8000/v1", extra_body={"min_p": 0.1}) != before


def test_a_seed_matters_only_where_it_is_sent() -> None:
    assert one(seed=1).fingerprint == one(seed=2).fingerprint
    assert one(seed=1, seeded=True).fingerprint != one(seed=2, seeded=True).fingerprint


@given(few=st.integers(0, 5), more=st.integers(0, 5), n=st.integers(1, 4))
def test_more_samples_or_prompts_change_no_earlier_fingerprint(few: int, more: int, n: int) -> None:
    teacher = FakeTeacher()
    before = list(questions(teacher, prompts(n), few, 17))
    after = list(questions(teacher, prompts(n + 1), few + more, 17))
    assert [q for q in after if q.sample < few and q.prompt_id != f"p{n}"] == before
    assert len({q.fingerprint for q in after}) == len(after)


def test_what_was_thought_in_earlier_turns_is_not_sent() -> None:
    turns = ("user", "6*7?"), ("assistant", "<think>hm</think>42"), ("user", "<think>and 6*8?</think>")
    prompt = Prompt("p", "toy", tuple(Message(role=role, content=content) for role, content in turns))
    (question,) = questions(FakeTeacher(), [prompt], 1, 17)
    assert [m["content"] for m in question.messages] == ["6*7?", "42", "<think>and 6*8?</think>"]


@pytest.mark.slow
@given(content=any_text, prompt_id=any_text, seed=st.integers(0, 2**31), attempt=st.integers(0, 10**6))
def test_any_text_can_be_asked_labelled_and_written(
    content: str, prompt_id: str, seed: int, attempt: int
) -> None:
    question = one(content, prompt_id=prompt_id, seed=seed)
    json.dumps(question.messages, ensure_ascii=False).encode()
    label = question.label(attempt)
    assert label.isascii()
    assert label.isprintable()
    assert len(label) <= 512
    head, name, sample, tail = label.split("/")
    assert (int(head), sample, int(tail)) == (seed, "0", attempt)
    assert len(name) <= 200
    assert orjson.loads(write_line(record.about(question, attempt)))["attempt"] == attempt


@pytest.mark.slow
@given(content=any_text, other=any_text)
def test_different_messages_have_different_fingerprints(content: str, other: str) -> None:
    assume(content.encode(errors="replace") != other.encode(errors="replace"))
    assert one(content).fingerprint != one(other).fingerprint


def test_a_prompt_s_id_is_percent_encoded_in_its_label() -> None:
    assert one(prompt_id="a/b ü").label(3) == "17/a%2Fb%20%C3%BC/0/3"


@given(seed=st.integers(0, 2**40), prompt_id=any_text)
def test_every_sample_has_a_seed_of_its_own_in_31_bits(seed: int, prompt_id: str) -> None:
    seeds = [Question(prompt_id, n, (), "", seed).own_seed for n in range(8)]
    assert all(0 <= own < 2**31 for own in seeds)
    assert len(set(seeds)) == 8
    assert seeds == [Question(prompt_id, n, (), "", seed).own_seed for n in range(8)]
    assert Question(prompt_id, 0, (), "", seed + 1).own_seed != seeds[0]
    assert Question(f"{prompt_id}'", 0, (), "", seed).own_seed != seeds[0]

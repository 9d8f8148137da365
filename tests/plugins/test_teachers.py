"""Teachers `procedural`, `procedural_instructions` and `recorded`: the gold check of every family."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import load_plugin, registered

import chainforge as cf

SUPERCOT = cf.tag_format("supercot")
correct = registered("reward_correct", "register_rewards")["correct"]
TEACHERS = {
    **registered("teacher_procedural", "register_teachers"),
    **registered("teacher_instructions", "register_teachers"),
}
PLUGINS = {
    "procedural_reasoning": ("prompts_procedural", "procedural"),
    "procedural_instructions": ("prompts_instructions", "procedural_instructions"),
}
FAMILIES = [
    (source, family) for source, (file, _) in PLUGINS.items() for family in load_plugin(file).FAMILIES
]
each_teacher = pytest.mark.parametrize("name", sorted(TEACHERS))


def some_prompts(source: str, n: int, split: str = "train", **more: Any) -> list[cf.Prompt]:
    factory = registered(PLUGINS[source][0], "register_prompt_sources")[source]
    return list(factory(split=split, n=n, seed=17, **more))


def teach(source: str, prompts: list[cf.Prompt], n: int = 1, **settings: float) -> list[cf.Trace]:
    return list(TEACHERS[PLUGINS[source][1]](**settings).generate(prompts, n=n, seed=17))


def grades(prompts: list[cf.Prompt], traces: list[cf.Trace]) -> list[float]:
    return list(
        correct(
            completions=[SUPERCOT.render(trace.reasoning, trace.content) for trace in traces],
            answer=[prompt.answer for prompt in prompts],
            check=[prompt.columns.get("check") for prompt in prompts],
            response_format=SUPERCOT,
        )
    )


@pytest.mark.parametrize(("source", "family"), FAMILIES)
@pytest.mark.parametrize("terse_fraction", [0.0, 1.0])
def test_every_answer_is_right(source: str, family: str, terse_fraction: float) -> None:
    prompts = some_prompts(source, 250, families=[family])
    assert grades(prompts, teach(source, prompts, terse_fraction=terse_fraction)) == [1.0] * 250


@pytest.mark.parametrize(("source", "family"), FAMILIES)
def test_what_is_meant_to_be_wrong_is_wrong_or_cut_off(source: str, family: str) -> None:
    prompts = some_prompts(source, 250, families=[family])
    traces = teach(source, prompts, wrong_fraction=1.0)
    assert grades(prompts, traces) == [0.0] * 250
    cut = [trace for trace in traces if trace.finish == "length"]
    assert 75 < len(cut) < 175
    assert not any(trace.content for trace in cut)


@pytest.mark.parametrize("source", sorted(PLUGINS))
def test_the_reference_answer_is_never_looked_at(source: str) -> None:
    prompts = some_prompts(source, 100)
    blind = [cf.Prompt(prompt.id, "hidden", prompt.messages) for prompt in prompts]
    assert teach(source, blind) == teach(source, prompts)


@pytest.mark.parametrize("source", sorted(PLUGINS))
def test_the_same_seed_gives_the_same_traces_in_any_company(source: str) -> None:
    prompts = some_prompts(source, 100)
    together = teach(source, prompts, n=2, wrong_fraction=0.2)
    assert teach(source, prompts[50:], n=2, wrong_fraction=0.2) == together[100:]
    assert [trace.prompt_id for trace in together[::2]] == [prompt.id for prompt in prompts]


def test_two_in_five_traces_are_terse() -> None:
    traces = teach("procedural_reasoning", some_prompts("procedural_reasoning", 1000))
    assert 0.35 < sum(trace.reasoning == "Quick." for trace in traces) / 1000 < 0.45


@each_teacher
@given(text=st.text())
def test_a_question_of_no_known_form_is_an_error_that_names_the_prompt(name: str, text: str) -> None:
    prompt = cf.Prompt("odd-7", "users", ({"role": "user", "content": f"{text} Why?"},))
    with pytest.raises(cf.ChainForgeError, match="cannot read prompt 'odd-7'"):
        list(TEACHERS[name]().generate([prompt], n=1, seed=1))


@each_teacher
@pytest.mark.parametrize("setting", ["terse_fraction", "wrong_fraction"])
def test_a_fraction_out_of_range_is_an_error(name: str, setting: str) -> None:
    with pytest.raises(cf.ChainForgeError, match=f"{setting} is 40"):
        TEACHERS[name](**{setting: 40})


def test_subtraction_borrows_as_on_paper() -> None:
    solve = load_plugin("teacher_procedural").solve
    assert solve("402-38=?") == (
        "12-8=4 write 4 borrow 1. 10-3-1=6 write 6 borrow 1. 4-1=3 write 3.",
        "364",
    )


def test_a_list_in_capitals_leaves_out_what_is_forbidden() -> None:
    fulfil = load_plugin("teacher_instructions").fulfil
    _, answer = fulfil("Name 4 fruits but not pear or fig, in capitals.", random.Random(1))
    assert answer == answer.upper()
    assert not {"PEAR", "FIG"} & set(answer.split(", "))


JANET = "Janet sells <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $<<9*2=18>>18.\n#### 18"


def recorded(solution: object, n: int = 1, **settings: str) -> list[cf.Trace]:
    teacher = registered("teacher_recorded", "register_teachers")["recorded"](**settings)
    return list(teacher.generate([cf.Prompt("p1", "gsm8k", (), "18", {"solution": solution})], n=n, seed=1))


def test_a_recorded_solution_is_split_at_its_mark_and_freed_of_annotations() -> None:
    (trace,) = recorded(JANET, drop="<<.*?>>")
    assert trace == cf.Trace("p1", "Janet sells 9 eggs.\nShe makes 9 * 2 = $18.", "18", "stop", "recorded")


@pytest.mark.parametrize(
    ("solution", "settings", "complaint"),
    [
        (JANET, {"column": "proof"}, "prompt 'p1' has no text in its column 'proof'"),
        (None, {}, "no text in its column 'solution'"),
        ("It is 18.", {}, "the solution of prompt 'p1' is not reasoning, '####', answer"),
        ("#### 18", {}, "is not reasoning"),
        (JANET, {"drop": "<<("}, "drop: '<<\\(' is not a regular expression"),
        (JANET, {"answer_mark": ""}, "answer_mark is empty"),
    ],
)
def test_what_recorded_cannot_use_is_an_error(
    solution: object, settings: dict[str, str], complaint: str
) -> None:
    with pytest.raises(cf.ChainForgeError, match=complaint):
        recorded(solution, **settings)


def test_recorded_has_no_second_solution() -> None:
    with pytest.raises(cf.ChainForgeError, match="one solution per prompt, 4 are asked for"):
        recorded(JANET, n=4)

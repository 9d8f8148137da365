"""Prompt sources `countdown` and `arithmetic`: made on the spot, one right side for every problem."""

import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import islice, permutations, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import FOLDER, load_plugin, registered

import chainforge as cf
from chainforge.records import to_json

SOURCES = {
    name: registered(f"prompts_{name}", "register_prompt_sources")[name]
    for name in ("countdown", "arithmetic")
}
correct = load_plugin("reward_correct").grade
each_source = pytest.mark.parametrize("name", SOURCES)


def prompts(name: str, split: str, n: int, seed: int = 17, **more: Any) -> list[cf.Prompt]:
    return list(SOURCES[name](split=split, n=n, seed=seed, **more))


def turned(prompt: cf.Prompt) -> str:
    """The same for problems that are one turned around: numbers in order, with the target or operators."""
    if check := prompt.columns.get("check"):
        return f"{sorted(check['numbers'])} {check['target']}"
    return str(sorted(re.findall(r"\d+|[-+*/]", prompt.messages[0]["content"])))


@each_source
@pytest.mark.parametrize(("seed", "other"), [(17, 17), (17, 18), (0, 2**31)])
def test_train_and_eval_never_meet_whatever_their_seeds_not_even_turned_around(
    name: str, seed: int, other: int
) -> None:
    train = set(map(turned, prompts(name, "train", 300, seed)))
    held_out = set(map(turned, prompts(name, "eval", 100, other)))
    assert not train & held_out
    assert (len(train), len(held_out)) == (300, 100)


@each_source
@pytest.mark.parametrize("seed", [0, 17])
def test_the_same_seed_gives_the_same_prompts_and_more_of_them_go_on(name: str, seed: int) -> None:
    assert prompts(name, "train", 20, seed) == prompts(name, "train", 30, seed)[:20]
    assert prompts(name, "train", 20, seed) != prompts(name, "train", 20, seed + 1)


@pytest.mark.parametrize(
    ("name", "digest"), [("countdown", "bbf0975965647b51"), ("arithmetic", "a82ed699b3cdddf9")]
)
def test_prompts_are_the_same_bytes_in_every_process(name: str, digest: str) -> None:
    rows = [to_json(prompt) for prompt in prompts(name, "train", 200)]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16] == digest
    assert len({row["id"] for row in rows}) == 200


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), numbers=st.integers(2, 6), digits=st.integers(1, 5), data=st.data())
def test_an_answer_of_arithmetic_is_what_python_makes_of_it(
    seed: int, numbers: int, digits: int, data: st.DataObject
) -> None:
    operators = data.draw(st.sampled_from(["+", "+-", "*", "+-*", "+-*/"]))
    for prompt in prompts(
        "arithmetic", "train", 5, seed, numbers=numbers, digits=digits, operators=operators
    ):
        text = re.fullmatch(r"What is ([-+*/ \d]+)\?", prompt.messages[0]["content"])
        assert text
        assert len(re.findall(r"\d+", text[1])) == numbers
        assert str(eval(text[1].replace("/", "//"))) == prompt.answer  # the text was matched above
        assert correct(cf.Parsed("", f"It is {prompt.answer}"), prompt.answer, None) == 1.0
        worked, _, last = prompt.columns["solution"].rpartition("\n#### ")
        steps = worked.removesuffix(".").split(". ")
        assert all(eval(step.replace("/", "//").replace("=", "==")) for step in steps)  # ours: matched above
        assert steps[-1].endswith(f"= {prompt.answer}")
        assert last == prompt.answer


def test_the_recorded_teacher_teaches_arithmetic_one_operation_per_step() -> None:
    solve, problem = load_plugin("prompts_arithmetic").solve, load_plugin("prompts_arithmetic").Problem
    assert solve(problem((52, 37), ("-",), 15)) == "52 - 30 = 22. 22 - 7 = 15."
    assert solve(problem((2, 3, 4, 5), ("*", "-", "*"), -14)) == "2 * 3 = 6. 4 * 5 = 20. 6 - 20 = -14."
    (asked,) = prompts("arithmetic", "train", 1)
    (trace,) = registered("teacher_recorded", "register_teachers")["recorded"]().generate(
        [asked], n=1, seed=1
    )
    assert trace.content == asked.answer


def test_several_kinds_of_arithmetic_take_turns_and_are_families() -> None:
    kinds = {"sums": {"operators": "+-"}, "chains": {"numbers": 3, "digits": 1}}
    found = prompts("arithmetic", "eval", 60, kinds=kinds)
    assert [prompt.source for prompt in found] == ["sums", "chains"] * 30
    assert all("*" not in prompt.messages[0]["content"] for prompt in found[::2])
    alone = prompts("arithmetic", "eval", 30, kinds={"chains": kinds["chains"]})
    assert [p.messages for p in found[1::2]] == [p.messages for p in alone]


def solved(numbers: list[int], target: int, operators: str) -> str:
    """By trying everything; three numbers."""
    for (a, b, c), x, y in product(permutations(numbers), operators, operators):
        for text in (f"({a} {x} {b}) {y} {c}", f"{a} {x} ({b} {y} {c})"):
            try:
                if eval(text) == target:  # numbers and signs of our own
                    return text
            except ZeroDivisionError:
                continue
    raise AssertionError(f"{numbers} do not make {target}")


def test_every_countdown_can_be_solved_and_is_checked_by_correct() -> None:
    for prompt in prompts("countdown", "train", 60):
        check = prompt.columns["check"]
        answer = solved(check["numbers"], check["target"], check["operators"])
        assert correct(cf.Parsed("", answer), None, check) == 1.0
        assert correct(cf.Parsed("", rf"\boxed{{{answer}}}"), None, check) == 1.0
        assert correct(cf.Parsed("", f"{answer} + 1"), None, check) == 0.0
        assert str(check["target"]) in prompt.messages[0]["content"]


def test_the_settings_of_countdown_bound_its_problems() -> None:
    found = prompts("countdown", "train", 50, numbers=4, largest=9, largest_target=30, operators="+-")
    for prompt in found:
        check = prompt.columns["check"]
        assert len(check["numbers"]) == 4
        assert 1 <= min(check["numbers"]) <= max(check["numbers"]) <= 9
        assert 1 <= check["target"] <= 30
        assert "with + - and" in prompt.messages[0]["content"]


def test_numbers_of_every_length_occur() -> None:
    draw = load_plugin("prompts_arithmetic").number
    rng = random.Random(3)
    lengths = Counter(len(str(draw(rng, 3))) for _ in range(600))
    assert all(150 < lengths[digits] < 250 for digits in (1, 2, 3))


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("countdown", {"numbers": 1}, "numbers is 1"),
        ("countdown", {"largest": 0}, "largest is 0"),
        ("countdown", {"operators": "+^"}, r"operators is '\+\^'"),
        ("arithmetic", {"numbers": 11}, "numbers is 11"),
        ("arithmetic", {"digits": 0}, "digits is 0"),
        ("arithmetic", {"operators": ""}, "operators is ''"),
        ("arithmetic", {"operators": "++"}, r"operators is '\+\+'"),
        ("arithmetic", {"kinds": {"sums": {"digit": 1}}}, "kinds.sums is .*'digit'"),
        ("arithmetic", {"kinds": {"sums": {"operators": "%"}}}, "sums: operators is '%'"),
        ("arithmetic", {"kinds": {"sums": {"numbers": "2"}}}, "sums: numbers is '2'"),
        ("arithmetic", {"kinds": {"sums": None}}, "kinds.sums is None"),
    ],
)
def test_settings_that_make_no_problem_are_refused_at_once(
    name: str, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(cf.ChainForgeError, match=complaint):
        SOURCES[name](split="train", n=1, seed=1, **settings)


@each_source
def test_a_used_up_source_says_so_and_an_unknown_split_is_an_error(name: str) -> None:
    few = {"countdown": {"numbers": 2, "largest": 3}, "arithmetic": {"digits": 1, "operators": "+"}}[name]
    with pytest.raises(cf.ChainForgeError, match=rf"{name} is used up: .* \d+ different train problems"):
        prompts(name, "train", 10_000, **few)
    with pytest.raises(cf.ChainForgeError, match="no split called 'test'"):
        list(islice(SOURCES[name](split="test", n=1, seed=1), 1))


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_another_hash_seed_gives_the_same_prompts(hash_seed: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        "import prompts_countdown as c, prompts_arithmetic as a\n"
        "for make in c.countdown, a.arithmetic: print(list(make(split='eval', n=30, seed=5)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed}
    )
    expected = "".join(f"{prompts(name, 'eval', 30, 5)}\n" for name in SOURCES)
    assert ended.stdout == expected, ended.stderr

"""Prompt sources `gsm8k`, `math` and `aime`: rows of data sets that people know."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from loading import registered

import chainforge as cf
from chainforge.plugins import load_plugins

SOURCES = {
    name: registered(f"prompts_{name}", "register_prompt_sources")[name] for name in ("gsm8k", "math", "aime")
}
GSM8K = {"question": "How many?", "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018 "}
MATH = {
    "problem": "Find $x$.",
    "answer": r"\dfrac{9}{7}",
    "level": "Level 4",
    "type": "Counting & Probability",
}
AIME = {"problem": "Find $m+n$.", "answer": "073"}
ROWS = {"gsm8k": GSM8K, "math": MATH, "aime": AIME}


def read(
    name: str, folder: Path, *rows: Any, split: str = "train", n: int = 100, **more: Any
) -> list[cf.Prompt]:
    file = folder / {"train": "train.jsonl", "eval": "test.jsonl"}.get(split, "none")
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return list(SOURCES[name](**{"split": split, "n": n, "seed": 17, "folder": folder} | more))


def test_gsm8k_has_the_number_as_answer_and_the_solution_as_a_column(tmp_path: Path) -> None:
    (prompt,) = read("gsm8k", tmp_path, GSM8K, split="eval", instruction="A number alone.")
    messages = ({"role": "user", "content": "How many?\nA number alone."},)
    assert prompt == cf.Prompt("gsm8k-test-00001", "gsm8k", messages, "1,018", {"solution": GSM8K["answer"]})


def test_a_problem_of_math_is_of_the_family_of_its_type(tmp_path: Path) -> None:
    (prompt,) = read("math", tmp_path, MATH)
    columns = {"level": "Level 4", "type": "Counting & Probability"}
    messages = ({"role": "user", "content": "Find $x$."},)
    assert prompt == cf.Prompt(
        "math-train-00001", "counting_and_probability", messages, r"\dfrac{9}{7}", columns
    )


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"So $\boxed{1}$, no, $x = \boxed{\frac{1}{\sqrt{2}}}$.", r"\frac{1}{\sqrt{2}}"),
        (r"The answer is $\boxed 9$.", "9"),
    ],
)
def test_math_takes_the_last_box_of_a_solution_where_there_is_no_answer(
    solution: str, answer: str, tmp_path: Path
) -> None:
    row = {"problem": "?", "level": 5, "subject": "Algebra", "solution": solution}
    (prompt,) = read("math", tmp_path, row)
    assert (prompt.answer, prompt.source, prompt.columns["level"]) == (answer, "algebra", "5")


def test_levels_of_math_are_chosen_before_the_n_are(tmp_path: Path) -> None:
    rows = [MATH | {"problem": f"{i}?", "level": f"Level {i % 5 + 1}"} for i in range(50)]
    rows.append(MATH | {"level": "Level ?"})
    found = read("math", tmp_path, *rows, n=15, levels=[3, 5])
    assert len(found) == 15
    assert {prompt.columns["level"] for prompt in found} == {"Level 3", "Level 5"}


def test_a_problem_of_math_with_an_empty_answer_is_left_out(tmp_path: Path) -> None:
    (prompt,) = read("math", tmp_path, MATH | {"answer": ""}, MATH, n=1)
    assert prompt.id == "math-train-00002"


def test_an_answer_of_the_aime_is_a_number_without_zeros_in_front(tmp_path: Path) -> None:
    (prompt,) = read("aime", tmp_path, AIME)
    assert prompt == cf.Prompt("aime-train-0001", "aime", ({"role": "user", "content": "Find $m+n$."},), "73")


@pytest.mark.parametrize("name", SOURCES)
def test_fewer_than_all_rows_are_a_seeded_choice_in_file_order(name: str, tmp_path: Path) -> None:
    rows = [ROWS[name] | {"question": f"{i}?", "problem": f"{i}?"} for i in range(60)]
    some = [prompt.id for prompt in read(name, tmp_path, *rows, n=20)]
    assert some == sorted(set(some)) == [prompt.id for prompt in read(name, tmp_path, *rows, n=20)]
    assert len(some) == 20
    assert set(some) <= {prompt.id for prompt in read(name, tmp_path, *rows, n=21)}
    assert some != [prompt.id for prompt in read(name, tmp_path, *rows, n=20, seed=18)]


@pytest.mark.parametrize(
    ("name", "row", "settings", "complaint"),
    [
        ("gsm8k", {"question": "?"}, {}, "line 2: there is no field 'answer'\n.*has: question"),
        ("gsm8k", {"question": "?", "answer": "18"}, {}, "line 2: the answer has no '####'"),
        ("gsm8k", {"question": "?", "answer": "18 ####"}, {}, "line 2: the answer has no '####'"),
        ("math", {"problem": "?", "type": "a", "level": "1"}, {}, "line 2: there is no field 'solution'"),
        ("math", MATH | {"answer": None}, {}, "line 2: field 'answer' holds no text"),
        (
            "math",
            {"problem": "?", "type": "a", "level": "1", "solution": "So 5."},
            {},
            r"line 2: .*has no \\boxed",
        ),
        ("math", {"problem": "?", "level": "1"}, {}, "line 2: there is no field 'type' or 'subject'"),
        ("math", MATH, {"levels": [6]}, r"^levels is \[6\]"),
        ("math", MATH, {"levels": []}, r"^levels is \[\]"),
        ("aime", AIME | {"answer": "1000"}, {}, "line 2: the answer is 1000"),
        ("aime", AIME | {"answer": "1/2"}, {}, "line 2: answer is '1/2', no whole number"),
        ("aime", AIME, {"eval_years": [2024]}, "^eval_years is for the hub"),
        ("aime", [5], {}, "line 2: expected an object, found list"),
    ],
)
def test_errors_name_file_line_and_field(
    name: str, row: Any, settings: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    where = "" if complaint.startswith("^") else r"train\.jsonl, "
    with pytest.raises(cf.ChainForgeError, match=f"{where}{complaint}".replace("^", "")):
        read(name, tmp_path, ROWS[name], row, **settings)


@pytest.mark.parametrize("name", SOURCES)
def test_a_missing_file_and_an_unknown_split_are_errors(name: str, tmp_path: Path) -> None:
    with pytest.raises(cf.ChainForgeError, match=r"there is no file .*train\.jsonl"):
        list(SOURCES[name](split="train", n=1, seed=1, folder=tmp_path))
    with pytest.raises(cf.ChainForgeError, match="no split called 'test'"):
        SOURCES[name](split="test", n=1, seed=1, folder=tmp_path)


def test_the_page_names_every_source_and_its_settings() -> None:
    page = (Path(__file__).parents[2] / "docs/prompts.md").read_text(encoding="utf-8")
    table = {
        cells[1].strip("` "): cells[3] for line in page.splitlines() if len(cells := line.split("|")) == 6
    }
    plugins = load_plugins(Path(__file__).parents[2] / "plugins")
    for name in plugins.names("prompt_sources"):
        called = inspect.signature(plugins.pick("prompt_sources", name).component).parameters
        settings = set(called) - {"split", "n", "seed"}
        assert set(re.findall(r"`([a-z_]+)`", table[name])) == settings, name

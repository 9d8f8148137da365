"""Prompt source `jsonl`."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from loading import registered

import chainforge as cf

jsonl = registered("prompts_jsonl", "register_prompt_sources")["jsonl"]
GSM8K = {"question": "How many?", "answer": "9 * 2 = <<9*2=18>>18\n#### 1,018 "}


def read(folder: Path, *rows: Any, n: int = 100, seed: int = 17, **settings: Any) -> list[cf.Prompt]:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return list(jsonl(split="train", n=n, seed=seed, train=path, eval=folder / "none.jsonl", **settings))


def test_gsm8k_rows_give_answer_and_worked_solution(tmp_path: Path) -> None:
    (prompt,) = read(tmp_path, GSM8K, answer_pattern=r"####\s*(.+)", solution="answer")
    messages = ({"role": "user", "content": "How many?"},)
    assert prompt == cf.Prompt("rows-1", "rows", messages, "1,018", {"solution": GSM8K["answer"]})


def test_ids_messages_numbers_and_the_instruction_are_kept(tmp_path: Path) -> None:
    chat = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    row = {"id": 7, "messages": chat, "result": 18}
    (prompt,) = read(tmp_path, row, answer="result", instruction="Be brief.")
    assert (prompt.id, prompt.answer, len(prompt.messages)) == ("7", "18", 4)
    assert prompt.messages[-1]["content"] == "user\nBe brief."


def test_answers_may_be_absent_when_that_is_said(tmp_path: Path) -> None:
    (prompt,) = read(tmp_path, {"question": "Why?"}, answer=None)
    assert prompt.answer is None


def test_fewer_than_all_rows_are_a_seeded_choice_in_file_order(tmp_path: Path) -> None:
    rows = [{"id": f"{i:03d}", "question": "?", "answer": i} for i in range(100)]
    some = [prompt.id for prompt in read(tmp_path, *rows, n=30)]
    assert some == sorted(some)
    assert len(some) == 30
    assert set(some) <= {prompt.id for prompt in read(tmp_path, *rows, n=31)}
    assert some == [prompt.id for prompt in read(tmp_path, *rows, n=30)]
    assert some != [prompt.id for prompt in read(tmp_path, *rows, n=30, seed=18)]


@pytest.mark.parametrize(
    ("rows", "settings", "complaint"),
    [
        ([GSM8K, {"query": "?"}], {}, "rows.jsonl, line 2: there is no field 'question'\n.*has: query"),
        ([{"question": ["?"], "answer": 1}], {}, r"line 1: field 'question' holds no text but \['\?'\]"),
        ([{"question": " ", "answer": 1}], {}, "line 1: field 'question' holds no text"),
        ([{"question": "?", "answer": None}], {}, "line 1: field 'answer' holds no text but None"),
        ([GSM8K, 5], {}, "line 2: expected an object, found int"),
        ([GSM8K], {"answer_pattern": "=> (.+)"}, "line 1: answer_pattern '=> .*' finds nothing in field"),
        ([GSM8K], {"answer_pattern": ".+"}, "has 0 groups, not one"),
        ([GSM8K], {"answer_pattern": "("}, "is not a regular expression"),
        ([GSM8K], {"solution": "proof"}, "line 1: there is no field 'proof'"),
        (
            [{"messages": [{"role": "user"}], "answer": 1}],
            {},
            "line 1: field 'messages': message 1 of 1 must be",
        ),
        ([{"messages": [], "answer": 1}], {}, "line 1: field 'messages': message 1 of 1 must be"),
        ([{"messages": "hi", "answer": 1}], {}, "line 1: field 'messages': message 1 of 1 must be"),
        ([{"messages": 5, "answer": 1}], {}, "line 1: field 'messages': message 1 of 1 must be"),
        (
            [{"messages": [{"role": "assistant", "content": "hi"}], "answer": 1}],
            {},
            "line 1: the last of `messages` is not from the user",
        ),
        ([{"id": "a"} | GSM8K, {"id": "a"} | GSM8K], {}, "line 2: id 'a' is that of line 1 too"),
    ],
)
def test_errors_name_file_line_and_field(
    tmp_path: Path, rows: list[Any], settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(cf.ChainForgeError, match=complaint):
        read(tmp_path, *rows, **settings)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    with pytest.raises(cf.ChainForgeError, match=r"there is no file .*none\.jsonl"):
        list(jsonl(split="eval", n=1, seed=1, train=path, eval=path))


def test_a_number_is_an_answer_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "?", "answer": 0.00005}\n{"question": "!", "answer": 1.50}\n')
    prompts = list(jsonl(split="train", n=2, seed=17, train=path, eval=path))
    assert [prompt.answer for prompt in prompts] == ["0.00005", "1.50"]
    assert all(cf.same_answer(text, "0.00005") for text in ("0.00005", "5e-05", r"5 \times 10^{-5}"))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [200_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_a_few_of_many_rows_take_little_memory(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(
            f'{{"question": "What is {i} + {i}? {"Think. " * 8}", "answer": {2 * i}}}\n' for i in range(rows)
        )
    tracemalloc.start()
    prompts = list(jsonl(split="train", n=5000, seed=17, train=path, eval=path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(prompts) == 5000
    assert peak < 80e6

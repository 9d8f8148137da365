"""What a hand has changed between two steps: an error that names the file, and no report."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chainforge.errors import ChainForgeError
from chainforge.report.subject import Subject
from chainforge.report.write import write_report

ROWS = "data/eval/qwen_sft_ckpt/general.jsonl"
METRICS = "metrics/eval/qwen_sft_ckpt/general.json"
CURVE = "plots/grpo_final.csv"


def refused(root: Path, subject: Subject, file: str) -> None:
    with pytest.raises(ChainForgeError, match=re.escape(file)):
        write_report(root=root, out=root / "out", subject=subject)
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"samples": None}, {"samples": []}, {"samples": ["text"]}, {"samples": {}},
        {"samples": [{"text": "x"}]},
        {"greedy": "text"}, {"greedy": {"rewards": {"correct": 1.0}}}, {"greedy": []},
        {"samples": [{"text": "x", "finish": "stop", "tokens": 1, "rewards": {"correct": "1"}}]},
        {"samples": [{"text": "x", "finish": "stop", "tokens": 1, "rewards": None}]},
        {"samples": [{"text": None, "finish": "stop", "tokens": 1, "rewards": {"correct": 1}}]},
        {"prompt_id": 7}, {"prompt_id": None}, {"question": None}, {"question": ["x"]}, {"source": []},
        {"answer": 5}, {"messages": "x"}, {"messages": [{"role": "user"}]},
    ],
    ids=lambda change: json.dumps(change)[:60],
)  # fmt: skip
def test_answers_of_another_shape(change: dict[str, Any], root: Path, subject: Subject) -> None:
    path = root / ROWS
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(first) | change) + "\n" + "".join(others))
    refused(root, subject, f"{ROWS}, line 1")


@pytest.mark.parametrize("row", ["[]", "5", "null", '"x"', "{}", "{", "\x00"], ids=repr)
def test_a_line_that_is_no_answer(row: str, root: Path, subject: Subject) -> None:
    path = root / ROWS
    path.write_text(row + "\n" + path.read_text())
    refused(root, subject, f"{ROWS}, line 1")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff", b"5", b'{"n": true}', b'{"n": "24"}', b'{"n": NaN}', b'{"n": [1]}', b"{}",
     b'{"n": 1' + b"0" * 400 + b"}", b"[" * 100_000],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
@pytest.mark.parametrize("file", [METRICS, "metrics/filter_cot.json"])
def test_figures_of_another_shape(content: bytes, file: str, root: Path, subject: Subject) -> None:
    (root / file).write_bytes(content)
    refused(root, subject, file)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"step,reward\n", b"\xff\xfe", b"step,reward\n1\n", b"step,reward\n1,2,3\n", b"a,b\n1,2\n",
     b"step,reward\n1,x\n", b"step,reward\n,0.5\n", b"step,reward\n1,\x00\n"],
    ids=repr,
)  # fmt: skip
def test_a_curve_that_is_none(content: bytes, root: Path, subject: Subject) -> None:
    (root / CURVE).write_bytes(content)
    refused(root, subject, CURVE)

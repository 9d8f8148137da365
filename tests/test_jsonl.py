"""JSONL files: whole or not at all, and an error that names the file and the line."""

import json
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import prompt
from hypothesis import given, settings
from hypothesis import strategies as st

from chainforge.errors import ChainForgeError
from chainforge.jsonl import count_rows, read_records, read_rows, write_records, write_rows
from chainforge.records import Prompt, Trace

text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
traces = st.builds(Trace, text, text, text, st.sampled_from(["stop", "length", "error"]), text)


@pytest.mark.slow
@settings(max_examples=30)
@given(records=st.lists(traces, min_size=1, max_size=5))
def test_records_survive_a_file_whatever_their_text(records: list[Trace]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep/down/traces.jsonl"
        write_records(path, records)
        assert read_records(path, Trace) == records
        assert len(path.read_bytes().split(b"\n")) == len(records) + 1  # one line each, the last one ended


@settings(max_examples=30)
@given(records=st.lists(traces, min_size=1, max_size=3))
def test_the_same_records_are_the_same_bytes(records: list[Trace]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a", "b")]
        for path in paths:
            write_records(path, records)
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_files_of_other_systems_are_read(tmp_path: Path) -> None:
    row = json.dumps({"a": "é\u2028"}, ensure_ascii=False)
    (tmp_path / "dos.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{row}\r\n\r\n{row}\r\n".encode())
    assert list(read_rows(tmp_path / "dos.jsonl")) == [(1, {"a": "é\u2028"}), (3, {"a": "é\u2028"})]


GOOD = b'{"id": "p1", "source": "toy", "messages": [{"role": "user", "content": "x"}]}\n'


@pytest.mark.parametrize(
    ("content", "problem", "fix"),
    [
        (
            GOOD + b"\n{'id': 1}\n",
            ", line 3: not JSON: line contains invalid json",
            "one JSON object per line",
        ),
        (GOOD + b'{"id": "p2', ", line 2: not JSON: line contains invalid json", "one JSON object per line"),
        (
            GOOD + b'{"id": "\xff"}\n',
            ", line 2: not JSON: line is not valid utf-8",
            "one JSON object per line",
        ),
        (GOOD + b"null\n", ", line 2: not JSON: line contains null value", "one JSON object per line"),
        (GOOD + b"[1]\n", ", line 2: expected an object, found list", "must be one Prompt record"),
        (GOOD + b'{"id": "p2"}\n', ", line 2: missing 2 required", "must be one Prompt record"),
        (GOOD.replace(b"}]", b', "x": 1}]'), ", line 1: message 1 of 1 must be", "must be one Prompt record"),
        (b"", " is empty", "at least one JSON object"),
        (b"\n  \n", " is empty", "at least one JSON object"),
    ],
)
def test_an_error_names_the_file_and_the_line(tmp_path: Path, content: bytes, problem: str, fix: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ChainForgeError) as caught:
        read_records(path, Prompt)
    assert caught.value.problem.startswith(f"{path}{problem}")
    assert fix in caught.value.fix


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ChainForgeError, match=r"there is no file .*nowhere\.jsonl\n  -> check the path"):
        read_records(tmp_path / "nowhere.jsonl", Prompt)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    write_records(path, [prompt(1)])
    before = path.read_bytes()

    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        write_rows(path, rows())
    assert path.read_bytes() == before
    write_records(path, [prompt(2)])
    assert read_records(path, Prompt) == [prompt(2)]
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_numbers_keep_how_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text(
        '{"a": 0.00005, "b": 1e400, "c": 0.10, "d": 123456789012345678901234567890.5}\n'
    )
    ((_, row),) = read_rows(tmp_path / "rows")
    assert [str(value) for value in row.values()] == [
        "0.00005",
        "1e400",
        "0.10",
        "123456789012345678901234567890.5",
    ]
    assert row["a"] == 0.00005
    assert json.loads(json.dumps(row["a"])) == 0.00005
    assert str(pickle.loads(pickle.dumps(row["c"]))) == "0.10"


def test_only_the_rows_that_are_wanted_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\n\n{"n": 1}\nbroken\n{"n": 3}\n')
    assert count_rows(path) == 4
    assert list(read_rows(path, {1, 3})) == [(3, {"n": 1}), (5, {"n": 3})]
    write_records(path, [prompt(1), prompt(2)])
    path.write_text(path.read_text() + "broken\n")
    assert read_records(path, Prompt, 2) == [prompt(1), prompt(2)]


def test_what_is_nested_too_deep_is_an_error_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ChainForgeError, match="line 1: not JSON"):
        list(read_rows(tmp_path / "deep.jsonl"))

"""`chainforge collect verify` finds whatever was changed behind the collector's back, and nothing else."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from odd_answers import just
from odd_faults import FAULTS, NAMED, USAGE
from odd_runs import at_home, by_command, hurry, prompts, text, wires
from odd_server import Asked, Said

from chainforge.cli import cli
from chainforge.teachers.journal import NAME
from chainforge.teachers.line import read_line, write_line

pytestmark = pytest.mark.usefixtures("quick", "home")

TRACES = "traces.jsonl"
HEALTHY = 20
QUIET = [
    f for f in FAULTS if f.then not in ("stops",) and not f.silent and not f.name.startswith(("4", "2_mb"))
]
Change = Callable[[bytes], bytes]
Missed = Callable[[str, Mapping[Any, Change]], list[object]]


def verify(folder: Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["collect", "verify", str(folder)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight answers to four prompts, one of them at the second call, some cut by their limit."""
    folder = tmp_path_factory.mktemp("made") / "out"

    def answers(asked: Asked) -> Said:
        return NAMED["500"](asked) if (asked.number, asked.prompt) == (1, text(1)) else just(asked)

    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        at_home(patch)
        by_command(folder, prompts(4), answers, "--samples", "2", "--max-tokens", "110")
    return folder


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.slow] if n > 2 else []) for n in range(HEALTHY)]
)
def test_it_is_silent_on_a_healthy_folder(seed: int, tmp_path: Path) -> None:
    """Whatever the server did, in one run or two of different size; questions may be there twice."""
    chance = random.Random(seed)
    wire = chance.choice(("whole", "streamed"))
    few = [f for f in chance.sample(QUIET, 40) if wire in wires(f)]
    lie = chance.choice([None, *USAGE])

    def answers(asked: Asked) -> Said:
        dice = random.Random(f"{seed} {asked.prompt} {asked.number}")
        return dice.choice(few)(asked) if dice.random() < 0.3 else (lie or just)(asked)

    more = ["--stream"] if wire == "streamed" else []
    for _ in range(chance.randint(1, 2)):
        about = prompts(chance.randint(3, 12))
        about += [replace(about[0], id="again")] if chance.random() < 0.5 else []
        by_command(tmp_path / "out", about, answers, *more, "--samples", str(chance.randint(1, 2)))
        assert verify(tmp_path / "out")[1].endswith(": nothing wrong\n")


@pytest.fixture
def missed(folder: Path, tmp_path: Path) -> Missed:
    """Those changes that verify does not find, each made alone: new bytes of a file from its old ones."""

    def missed(name: str, changes: Mapping[Any, Change]) -> list[object]:
        assert verify(folder)[0] == 0
        silent = []
        for label, change in changes.items():
            for file in (path.name for path in folder.iterdir() if path.is_file()):
                (tmp_path / file).write_bytes((folder / file).read_bytes())
            (tmp_path / name).write_bytes(changed := change((folder / name).read_bytes()))
            same = changed == (folder / name).read_bytes()
            silent += [label] if not same and verify(tmp_path)[0] != 1 else []
        assert changes
        return silent

    return missed


@pytest.mark.slow
def test_it_finds_traces_that_were_cut(missed: Missed) -> None:
    by_lines = {n: lambda old, n=n: b"".join(old.splitlines(keepends=True)[:n]) for n in range(8)}
    within_one = {-n: lambda old, n=n: old[:-n] for n in (2, 20, 100)}
    assert missed(TRACES, by_lines | within_one) == []


EDITS = (
    {"reasoning": "", "content": ""},
    {"reasoning": "", "content": "", "finish": "error"},
    {"content": ""},
    {"reasoning": ""},
    {"content": "the answer of 1000"},
    {"finish": "content_filter"},
    {"origin": "another"},
    {"prompt_id": "p99"},
)


def edited(number: int, change: Mapping[str, str]) -> Change:
    def edit(old: bytes) -> bytes:
        traces = [json.loads(line) for line in old.splitlines()]
        traces[number] |= change
        return "".join(json.dumps(trace, ensure_ascii=False) + "\n" for trace in traces).encode()

    return edit


@pytest.mark.slow
def test_it_finds_a_blanked_or_edited_trace(missed: Missed) -> None:
    changes = {(n, str(change)): edited(n, change) for n in (0, 3, 7) for change in EDITS}
    assert missed(TRACES, changes) == []


def flipped(seed: int) -> Change:
    def flip(old: bytes) -> bytes:
        chance = random.Random(seed)
        changed = bytearray(old)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    return flip


@pytest.mark.parametrize("name", [NAME, TRACES])
@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 400), marks=pytest.mark.slow)], ids=str)
def test_it_finds_a_flipped_bit_wherever_it_is(name: str, seeds: range, missed: Missed) -> None:
    assert missed(name, {seed: flipped(seed) for seed in seeds}) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAME, TRACES])
def test_it_finds_a_flipped_bit_at_the_ends_of_lines(name: str, missed: Missed) -> None:
    """Where one line becomes two, or two become one."""

    def flip(old: bytes, line: int, bit: int) -> bytes:
        place = len(b"".join(old.splitlines(keepends=True)[: line + 1])) - 1
        return old[:place] + bytes([old[place] ^ 1 << bit]) + old[place + 1 :]

    places = [(line, bit) for line in (0, 4, 7) for bit in range(8)]
    assert missed(name, {place: lambda old, place=place: flip(old, *place) for place in places}) == []


def rewritten(kind: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """The first record of a kind is changed, with a right checksum; where `change` says "gone", it goes."""

    def rewrite(old: bytes) -> bytes:
        records = [dict(read_line(line)[0]) for line in old.splitlines()]
        first = next(record for record in records if record["kind"] == kind)
        if change(first) == "gone":
            records.remove(first)
        return b"".join(map(write_line, records))

    return rewrite


def test_it_finds_a_wrong_cost_even_under_a_right_checksum(missed: Missed) -> None:
    costs = ("0", "0.00001234", "1E+3", "-1", "NaN", "words", None)
    changes = {cost: rewritten("answer", lambda r, cost=cost: r.update(cost_usd=cost)) for cost in costs}
    assert missed(NAME, changes) == []


FIELDS = {
    "run": "kind teacher identity",
    "sent": "kind fingerprint prompt_id sample attempt most_usd",
    "answer": "kind fingerprint prompt_id sample attempt final cause usage cost_usd raw",
    "failed": "kind fingerprint prompt_id sample attempt final cause billed",
}


@pytest.mark.slow
def test_it_finds_a_missing_field_even_under_a_right_checksum(missed: Missed) -> None:
    changes = {
        (kind, field): rewritten(kind, lambda r, field=field: r.pop(field) and None)
        for kind, fields in FIELDS.items()
        for field in fields.split()
    }
    assert missed(NAME, changes) == []


def test_it_finds_a_line_that_is_gone_and_an_answer_that_says_another_thing(missed: Missed) -> None:
    def other(record: dict[str, Any]) -> None:
        record["raw"]["choices"][0]["message"]["content"] = "the answer of 1000"

    changes = {kind: rewritten(kind, lambda record: "gone") for kind in ("sent", "answer")}
    assert missed(NAME, changes | {"other": rewritten("answer", other)}) == []

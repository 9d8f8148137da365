"""What was bought is not bought again: after refusals, other settings, and a damaged end of the journal."""

import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from odd_answers import just
from odd_faults import NAMED, REFUSALS
from odd_runs import by_command, collect, from_an_honest_server, prompts, text
from odd_server import Asked, OddServer, Said

from chainforge.cli import cli
from chainforge.teachers.journal import NAME

pytestmark = pytest.mark.usefixtures("quick")

OF_ONE_PROMPT = [f for f in REFUSALS if f.then == "skipped" and f.name != "400_2_mb"]


def refusing(struck: frozenset[int]) -> OddServer:
    """Always refuses these prompts, each in another way, and answers all others."""
    ways = len(OF_ONE_PROMPT)
    how = {text(number): OF_ONE_PROMPT[place % ways] for place, number in enumerate(sorted(struck))}

    def answers(asked: Asked) -> Said:
        return how[asked.prompt](asked) if asked.prompt in how else just(asked)

    return OddServer(answers)


@pytest.mark.dearest
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_of_600_prompts_3_percent_are_always_refused_and_all_others_answered(
    seed: int, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    first = frozenset(chance.sample(range(5), 2))  # not even the first ones need to be answerable
    struck = first | frozenset(chance.sample(range(5, 600), 16))
    ended = collect(tmp_path, 600, server=refusing(struck), concurrency=32)
    assert ended.stopped is None
    assert len(ended.paid.finals) == 600 - 18
    assert len(ended.server.ledger) <= 600 + 18
    honest = from_an_honest_server(600)
    assert [n for n in range(600) if (ended.traces[n] == honest[n]) == (n in struck)] == []
    once_more = collect(tmp_path, 600, concurrency=32)
    assert (once_more.stopped, len(once_more.server.ledger)) == (None, 0)
    on_request = collect(tmp_path, 600, concurrency=32, retry_refused=True)
    assert {entry.prompt for entry in on_request.server.ledger} == {text(number) for number in struck}
    assert len(on_request.server.ledger) == 18
    assert on_request.traces == list(honest)


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 8])
def test_refused_prompts_block_no_later_run_wherever_they_are(concurrency: int, tmp_path: Path) -> None:
    struck = frozenset(range(7))
    collect(
        tmp_path, 10, server=refusing(struck), concurrency=concurrency
    )  # may give up: nobody was answered
    ended = collect(tmp_path, 30, server=refusing(struck), concurrency=concurrency)
    assert ended.stopped is None
    assert len(ended.paid.finals) == 30 - len(struck)
    again = collect(tmp_path, 40, server=refusing(struck), concurrency=concurrency, retry_refused=True)
    assert again.stopped is None
    assert len(again.paid.finals) == 40 - len(struck)


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_what_was_refused_is_named_and_asked_again_on_request(tmp_path: Path) -> None:
    struck = frozenset({3, 7, 11})
    refuse = refusing(struck).answers
    said = by_command(tmp_path / "out", prompts(14), refuse)
    later = by_command(tmp_path / "out", prompts(14), just)
    assert all(f"p{number}" in each for number in struck for each in (said, later))
    assert "refused 3" in CliRunner().invoke(cli, ["collect", "status", str(tmp_path / "out")]).output
    assert "11 of 14 answered" in said
    assert "11 of 14 answered" in later
    assert "14 of 14 answered" in by_command(tmp_path / "out", prompts(14), just, "--retry-refused")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["401_key", "402_balance", "403_this_prompt", "404_this_prompt"])
def test_a_server_that_refuses_everything_stops_the_run_soon(name: str, tmp_path: Path) -> None:
    ended = collect(tmp_path, 40, NAMED[name], concurrency=8)
    assert ended.stopped is not None
    assert ended.stopped.exit_code == {"401": 3, "402": 4, "403": 3, "404": 5}[name[:3]]
    assert len(ended.server.ledger) <= 16
    assert (ended.paid.finals, ended.accounted) == ({}, 0)
    later = collect(tmp_path, 40, concurrency=8)
    assert later.traces == list(from_an_honest_server(40))


def test_a_lower_limit_and_another_name_of_the_server_buy_nothing_again(tmp_path: Path) -> None:
    collect(tmp_path, 6, said={"max_tokens": 2000})
    lower = collect(tmp_path, 6, said={"max_tokens": 1000})
    with_name = collect(tmp_path, 6, host="localhost")
    assert (len(lower.server.ledger), len(with_name.server.ledger)) == (0, 0)
    assert with_name.traces == list(from_an_honest_server(6))


@pytest.mark.slow
def test_a_higher_limit_buys_what_was_cut_and_nothing_else(tmp_path: Path) -> None:
    short = collect(tmp_path, 12, said={"max_tokens": 100}, concurrency=4)
    cut = sum(b'"length"' in line for line in short.traces)
    assert 0 < cut < 12
    long = collect(tmp_path, 12, said={"max_tokens": 2000}, concurrency=4)
    assert len(long.server.ledger) == cut
    assert long.traces == list(from_an_honest_server(12))


def test_a_lost_last_newline_loses_no_answer(tmp_path: Path) -> None:
    collect(tmp_path, 4)
    journal = tmp_path / NAME
    journal.write_bytes(journal.read_bytes().rstrip(b"\n"))
    again = collect(tmp_path, 4)
    assert len(again.server.ledger) == 0
    assert again.traces == list(from_an_honest_server(4))


@pytest.mark.dear
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_torn_last_line_costs_its_own_answer_at_most(place: float, tmp_path: Path) -> None:
    collect(tmp_path, 4)
    journal = tmp_path / NAME
    *lines, last = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines) + last[: int(len(last) * place)])
    again = collect(tmp_path, 4)
    assert len(again.server.ledger) == 1
    assert again.traces == list(from_an_honest_server(4))

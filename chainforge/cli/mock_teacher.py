"""`chainforge mock-teacher`: a teacher's API on this machine, which costs nothing and fails on command."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from chainforge.cli.complete import complete, profile_names
from chainforge.cli.mock_options import NOBODY, prices_of, script_of, teachers_of
from chainforge.cli.project import Place
from chainforge.mock_teacher.dialects import DIALECTS

if TYPE_CHECKING:  # the server takes a while to import, and no other command needs it
    from chainforge.mock_teacher.ledger import Totals
    from chainforge.mock_teacher.mock import MockTeacher

TELL_EVERY_S = 30.0
SECONDS = click.FloatRange(0)
COUNT = click.IntRange(1)


@click.command("mock-teacher")
@click.option("--port", type=click.IntRange(0, 65535), default=8500, show_default=True, help="0: a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 for the whole network.")
@click.option(
    "--profile",
    default="tiny",
    show_default=True,
    shell_complete=complete(profile_names),
    help=f"Whose teachers answer, or {NOBODY}.",
)
@click.option("--dialect", type=click.Choice(list(DIALECTS)), default="deepseek", show_default=True)
@click.option(
    "--faults",
    metavar="NAME=RATE,…|FILE",
    help="What goes wrong, see --list-faults. NAME@500: from the 500th request on. A FILE is YAML.",
)
@click.option("--fault-seed", type=int, help="Another seed strikes other requests; 0.")
@click.option(
    "--fault-attempts", type=click.IntRange(0), help="Attempts that may be struck; 1, so a retry passes."
)
@click.option("--list-faults", is_flag=True, help="Say what can go wrong, and stop.")
@click.option("--latency", type=SECONDS, default=0.0, show_default=True, help="Seconds before an answer.")
@click.option("--tokens-per-s", type=click.FloatRange(0, min_open=True), help="The pace of a stream.")
@click.option("--cap", type=COUNT, help="Requests at a time; one more gets 429 at once.")
@click.option("--rpm", type=COUNT, help="Requests a minute; one more gets 429 at once.")
@click.option("--retry-after", type=SECONDS, help="Seconds that such a 429 asks to wait.")
@click.option("--key", help="The only key that is accepted; any, if left out.")
@click.option("--prices", metavar="free|HIT,MISS,OUTPUT", help="USD per million tokens; 0.003,0.15,0.60.")
@click.option("--no-cache", is_flag=True, help="Bill a system message as new each time.")
@click.option(
    "--filler-tokens", type=COUNT, default=600, show_default=True, help="Median length of the filler."
)
@click.option("--ledger", type=Place(), help="JSONL to add a line to per request.")
@click.option("--verbose", is_flag=True, help="Totals every 30 s where there is no terminal, too.")
def mock_teacher(list_faults: bool, host: str, port: int, verbose: bool, **options: Any) -> None:
    """Serve a teacher's API on this machine, to rehearse a run without a key.

    It solves the problems of a profile as that profile's own teachers do, and answers any other text with
    filler. It speaks OpenAI's chat completions in the dialect of a provider, and Anthropic's messages. Point
    the collector at it, with any key (see docs/collecting.md):

    \b
      chainforge mock-teacher --latency 2 --faults rate_limited=0.1,cut_json=0.02
      chainforge collect --problems P.jsonl --out /tmp/try --teacher generic --model mock \\
        --base-url http://127.0.0.1:8500/v1 --budget-usd none

    Ctrl-C ends it and prints what it charged. GET /mock/ledger tells that at any time.
    """
    if list_faults:
        click.echo("\n".join(fault_lines()))
        return
    totals = asyncio.run(_serve(mock_of(options), host, port, verbose or sys.stdout.isatty()))
    click.echo("\n".join(table(totals)))


def mock_of(options: dict[str, Any]) -> "MockTeacher":
    """The teacher that the command line describes."""
    from chainforge.mock_teacher.filler import Filler
    from chainforge.mock_teacher.mock import PRICES, MockTeacher

    prices = options["prices"]
    return MockTeacher(
        teachers=teachers_of(options["profile"]),
        dialect=options["dialect"],
        filler=Filler(median_tokens=options["filler_tokens"]),
        faults=script_of(options["faults"], options["fault_seed"], options["fault_attempts"]),
        prices=PRICES if prices is None else prices_of(prices),
        key=options["key"],
        latency_s=options["latency"],
        tokens_per_s=options["tokens_per_s"],
        cap=options["cap"],
        rpm=options["rpm"],
        retry_after_s=options["retry_after"],
        cache=not options["no_cache"],
        ledger=options["ledger"],
    )


def fault_lines() -> Iterator[str]:
    """A line per fault."""
    from chainforge.mock_teacher.faults import FAULTS

    yield f"{'FAULT':<30}{'THEN':<10}{'BILLED':<8}{'ONLY':<8}WHAT"
    for fault in FAULTS.values():
        only = "" if fault.applies == "both" else fault.applies
        billed = "yes" if fault.billed else "no"
        yield f"{fault.name:<30}{fault.then:<10}{billed:<8}{only:<8}{fault.about}"


async def _serve(mock: "MockTeacher", host: str, port: int, tell: bool) -> "Totals":
    """Until a signal comes."""
    from chainforge.mock_teacher.serve import serve

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: there a KeyboardInterrupt ends it
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(mock, host=host, port=port) as served:
        click.echo(f"mock teacher, dialect {mock.dialect}: {served.url}  (Ctrl-C ends it)")
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(TELL_EVERY_S):
                    await stop.wait()
            if tell and not stop.is_set():
                totals = served.ledger.totals()
                click.echo(f"{totals.requests} requests, {totals.answers} answers, ${totals.billed_usd:f}")
    return served.ledger.totals()


def table(totals: "Totals") -> Iterator[str]:
    """The sums, a line each."""
    for name, value in totals.as_json().items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {what}" for what, count in value.items()) or "-"
        yield f"{name.replace('_', ' '):<24}{value}"

"""`chainforge mock-teacher`: a teacher's API on this machine, which costs nothing and fails on command."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from chainforge.cli.complete import complete, profile_names
from chainforge.cli.project import Place, from_here
from chainforge.config.loading import Choice
from chainforge.config.yaml import parse_mapping
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import Teacher
from chainforge.mock_teacher.dialects import DIALECTS
from chainforge.mock_teacher.faults import FAULTS
from chainforge.mock_teacher.ledger import Totals
from chainforge.mock_teacher.mock import PRICES, MockTeacher
from chainforge.mock_teacher.script import FaultScript
from chainforge.plugins import load_plugins, make_component
from chainforge.project.profiles import compose
from chainforge.providers.prices import FREE, Prices
from chainforge.report.shape import check_shape

NOBODY = "none"
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
def mock_teacher(list_faults: bool, host: str, port: int, **options: Any) -> None:
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
        click.echo("\n".join(format_faults()))
        return
    totals = asyncio.run(_serve(make_mock(options), host, port))
    click.echo("\n".join(format_totals(totals)))


def make_mock(options: dict[str, Any]) -> MockTeacher:
    """The teacher that the command line describes."""
    return MockTeacher(
        teachers=load_teachers(options["profile"]),
        dialect=options["dialect"],
        filler_tokens=options["filler_tokens"],
        faults=read_faults(options["faults"], options["fault_seed"], options["fault_attempts"]),
        prices=read_prices(options["prices"]),
        key=options["key"],
        latency_s=options["latency"],
        tokens_per_s=options["tokens_per_s"],
        cap=options["cap"],
        rpm=options["rpm"],
        retry_after_s=options["retry_after"],
        cache=not options["no_cache"],
        ledger=options["ledger"],
    )


def load_teachers(profile: str) -> list[Teacher]:
    """The teachers of a profile's `collect_*` sections that answer in the process."""
    if profile == NOBODY:
        return []
    teachers: list[Teacher] = []
    seen: list[Choice] = []
    for name, section in parse_mapping(compose(profile), f"profile {profile}").items():
        if not (name.startswith("collect_") and isinstance(section, dict) and "teacher" in section):
            continue
        where = f"profile {profile}: {name}.teacher"
        choice = check_shape(Choice, section["teacher"], where, "write plugin: NAME there")
        if choice in seen:
            continue
        seen.append(choice)
        teacher = make_component(load_plugins().pick("teachers", choice.plugin), choice.settings)
        if hasattr(teacher, "generate"):
            teachers.append(teacher)
    if not teachers:
        raise ChainForgeError(
            f"profile {profile!r} has no teacher that answers without an API",
            f"name another profile, or filler alone: --profile {NOBODY}",
        )
    return teachers


def read_faults(text: str | None, seed: int | None, attempts: int | None) -> FaultScript:
    """What --faults says: a file if there is no = or @ in it, or a file of that name."""
    script = FaultScript()
    if text:
        path = from_here(Path(text), click.get_current_context(silent=True))
        is_file = not {"=", "@"} & set(text) or os.path.isfile(path)
        script = FaultScript.read(path) if is_file else FaultScript.parse(text)
    return replace(
        script,
        seed=script.seed if seed is None else seed,
        attempts=script.attempts if attempts is None else attempts,
    )


def read_prices(text: str | None) -> Prices:
    """`free`, or three prices."""
    if text is None:
        return PRICES
    if text == "free":
        return FREE
    try:
        hit, miss, output = map(Decimal, text.split(","))
        if not min(hit, miss, output) >= 0:
            raise ValueError
    except (ValueError, InvalidOperation):
        raise ChainForgeError(
            f"--prices {text!r}", "write free, or HIT,MISS,OUTPUT: 0.003,0.15,0.60"
        ) from None
    return replace(PRICES, hit=hit, miss=miss, output=output)


def format_faults() -> Iterator[str]:
    """A line per fault."""
    yield f"{'FAULT':<30}{'THEN':<10}{'BILLED':<8}{'ONLY':<8}WHAT"
    for fault in FAULTS.values():
        billed = "yes" if fault.billed else "no"
        yield f"{fault.name:<30}{fault.then:<10}{billed:<8}{fault.only or '':<8}{fault.about}"


async def _serve(mock: MockTeacher, host: str, port: int) -> Totals:
    """Until a signal comes."""
    try:
        from chainforge.mock_teacher.serve import serve
    except ImportError:
        raise ChainForgeError(
            "chainforge mock-teacher needs the package aiohttp", "pip install 'chainforge-r1[mock-teacher]'"
        ) from None

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: there a KeyboardInterrupt ends it
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(mock, host=host, port=port) as served:
        click.echo(f"mock teacher, dialect {mock.dialect}: {served.url}  (Ctrl-C ends it)")
        await stop.wait()
    return served.ledger.totals()


def format_totals(totals: Totals) -> Iterator[str]:
    """The sums, a line each."""
    for name, value in totals.as_json().items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {what}" for what, count in value.items()) or "-"
        yield f"{name.replace('_', ' '):<24}{value}"

"""Which request meets which fault."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chainforge.config.types import Count, Fraction, Positive, SecondsOr0
from chainforge.config.yaml import parse_yaml
from chainforge.errors import ChainForgeError, unknown
from chainforge.mock_teacher.faults import FAULTS, Fault
from chainforge.mock_teacher.request import Label

PART = re.compile(r"\s*(\w+)\s*(=|@)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultScript:
    """Faults by chance, though the same chance each time.

    `rates` are fractions of the samples, at most 1 in sum; which sample it is, and so which fault it meets,
    follows from `seed`, prompt, sample and attempt alone. Only the first `attempts` attempts of a sample meet
    one, so that the next succeeds. A fault that a prompt gets however often it is asked ("skip") follows from
    seed and prompt alone. With `after`, from its Nth request on the server has that fault for everybody.

    `retry_after_s` is what Retry-After says, `blank_s` the time between blank lines, and `drip_s` the time
    that a body takes byte by byte, in seconds.
    """

    rates: Mapping[str, Fraction] = field(default_factory=dict)
    after: Mapping[str, Positive] = field(default_factory=dict)
    seed: int = 0
    attempts: Count = 1
    retry_after_s: SecondsOr0 = 1.0
    blank_s: SecondsOr0 = 0.02
    drip_s: SecondsOr0 = 2.0

    def __post_init__(self) -> None:
        for name in (*self.rates, *self.after):
            if name not in FAULTS:
                raise unknown("fault", name, FAULTS)
        if sum(self.rates.values()) > 1 + 1e-9:
            raise ChainForgeError(f"the rates of the faults are {dict(self.rates)}", "their sum is at most 1")

    @staticmethod
    def read(path: Path) -> "FaultScript":
        """From YAML with these fields. Raises ChainForgeError."""
        if not path.is_file():
            raise ChainForgeError(
                f"there is no file {path}",
                "name a YAML file of faults, or write NAME=RATE: see --list-faults",
            )
        content = parse_yaml(path.read_bytes(), str(path))
        return _validate({} if content is None else content, str(path))

    @staticmethod
    def parse(text: str) -> "FaultScript":
        """From NAME=RATE and NAME@REQUEST, with commas between. Raises ChainForgeError."""
        values: dict[str, dict[str, str]] = {"rates": {}, "after": {}}
        for part in text.split(","):
            if not (match := PART.fullmatch(part)):
                raise ChainForgeError(
                    f"faults: {part!r} is not NAME=RATE", "for example rate_limited=0.1,payment_required@500"
                )
            name, sign, value = match.groups()
            values["rates" if sign == "=" else "after"][name] = value
        return _validate(values, "faults")

    def choose(self, label: Label, number: int) -> Fault | None:
        """What the server's `number`-th request meets, counted from 1."""
        for name, first in self.after.items():
            if number >= first:
                return FAULTS[name]
        lasting = [name for name in self.rates if FAULTS[name].then == "skip"]
        if found := self._draw(lasting, f"{self.seed}/{label.prompt}"):
            return found
        if label.attempt >= self.attempts:
            return None
        passing = [name for name in self.rates if FAULTS[name].then != "skip"]
        return self._draw(passing, f"{self.seed}/{label.prompt}/{label.sample}/{label.attempt}")

    def _draw(self, names: Iterable[str], place: str) -> Fault | None:
        drawn = int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest()) / 2**64
        for name in names:
            drawn -= self.rates[name]
            if drawn < 0:
                return FAULTS[name]
        return None


def _validate(values: Any, where: str) -> FaultScript:
    if not isinstance(values, Mapping):
        raise ChainForgeError(f"{where}: not a mapping", "write rates: {rate_limited: 0.1}")
    known = [setting.name for setting in fields(FaultScript)]
    for name in values:
        if name not in known:
            raise unknown("setting of the faults", str(name), known)
    try:
        return TypeAdapter(FaultScript).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ChainForgeError(
            f"{where}: {place}: {first['msg']}",
            "rates are numbers from 0 to 1, requests are counted from 1, attempts and seconds from 0",
        ) from None

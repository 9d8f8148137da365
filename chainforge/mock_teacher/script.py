"""Which request meets which fault."""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chainforge.config.yaml import parse_yaml
from chainforge.errors import ChainForgeError, unknown
from chainforge.mock_teacher.asked import Label
from chainforge.mock_teacher.faults import FAULTS, Fault

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

    rates: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    attempts: int = 1
    retry_after_s: float = 1.0
    blank_s: float = 0.02
    drip_s: float = 2.0

    def __post_init__(self) -> None:
        for name in (*self.rates, *self.after):
            if name not in FAULTS:
                raise unknown("fault", name, FAULTS)
        if not all(0 <= rate <= 1 for rate in self.rates.values()) or sum(self.rates.values()) > 1 + 1e-9:
            raise ChainForgeError(
                f"the rates of the faults are {dict(self.rates)}",
                "each is a fraction of the samples, 0 to 1, and so is their sum",
            )
        if any(first < 1 for first in self.after.values()):
            raise ChainForgeError(f"faults after {dict(self.after)}", "requests are counted from 1")
        times = (self.attempts, self.retry_after_s, self.blank_s, self.drip_s)
        if not all(0 <= value < math.inf for value in times):
            raise ChainForgeError(f"attempts and seconds are {times}", "none of them is below 0")

    @staticmethod
    def read(path: Path) -> "FaultScript":
        """From YAML with these fields."""
        if not path.is_file():
            raise ChainForgeError(
                f"there is no file {path}",
                "name a YAML file of faults, or write NAME=RATE: see --list-faults",
            )
        loaded = parse_yaml(path.read_bytes(), str(path))
        return _checked({} if loaded is None else loaded, str(path))

    @staticmethod
    def parse(text: str) -> "FaultScript":
        """From NAME=RATE and NAME@REQUEST, with commas between."""
        rates: dict[str, str] = {}
        after: dict[str, str] = {}
        for part in text.split(","):
            if not (match := PART.fullmatch(part)):
                raise ChainForgeError(
                    f"faults: {part!r} is not NAME=RATE", "for example rate_limited=0.1,payment_required@500"
                )
            name, sign, value = match.groups()
            (rates if sign == "=" else after)[name] = value
        return _checked({"rates": rates, "after": after}, "faults")

    def fault(self, label: Label, number: int) -> Fault | None:
        """What the request meets that is the server's so-manyeth, counted from 1."""
        reached = [name for name, first in self.after.items() if number >= first]
        if reached:
            return FAULTS[reached[0]]
        if not self.rates:
            return None
        lasting = [name for name in self.rates if FAULTS[name].then == "skip"]
        if found := self._drawn(lasting, f"{self.seed}/{label.prompt}"):
            return found
        if label.attempt >= self.attempts:
            return None
        passing = [name for name in self.rates if FAULTS[name].then != "skip"]
        return self._drawn(passing, f"{self.seed}/{label.prompt}/{label.sample}/{label.attempt}")

    def _drawn(self, names: Iterable[str], place: str) -> Fault | None:
        drawn = int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest()) / 2**64
        for name in names:
            drawn -= self.rates[name]
            if drawn < 0:
                return FAULTS[name]
        return None


def _checked(values: Any, where: str) -> FaultScript:
    if not isinstance(values, Mapping):
        raise ChainForgeError(f"{where}: not a mapping", "write rates: {rate_limited: 0.1}")
    known = [option.name for option in fields(FaultScript)]
    for name in values:
        if name not in known:
            raise unknown("setting of the faults", str(name), known)
    try:
        return TypeAdapter(FaultScript).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ChainForgeError(f"{where}: {place}: {first['msg']}", "rates are numbers from 0 to 1") from None

"""A contract is a list of laws; checking one gives a finding for each, and never stops half-way."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chainforge.containment import no_leaving, printing_to_stderr
from chainforge.errors import ChainForgeError, describe
from chainforge.scoring.limits import TimeOut, time_limit

LIMIT_S = 600.0  # for one law: a teacher or a student model may well take minutes
LATE = f"did not end within {LIMIT_S:g} s"
Subject = TypeVar("Subject")
Law = tuple[str, Callable[[Subject], str | None]]  # its title; raises if broken, may return a remark


class Breach(Exception):
    """A law is broken: one line that says how."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One law, whether it holds, and a remark or how it is broken."""

    law: str
    holds: bool
    detail: str = ""

    def __str__(self) -> str:
        return f"{'ok' if self.holds else 'FAILED':<8}{self.law}{': ' * bool(self.detail)}{self.detail}"


def check(laws: Iterable[Law[Subject]], subject: Subject) -> list[Finding]:
    """A finding per law. A plugin may raise whatever it likes: that is a finding too."""
    findings = []
    for title, law in laws:
        try:
            with printing_to_stderr(), no_leaving(), time_limit(LIMIT_S, f"{title}: {LATE}"):
                remark = law(subject) or ""
            findings.append(Finding(title, True, remark))
        except Breach as breach:
            findings.append(Finding(title, False, str(breach)))
        except ChainForgeError as error:
            findings.append(Finding(title, False, f"{error.problem} -> {error.fix}"))
        except KeyboardInterrupt:
            raise
        except TimeOut:
            findings.append(Finding(title, False, LATE))
        except BaseException as error:
            findings.append(Finding(title, False, f"raised {describe(error)}"))
    return findings


def demand(holds: object, problem: str) -> None:
    """Raise Breach unless it holds."""
    if not holds:
        raise Breach(problem)


def insist(who: str, findings: Sequence[Finding]) -> None:
    """Raise AssertionError that lists every broken law."""
    if broken := [finding for finding in findings if not finding.holds]:
        raise AssertionError("\n".join([f"{who} breaks its contract:", *map(str, broken)]))

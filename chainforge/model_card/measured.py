"""What a checkpoint was measured to do: evaluations of these very weights, and no others."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainforge.model_card.lineage import File, is_as_recorded
from chainforge.report.evaluations import evaluation_step, read_numbers


@dataclass(frozen=True, slots=True)
class Measured:
    """One bench: the figures (fractions 0…1, None is unknown) and the conditions."""

    bench: str
    figures: Mapping[str, float | None]
    conditions: Mapping[str, Any]

    @property
    def samples(self) -> int:
        """Answers per problem."""
        return int(self.figures.get("k") or 1)

    def value(self, name: str, *, low: str = "", high: str = "") -> str:
        """A share in percent with its interval: `38.9% (37.4–40.5)`; – where it was not measured."""
        found = [self.figures.get(key) for key in (name, low or f"{name}_ci95_lo", high or f"{name}_ci95_hi")]
        if found[0] is None:
            return "–"
        interval = "" if None in found else f" ({100 * (found[1] or 0):.1f}–{100 * (found[2] or 0):.1f})"
        return f"{100 * found[0]:.1f}%{interval}"


def measured(
    checkpoint: str, weights: str, benches: Iterable[str], recorded: Mapping[str, Any]
) -> list[Measured]:
    """The evaluations in dvc.lock that read weights of this digest, with files that lie here unchanged."""
    return [found for bench in benches if (found := _measured(checkpoint, weights, bench, recorded))]


def _measured(checkpoint: str, weights: str, bench: str, recorded: Mapping[str, Any]) -> Measured | None:
    stage = recorded.get(evaluation_step(checkpoint, bench), {})
    read = {dep["path"]: dep.get("md5") for dep in stage.get("deps", [])}
    if not weights or read.get(f"checkpoints/{checkpoint}") != weights:
        return None
    wrote = {Path(out["path"]).name: File(out["path"], out.get("md5", "")) for out in stage.get("outs", [])}
    figures, record = wrote.get(f"{bench}.json"), wrote.get(f"{bench}.record.json")
    if not (figures and record and is_as_recorded(figures) and is_as_recorded(record)):
        return None
    conditions = json.loads(Path(record.path).read_text(encoding="utf-8"))
    return Measured(bench, read_numbers(Path(figures.path)), conditions)

"""What the numbers say: the stage table, paired comparisons with the parent, accuracy per family."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from chainforge.algorithms.statistics import mean_interval, paired_difference
from chainforge.errors import ChainForgeError
from chainforge.report.evaluations import Cell, Curve, Funnel, Problem, read_cell, read_curve, read_funnels
from chainforge.report.shape import read_shaped
from chainforge.report.subject import Subject

RL_STEPS = ("grpo_reasoning", "grpo_final")


@dataclass(frozen=True, slots=True)
class StageRow:
    """One checkpoint on one bench, the fields of `stages.json`. Fractions 0…1; None is unknown."""

    checkpoint: str
    bench: str
    n: int
    pass_at_1: float
    ci95_lo: float | None
    ci95_hi: float | None
    maj_at_k: float | None
    k: int
    format_rate: float | None
    mean_tokens: float | None
    truncated_rate: float | None
    maj_at_k_ci95_lo: float | None = None
    maj_at_k_ci95_hi: float | None = None
    pass_at_k: float | None = None
    pass_at_k_ci95_lo: float | None = None
    pass_at_k_ci95_hi: float | None = None
    greedy: float | None = None
    greedy_ci95_lo: float | None = None
    greedy_ci95_hi: float | None = None
    strict: float | None = None
    strict_ci95_lo: float | None = None
    strict_ci95_hi: float | None = None
    lenient: float | None = None
    lenient_ci95_lo: float | None = None
    lenient_ci95_hi: float | None = None


# What an evaluation of an earlier version lacks: every field with a default.
ADDED = tuple(field.name for field in fields(StageRow) if field.default is not MISSING)


@dataclass(frozen=True, slots=True)
class PairedRow:
    """A checkpoint less its parent on the same `n` problems, the fields of `paired.json`."""

    bench: str
    checkpoint: str
    parent: str
    n: int
    difference: float
    ci95_lo: float
    ci95_hi: float
    p_value: float


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """A checkpoint's pass@1 on one family of problems, the fields of `families.json`."""

    bench: str
    family: str
    checkpoint: str
    n: int
    pass_at_1: float
    ci95_lo: float
    ci95_hi: float


@dataclass(frozen=True, slots=True)
class Results:
    """Everything the report shows but the sample completions."""

    cells: tuple[Cell, ...]  # recipe order, then bench
    stages: tuple[StageRow, ...]
    paired: tuple[PairedRow, ...]
    families: tuple[FamilyRow, ...]
    rl: Mapping[str, Curve]  # the RL steps that ran
    sft: tuple[Curve, ...]
    funnels: tuple[Funnel, ...]


def read_results(root: Path, subject: Subject) -> Results:
    """Read and compute. Raises ChainForgeError if a listed checkpoint was not evaluated."""
    cells = tuple(
        read_cell(root, checkpoint, bench, subject.reward)
        for checkpoint in subject.checkpoints
        for bench in subject.benches
    )
    plots = root / "plots"
    rl = {name: curve for name in RL_STEPS if (curve := read_curve(plots / f"{name}.csv"))}
    sft_files = [*sorted(plots.glob("sft_*.csv")), *sorted((plots / "distill").glob("*.csv"))]
    sft = tuple(curve for path in sft_files if (curve := read_curve(path)))
    return Results(
        cells,
        tuple(map(stage_row, cells)),
        tuple(compare_with_parents(cells, subject.parents)),
        tuple(row for cell in cells for row in family_rows(cell)),
        rl,
        sft,
        read_funnels(root),
    )


def stage_row(cell: Cell) -> StageRow:
    known, k = cell.metrics, int(cell.required("k"))
    at_k = f"pass_at_{k}"
    told = {
        name.replace(at_k, "pass_at_k"): value for name, value in known.items() if k > 1 or at_k not in name
    }
    return StageRow(
        checkpoint=cell.checkpoint,
        bench=cell.bench,
        n=int(cell.required("n")),
        pass_at_1=cell.required("pass_at_1"),
        ci95_lo=known["ci95_lo"],
        ci95_hi=known["ci95_hi"],
        maj_at_k=known["maj_at_k"],
        k=k,
        format_rate=known["format_rate"],
        mean_tokens=known["mean_tokens"],
        truncated_rate=known["truncated_rate"],
        **{name: told.get(name) for name in ADDED},
    )


def compare_with_parents(cells: Sequence[Cell], parents: Mapping[str, str]) -> Iterable[PairedRow]:
    """Each checkpoint against its parent where both were evaluated, over the problems graded in both."""
    by_name = {(cell.checkpoint, cell.bench): cell for cell in cells}
    for cell in cells:
        parent = by_name.get((parents.get(cell.checkpoint, ""), cell.bench))
        if parent is not None:
            yield compare(cell, parent)


def compare(cell: Cell, parent: Cell) -> PairedRow:
    mine, theirs = correctness_by_id(cell.problems.values()), correctness_by_id(parent.problems.values())
    shared = [prompt_id for prompt_id in mine if prompt_id in theirs]
    if not shared:
        raise ChainForgeError(
            f"{cell.checkpoint} and {parent.checkpoint} have no graded problem of {cell.bench} in common",
            "evaluate both on the same held-out prompts",
        )
    paired = paired_difference([mine[i] for i in shared], [theirs[i] for i in shared])
    numbers = (paired.mean_difference, paired.lo, paired.hi, paired.p_value)
    return PairedRow(cell.bench, cell.checkpoint, parent.checkpoint, len(shared), *map(round_figure, numbers))


def family_rows(cell: Cell) -> Iterable[FamilyRow]:
    families: dict[str, list[float]] = {}
    for problem in cell.problems.values():
        if problem.correct is not None:
            families.setdefault(problem.family, []).append(problem.correct)
    for family, values in sorted(families.items()):
        mean, lo, hi = map(round_figure, mean_interval(values))
        yield FamilyRow(cell.bench, family, cell.checkpoint, len(values), mean, lo, hi)


def correctness_by_id(problems: Iterable[Problem]) -> dict[str, float]:
    """Correctness by prompt id, without the problems that no grader could judge."""
    return {p.prompt_id: p.correct for p in problems if p.correct is not None}


def round_figure(value: float) -> float:
    """Six significant digits: enough to read, and the same on machines that differ in the last bit."""
    return float(f"{value:.6g}")


def stage_rows(path: Path) -> list[StageRow]:
    """The rows of a finished report's stages.json. Raises ChainForgeError where it is no such file."""
    rows: list[StageRow] = read_shaped(list[StageRow], path, "write it again: dvc repro report")
    return rows


def as_rows(rows: Iterable[StageRow | PairedRow | FamilyRow]) -> list[dict[str, str | float | None]]:
    """JSON-ready, in the order of the fields."""
    return [asdict(row) for row in rows]

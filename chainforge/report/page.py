"""The page: results, figures and sample completions in one HTML file that opens without a network."""

import math
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from markupsafe import Markup, escape

from chainforge.algorithms.statistics import SIGNIFICANT
from chainforge.defuse import defuse
from chainforge.rendering import content_policy, page_templates
from chainforge.report import figures
from chainforge.report.evaluations import Curve
from chainforge.report.figures import BLUE, GREEN, ORANGE, Line, Panel, line
from chainforge.report.funnel import funnel_panel, funnel_rows, in_words, is_sequence
from chainforge.report.results import RL_STEPS, PairedRow, Results
from chainforge.report.samples import Shown
from chainforge.report.scores import bench_scores
from chainforge.report.subject import Subject
from chainforge.report.table import percent
from chainforge.report.watched import Watched

HERE = Path(__file__).parent
CAPTIONS = {
    "base": "the base model, untouched",
    "qwen_sft_ckpt": "cold-start SFT",
    "qwen_rl_ckpt_stage2": "GRPO for reasoning",
    "qwen_sft_ckpt_stage3": "rejection sampling + second SFT",
    "qwen_rl_ckpt_final": "final GRPO",
    "qwen_distilled_student": "distilled student",
    "qwen_student_cold_start": "same student, cold-start data only",
}
RUN_COLOURS = {"grpo_reasoning": BLUE, "grpo_final": ORANGE}
RL_PANELS = (  # column, title, whether it is a share
    ("reward", "Total reward", False),
    ("completions/mean_length", "Mean length (tokens)", False),
    ("entropy", "Entropy (nats per token)", False),
    ("kl", "KL to the reference (nats per token)", False),
    ("frac_reward_zero_std", "Groups without a signal", True),
    ("completions/clipped_ratio", "Completions cut off", True),
)


def render_page(results: Results, shown: Sequence[Shown], seen: Sequence[Watched], subject: Subject) -> str:
    """The whole `index.html`."""
    templates = page_templates(HERE, percent, points, gain, significance, standing, number, breakable)
    numbers = count(1)
    script = (HERE / "unfold.js").read_text(encoding="utf-8")

    def show(svg: str, description: str) -> Markup:
        return Markup(figures.inline(svg, f"f{next(numbers)}", description))

    page = templates.get_template("page.html.j2").render(
        subject=subject,
        results=results,
        captions=CAPTIONS,
        stages={(row.checkpoint, row.bench): row for row in results.stages},
        paired={(row.checkpoint, row.bench): row for row in results.paired},
        heat={(row.bench, row.family, row.checkpoint): row for row in results.families},
        families={
            bench: sorted({row.family for row in results.families if row.bench == bench})
            for bench in subject.benches
        },
        scores={bench: bench_scores(results.cells, bench) for bench in subject.benches},
        aha=[
            show(figures.panel(c, t, percent=p, width=460, height=280), t)
            for t, c, p in aha(results, subject)
        ],
        change=change(results, subject),
        rl=[show(figures.panel(c, t, percent=p), t) for t, c, p in rl_panels(results)],
        absent_rl=[step for step in RL_STEPS if step not in results.rl],
        without_kl=[name for name, curve in results.rl.items() if not curve.has("kl")],
        watched=[(it, show(figures.panel(it.lines, it.step), f"Watch of {it.step}")) for it in seen],
        accuracy=[show(*accuracy(results, bench)) for bench in subject.benches if results.stages],
        sft=[show(figures.panel(sft_lines(c), c.name), f"Loss of {c.name}") for c in results.sft],
        funnels=[(funnel, funnel_rows(funnel)) for funnel in results.funnels if not is_sequence(funnel)],
        pictures=[
            (funnel.name, show(funnel_panel(funnel), f"What {funnel.name} left"), in_words(funnel))
            for funnel in results.funnels
            if is_sequence(funnel)
        ],
        samples=shown,
        script=Markup(script),
        policy=content_policy(script, "img-src data:"),
    )
    return defuse(page)


def overview(results: Results, subject: Subject) -> str:
    """`curves.svg`: the RL step that reasons, and held-out accuracy on the first bench."""
    bench = subject.benches[0] if subject.benches else None
    rows = [row for row in results.stages if row.bench == bench]
    return defuse(figures.overview("grpo_reasoning", aha(results, subject), rows, CAPTIONS))


def aha(results: Results, subject: Subject) -> list[Panel]:
    """Accuracy and length during `grpo_reasoning`."""
    curve = results.rl.get("grpo_reasoning")
    if curve is None:
        return []
    panels = (
        (f"rewards/{subject.reward}/mean", "Accuracy on training prompts", BLUE, True),
        ("completions/mean_length", "Mean length (tokens)", ORANGE, False),
    )
    return [(title, [line(curve, c, "", colour)], p) for c, title, colour, p in panels if curve.has(c)]


def change(results: Results, subject: Subject) -> dict[str, tuple[float, float]]:
    """Means over the first and the last tenth of `grpo_reasoning`, for the sentence above the figure."""
    curve = results.rl.get("grpo_reasoning")
    columns = {"accuracy": f"rewards/{subject.reward}/mean", "length": "completions/mean_length"}
    return {key: ends(curve, column) for key, column in columns.items() if curve and curve.has(column)}


def ends(curve: Curve, column: str) -> tuple[float, float]:
    values = [value for value in curve.columns[column] if not math.isnan(value)]
    tenth = max(1, len(values) // 10)
    return math.fsum(values[:tenth]) / tenth, math.fsum(values[-tenth:]) / tenth


def rl_panels(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for column, title, share in RL_PANELS:
        runs = [(name, curve) for name, curve in results.rl.items() if curve.has(column)]
        if runs:
            lines = [line(curve, column, name, RUN_COLOURS[name]) for name, curve in runs]
            panels.append((title, lines, share))
    return panels


def accuracy(results: Results, bench: str) -> tuple[str, str]:
    """The figure, and its description for those who cannot see it."""
    rows = [row for row in results.stages if row.bench == bench]
    said = ", ".join(f"{row.checkpoint} {percent(row.pass_at_1)}" for row in rows)
    return figures.accuracy_panel(rows, CAPTIONS, f"pass@1 on {bench}"), f"pass@1 on {bench}: {said}"


def sft_lines(curve: Curve) -> list[Line]:
    pairs = (("loss", "training", BLUE), ("eval_loss", "held out", GREEN))
    return [line(curve, c, label, colour, smooth=c == "loss") for c, label, colour in pairs if curve.has(c)]


def points(fraction: float) -> str:
    """+16.2, in percentage points, with a true minus sign."""
    value = f"{100 * fraction:+.1f}"
    return value.replace("-", "−") if float(value) else "0.0"


def gain(row: PairedRow) -> str:
    """+16.2 points [13.9, 18.5]"""
    lo, hi = (points(limit).removeprefix("+") for limit in (row.ci95_lo, row.ci95_hi))
    return f"{points(row.difference)} points [{lo}, {hi}]"


def significance(row: PairedRow) -> str:
    """The comparison in words."""
    p = "p < 0.001" if row.p_value < 0.001 else f"p = {row.p_value:.2g}"
    words = {"better": "better than", "worse": "worse than", "same": "no significant difference from"}
    return f"{words[standing(row)]} {row.parent} ({p})"


def standing(row: PairedRow) -> str:
    """better, worse or same: the class of the words above."""
    if row.p_value >= SIGNIFICANT:
        return "same"
    return "better" if row.difference > 0 else "worse"


def breakable(name: str) -> Markup:
    """A name that may be broken after an underscore where space is short."""
    return escape(name).replace("_", Markup("_<wbr>"))


def number(value: float | None) -> str:
    """A reward or a count, short."""
    return "–" if value is None else f"{value:,.6g}"

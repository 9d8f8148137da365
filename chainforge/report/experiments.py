"""Every experiment in one table: the settings in which they differ, and pass@1 of each checkpoint."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from chainforge.report.compare.text import short
from chainforge.report.table import pad

EVALUATION = re.compile(r"metrics/eval/([^/]+)/([^/]+)[.]json")  # checkpoint, bench
SETTINGS = 5  # columns; a run of another profile differs in dozens
HEADER = 8  # characters of a column's header before it goes on below
VALUE = 16
INDENT = "  "  # before the name of what was run from the commit above
Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One line: a run by name, when it was made or what became of it, its settings, pass@1 by cell."""

    name: str
    when: str  # of a run that is not done: its state
    settings: Mapping[str, Any]  # by dotted key
    pass_at_1: Mapping[tuple[str, str], float]  # by bench and checkpoint


def read_experiments(shown: Sequence[Tree]) -> list[Experiment]:
    """From what `dvc exp show --json` prints, in its order."""
    found = []
    for baseline in shown:
        found.append(_experiment(baseline.get("name") or baseline["rev"][:9], baseline, ""))
        for entry in baseline.get("experiments") or []:
            first = entry["revs"][0]
            state = (entry.get("executor") or {}).get("state") or "success"
            found.append(_experiment(entry.get("name") or first["rev"][:7], first, state))
    return found


def with_results(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Without the commits and runs that have no result. A commit stays where an experiment below it does."""
    kept: list[Experiment] = []
    for experiment in reversed(experiments):
        heads = bool(kept) and kept[-1].name.startswith(INDENT) and not experiment.name.startswith(INDENT)
        if experiment.pass_at_1 or heads:
            kept.append(experiment)
    return kept[::-1]


def as_rows(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """JSON-ready: the settings in which they differ alone, and pass@1 by bench and checkpoint."""
    keys = changed_keys(experiments)
    rows = []
    for experiment in experiments:
        rates: dict[str, dict[str, float]] = {}
        for (bench, checkpoint), rate in experiment.pass_at_1.items():
            rates.setdefault(bench, {})[checkpoint] = rate
        rows.append(
            {
                "name": experiment.name.strip(),
                "baseline": not experiment.name.startswith(INDENT),
                "when": experiment.when,
                "settings": {key: experiment.settings.get(key) for key in keys},
                "pass_at_1": rates,
            }
        )
    return rows


def _experiment(name: str, entry: Tree, state: str) -> Experiment:
    data = entry.get("data") or {}
    made = str(data.get("timestamp") or "")
    done = state in ("", "success")
    return Experiment(
        f"{INDENT}{name}" if state else name,
        f"{made[5:10]} {made[11:16]}".strip() if done else state,
        dict(flat(_content(data.get("params"), "params.yaml"))),
        dict(_rates(data.get("metrics") or {})) if done else {},
    )


def _rates(metrics: Tree) -> Iterator[tuple[tuple[str, str], float]]:
    for file in metrics:
        rate = _content(metrics, file).get("pass_at_1")
        if rate is not None and (match := EVALUATION.fullmatch(file)):
            yield (match[2], match[1]), rate


def _content(files: Tree | None, name: str) -> Tree:
    content: Tree = ((files or {}).get(name) or {}).get("data") or {}
    return content


def flat(tree: Tree, at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def changed_keys(experiments: Sequence[Experiment]) -> list[str]:
    """The settings that are not the same in all of them."""
    known = [e.settings for e in experiments if e.settings]
    keys = dict.fromkeys(key for settings in known for key in settings)
    return [k for k in keys if any(s.get(k) != known[0].get(k) or (k in s) != (k in known[0]) for s in known)]


def format_experiments(experiments: Sequence[Experiment]) -> str:
    """For a terminal, about 150 columns wide with the recipe's twelve cells."""
    keys = changed_keys(experiments)
    cells = list(dict.fromkeys(cell for e in experiments for cell in e.pass_at_1))
    benches = dict.fromkeys(bench for bench, _ in cells)
    columns = [["experiment", *(e.name for e in experiments)], ["made", *(e.when for e in experiments)]]
    columns += [[key, *(short(e.settings.get(key), VALUE) for e in experiments)] for key in keys[:SETTINGS]]
    blocks = [_block(columns, "", left=2)]
    prefix = common_prefix([checkpoint for _, checkpoint in cells])
    for bench in benches:
        mine = [cell for cell in cells if cell[0] == bench]
        title = f"{bench}, pass@1 in %{f' ({prefix}…)' if prefix else ''}"
        rates = [[c[1].removeprefix(prefix), *(_rate(e, c) for e in experiments)] for c in mine]
        blocks.append(_block(rates, title, left=0))
    height = max(len(block) for block in blocks)
    padded = [[" " * len(block[0])] * (height - len(block)) + block for block in blocks]
    lines = [" │ ".join(parts).rstrip() for parts in zip(*padded, strict=True)]
    head = height - len(experiments)
    text = "\n".join([*lines[:head], "─" * max(map(len, lines)), *lines[head:]])
    more = keys[SETTINGS:]
    return f"{text}\n\n{len(more)} more settings differ: {', '.join(more)}" if more else text


def _rate(experiment: Experiment, cell: tuple[str, str]) -> str:
    rate = experiment.pass_at_1.get(cell)
    return "–" if rate is None else f"{100 * rate:.1f}"


def _block(columns: Sequence[Sequence[str]], title: str, *, left: int) -> list[str]:
    """Lines of equal width: the headers, bottom-aligned and each over several lines, then the values."""
    headers = [wrap_name(column[0]) for column in columns]
    height = max(map(len, headers))
    full = [[""] * (height - len(h)) + h + list(c[1:]) for h, c in zip(headers, columns, strict=True)]
    widths = [max(map(len, column)) for column in full]
    rows = zip(*full, strict=True)
    gap = "  " if left else " "
    lines = [gap.join(pad(c, widths[i], left=i < left) for i, c in enumerate(row)) for row in rows]
    width = max(len(title), len(lines[0]))
    return [line.ljust(width) for line in ([title] if title else []) + lines]


def common_prefix(names: Sequence[str]) -> str:
    """The words, each with its underscore, with which all names begin; none is left without a word."""
    beginnings = zip(*(name.split("_")[:-1] for name in names), strict=False)
    return "".join(f"{words[0]}_" for words in takewhile(lambda words: len(set(words)) == 1, beginnings))


def wrap_name(name: str) -> list[str]:
    """A name in short lines: broken at dots and underscores where it is too long for one."""
    lines = [""]
    for part in name.replace(".", ".\0").replace("_", "_\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part.rstrip("_.")) > HEADER:
            lines.append("")
        lines[-1] += part
    return [line.rstrip("_") for line in lines]

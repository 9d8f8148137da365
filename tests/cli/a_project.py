"""What a run would have left in a project."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from click.testing import Result

from chainforge.report.results import ADDED

ROW: dict[str, Any] = {
    "checkpoint": "qwen_sft_ckpt", "bench": "reasoning", "n": 24, "pass_at_1": 0.125, "ci95_lo": 0.0625,
    "ci95_hi": 0.25, "maj_at_k": None, "k": 2, "format_rate": 1, "mean_tokens": 31.5, "truncated_rate": 0.0,
    **dict.fromkeys(ADDED, 0.25),
}  # fmt: skip
Run = Callable[..., Result]


def write_results(folder: Path, value: Any) -> None:
    (folder / "reports").mkdir(exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / "reports/stages.json").write_text(text)


def write_log(folder: Path, step: str, value: Mapping[str, Any] | list[Any]) -> None:
    path = folder / "logs" / f"{step.replace('@', '/')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))

"""The result a person looks at: table, curves, page."""

from pathlib import Path
from typing import Any

from chainforge.config.report import ReportSection
from chainforge.graph import param, settings_of
from chainforge.inputs import held_inputs
from chainforge.plugins import load_plugins
from chainforge.report.shape import check_shape
from chainforge.report.write import ReportSettings, write_report
from chainforge.run.step import open_step, stage_main


def main(name: str) -> None:
    step, section = open_step(name), settings_of(ReportSection, name)
    settings = ReportSettings(
        checkpoints=tuple(setting("checkpoints", list[str])),
        benches=tuple(setting("benches", dict[str, Any])),
        parents=section.parents,
        reward=setting("evaluate.reward", str),
        response_format=step.response_format,
        profile=setting("profile", str),
        seed=step.settings.seed,
        note=section.note,
        samples_per_checkpoint=section.samples_per_bench,
    )
    with held_inputs(name, section, load_plugins()):
        write_report(root=Path(), out=Path("reports"), settings=settings)


def setting(dotted: str, kind: Any) -> Any:
    """What params.yaml says there. Raises ChainForgeError unless it is of that kind."""
    return check_shape(kind, param(dotted), f"params.yaml: {dotted}", "correct it in params.yaml")


if __name__ == "__main__":
    stage_main(main)

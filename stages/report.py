"""The result a person looks at: table, curves, page."""

from pathlib import Path

from chainforge.config.loading import read_params
from chainforge.config.report import ReportSection
from chainforge.graph import settings_of
from chainforge.inputs import held_inputs
from chainforge.plugins import load_plugins
from chainforge.report.write import ReportSettings, write_report
from chainforge.run.step import open_step, stage_main


def main(name: str) -> None:
    step, section, params = open_step(name), settings_of(ReportSection, name), read_params()
    settings = ReportSettings(
        checkpoints=tuple(params["checkpoints"]),
        benches=tuple(params["benches"]),
        parents=section.parents,
        reward=params["evaluate"]["reward"],
        response_format=step.response_format,
        profile=params["profile"],
        seed=step.settings.seed,
        note=section.note,
        samples_per_checkpoint=section.samples_per_bench,
    )
    with held_inputs(name, section, load_plugins()):
        write_report(root=Path(), out=Path("reports"), settings=settings)


if __name__ == "__main__":
    stage_main(main)

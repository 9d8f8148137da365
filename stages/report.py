"""The result a person looks at: table, curves, page."""

from pathlib import Path

from chainforge.config.loading import read_params
from chainforge.config.report import ReportSection
from chainforge.report.write import ReportSettings, write_report
from chainforge.stage import Run, stage, stage_main


@stage(ReportSection)
def main(run: Run[ReportSection]) -> None:
    section, params = run.settings, read_params()
    settings = ReportSettings(
        checkpoints=tuple(params["checkpoints"]),
        benches=tuple(params["benches"]),
        parents=section.parents,
        reward=params["evaluate"]["reward"],
        response_format=run.step.response_format,
        profile=params["profile"],
        seed=run.step.settings.seed,
        note=section.note,
        samples_per_checkpoint=section.samples_per_bench,
    )
    write_report(root=Path(), out=Path("reports"), settings=settings)


if __name__ == "__main__":
    stage_main(main)

"""The result a person looks at: table, curves, page."""

from pathlib import Path
from typing import Any

from chainforge.config.report import ReportSettings
from chainforge.project.graph import param
from chainforge.project.stage import Run, stage, stage_main
from chainforge.report.shape import check_shape
from chainforge.report.subject import Subject
from chainforge.report.write import write_report


@stage(ReportSettings)
def main(run: Run[ReportSettings]) -> None:
    subject = Subject(
        **dict(run.settings),
        checkpoints=(*setting("untouched", list[str]), *setting("checkpoints", list[str])),
        benches=tuple(setting("benches", dict[str, Any])),
        reward=setting("evaluate.reward", str),
        response_format=run.step.response_format,
        profile=setting("profile", str),
        seed=run.step.settings.seed,
    )
    write_report(root=Path(), out=Path("reports"), subject=subject)


def setting(dotted: str, kind: Any) -> Any:
    """What params.yaml says there. Raises ChainForgeError unless it is of that kind."""
    return check_shape(kind, param(dotted), f"params.yaml: {dotted}", "correct it in params.yaml")


if __name__ == "__main__":
    stage_main(main)

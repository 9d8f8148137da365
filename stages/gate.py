"""Hold a checkpoint against its parent before a step that goes on from it: `gate@STEP`."""

from pathlib import Path

from chainforge.config.gate import GateSettings
from chainforge.outputs import write_text
from chainforge.project.gates import OPEN, gate_file
from chainforge.project.stage import Run, stage, stage_main
from chainforge.report.compare.gate import compare_on_guards, figures_of_gate, pass_or_raise
from chainforge.run.progress import say


@stage(GateSettings)
def main(run: Run[GateSettings]) -> None:
    guarded = run.step.name.partition("@")[2]
    found = compare_on_guards(Path(), run.settings)
    run.step.finish(figures_of_gate(found))
    say(f"{run.step.name}: {pass_or_raise(guarded, found, run.settings)}")
    write_text(gate_file(guarded), OPEN)


if __name__ == "__main__":
    stage_main(main)

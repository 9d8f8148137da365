"""The problems of one benchmark: `bench@BENCH`."""

from chainforge.config.bench import BenchSettings, bench_file
from chainforge.jsonl import read_records, write_records
from chainforge.loops.prompts import refuse_trained, unique
from chainforge.plugins import prompts_from
from chainforge.project.graph import outputs, read_graph
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Prompt


@stage(BenchSettings)
def main(run: Run[BenchSettings]) -> None:
    settings, bench = run.settings, run.step.name.partition("@")[2]
    if settings.source is None:
        assert settings.prompts is not None, "the settings have one or the other"
        prompts = read_records(settings.prompts, Prompt)
    else:
        where = f"benches.{bench}"
        source = run.plugins.pick("prompt_sources", settings.source.plugin)
        seed, wanted = run.step.seed(), settings.eval
        given = prompts_from(source, settings.source.settings, split="eval", n=wanted, seed=seed)
        prompts = unique(where, "eval", given, wanted)
        sets = [step for step in read_graph().values() if step.verb == "prompts"]
        written = [path for step in sets for path in outputs(step) if path.stem.endswith("_train")]
        for path in written:
            refuse_trained(where, read_records(path, Prompt), prompts)
    write_records(bench_file(bench), prompts)


if __name__ == "__main__":
    stage_main(main)

"""The problems of one benchmark: `bench@BENCH`."""

from functools import partial

from chainforge.config.bench import BenchSettings, bench_file
from chainforge.jsonl import read_records, write_records
from chainforge.loops.development import development
from chainforge.loops.prompts import refuse_trained, unique
from chainforge.plugins import prompts_from
from chainforge.project.graph import outputs, param, read_graph
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
        ask = partial(prompts_from, source, settings.source.settings, seed=run.step.seed())
        wanted = settings.eval
        prompts = unique(where, "eval", ask(split="eval", n=wanted), wanted)
        sets = [step for step in read_graph().values() if step.verb == "prompts"]
        written = [path for step in sets for path in outputs(step) if path.stem.endswith("_train")]
        trained = [prompt for path in written for prompt in read_records(path, Prompt)]
        if param("evaluate.split") == "dev":
            side = settings.dev_from
            more = ask(split=side, n=settings.dev + (wanted if side == "eval" else len(trained)))
            prompts = development(where, more, settings.dev, [*trained, *prompts])
        refuse_trained(where, trained, prompts)
    write_records(bench_file(bench), prompts)


if __name__ == "__main__":
    stage_main(main)

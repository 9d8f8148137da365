"""Keep the traces that are worth copying."""

from chainforge.config.filter import FilterSettings
from chainforge.errors import ChainForgeError
from chainforge.filtering.card.read_calls import read_calls
from chainforge.filtering.card.write import DataSet, data_card
from chainforge.filtering.contamination import Benchmarks
from chainforge.filtering.decisions import decisions_file, write_decisions
from chainforge.jsonl import read_records, write_records
from chainforge.loops.filter import select_traces
from chainforge.outputs import write_text
from chainforge.project.graph import dependencies, step_of
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Prompt, Trace
from chainforge.run.step import LOGS, reward_log
from chainforge.wiring import make_scorer


@stage(FilterSettings)
def main(run: Run[FilterSettings]) -> None:
    step, settings = run.step, run.settings
    if unwatched := set(settings.decontaminate) - set(dependencies(step_of(step.name))):
        raise ChainForgeError(
            f"filter.decontaminate names {min(unwatched)}, which dvc.yaml does not list for {step.name}",
            f"add it to the deps of {step.name} in dvc.yaml, so that a change of it is noticed",
        )
    reward_log(step.name).unlink(missing_ok=True)  # a filter never goes on from an earlier run
    scorer = make_scorer(run.plugins, {settings.reward: 1.0}, step, settings.reward_settings)
    prompts = {prompt.id: prompt for prompt in read_records(settings.prompts, Prompt)}
    scorer.check(prompts.values())
    traces = read_records(settings.traces, Trace)
    calls = read_calls(settings.calls, settings.traces)
    evaluation = {str(path): read_records(path, Prompt) for path in settings.decontaminate}
    benchmarks = Benchmarks.of(evaluation.values(), settings.decontaminate_words)
    examples, funnel = select_traces(traces, prompts, scorer, settings, benchmarks)
    write_decisions(traces, funnel, decisions_file(LOGS, step.file_name))
    if not examples:
        raise ChainForgeError(
            f"no trace was accepted: {funnel.counts}", "look at the traces, then at filter.reward"
        )
    write_records(settings.output, examples)
    data = DataSet(
        settings=settings,
        prompts=prompts,
        calls=calls,
        examples=examples,
        funnel=funnel,
        benchmarks={path: len(asked) for path, asked in evaluation.items()},
        response_format=step.response_format,
    )
    write_text(settings.card, data_card(data))
    step.finish(funnel.counts)


if __name__ == "__main__":
    stage_main(main)

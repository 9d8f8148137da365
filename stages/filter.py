"""Keep the traces that are worth copying."""

from chainforge.config.filter import FilterSettings
from chainforge.errors import ChainForgeError
from chainforge.graph import settings_of
from chainforge.inputs import check_lock
from chainforge.jsonl import read_records, write_records
from chainforge.loops.filter import select_traces
from chainforge.plugins import load_plugins
from chainforge.records import Prompt, Trace
from chainforge.run.step import open_step, stage_main
from chainforge.wiring import make_scorer


def main(name: str) -> None:
    step, settings, plugins = open_step(name), settings_of(FilterSettings, name), load_plugins()
    check_lock(name, settings, plugins)
    scorer = make_scorer(plugins, {settings.reward: 1.0}, step)
    prompts = {prompt.id: prompt for prompt in read_records(settings.prompts, Prompt)}
    examples, counts = select_traces(read_records(settings.traces, Trace), prompts, scorer, settings)
    if not examples:
        raise ChainForgeError(f"no trace was accepted: {counts}", "look at the traces, then at filter.reward")
    write_records(settings.output, examples)
    step.finish(counts)


if __name__ == "__main__":
    stage_main(main)

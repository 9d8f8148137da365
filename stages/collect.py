"""Ask the teacher for chains of thought."""

from chainforge.config.collect import CollectSettings
from chainforge.graph import settings_of
from chainforge.inputs import inputs_of
from chainforge.jsonl import read_records, write_records
from chainforge.loops.collect import collect
from chainforge.plugins import load_plugins, plugin_settings
from chainforge.records import Prompt
from chainforge.run.step import open_step, stage_main
from chainforge.run.work import open_work


def main(name: str) -> None:
    step, settings = open_step(name), settings_of(CollectSettings, name)
    plugins = load_plugins()
    entry = plugins.pick("teachers", settings.teacher.plugin)
    teacher = entry.component(**plugin_settings(entry, settings.teacher.settings))
    prompts = read_records(settings.prompts, Prompt)[: settings.max_prompts]
    with open_work(inputs_of(name, settings, plugins), step.runtime) as work:
        write_records(settings.output, collect(teacher, prompts, settings.samples, step, work))


if __name__ == "__main__":
    stage_main(main)

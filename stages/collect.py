"""Ask the teacher for chains of thought."""

from chainforge.config.collect import CollectSettings
from chainforge.config.collector import collector_settings
from chainforge.errors import ChainForgeError
from chainforge.graph import settings_of
from chainforge.hookspecs import ApiTeacher
from chainforge.inputs import held_inputs
from chainforge.jsonl import read_records, write_records
from chainforge.loops.calls import in_process_calls
from chainforge.loops.collect import collect
from chainforge.loops.collect_api import collect_api
from chainforge.outputs import sha256_of, write_json
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
    if settings.instruction is not None and not isinstance(teacher, ApiTeacher):
        raise ChainForgeError(f"teacher {entry.name} takes no instruction", "set collect.instruction: null")
    with held_inputs(name, settings, plugins) as inputs:
        if isinstance(teacher, ApiTeacher):
            traces, calls = collect_api(teacher, prompts, settings, collector_settings(), step)
            write_records(settings.output, traces)
        else:
            with open_work(inputs, step.runtime) as work:
                traces = collect(teacher, prompts, settings.samples, step, work)
                write_records(settings.output, traces)
            calls = in_process_calls(settings.teacher, traces, getattr(teacher, "synthetic", None))
        write_json(settings.calls, calls | {"traces_sha256": sha256_of(settings.output)})


if __name__ == "__main__":
    stage_main(main)

"""Ask the teacher for chains of thought."""

from chainforge.config.collect import CollectSettings
from chainforge.config.collector import collector_settings
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.jsonl import read_records, write_records
from chainforge.loops.collect import collect, in_process_calls
from chainforge.loops.collect_api import collect_api
from chainforge.outputs import sha256_of, write_json
from chainforge.plugins import make_component
from chainforge.project.stage import Run, stage, stage_main
from chainforge.records import Prompt
from chainforge.run.work import open_work


@stage(CollectSettings)
def main(run: Run[CollectSettings]) -> None:
    step, settings = run.step, run.settings
    entry = run.plugins.pick("teachers", settings.teacher.plugin)
    teacher = make_component(entry, settings.teacher.settings)
    prompts = read_records(settings.prompts, Prompt, settings.max_prompts)
    if settings.instruction is not None and not isinstance(teacher, ApiTeacher):
        raise ChainForgeError(f"teacher {entry.name} takes no instruction", "set collect.instruction: null")
    if isinstance(teacher, ApiTeacher):
        traces, calls = collect_api(teacher, prompts, settings, collector_settings(), step)
        write_records(settings.output, traces)
    else:
        with open_work(run.inputs, step.runtime) as work:
            traces = collect(teacher, prompts, settings.samples, step, work, entry.who)
            write_records(settings.output, traces)
        calls = in_process_calls(settings.teacher, traces, getattr(teacher, "synthetic", None))
    write_json(settings.calls, calls | {"traces_sha256": sha256_of(settings.output)})


if __name__ == "__main__":
    stage_main(main)

"""What `chainforge collect` is to ask: for a step of the graph, or for a file of prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainforge.cli.plugins_check import values
from chainforge.cli.project import need_project
from chainforge.config.collect import CollectSettings
from chainforge.config.loading import Choice
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.jsonl import read_records
from chainforge.plugins import load_plugins, make_component
from chainforge.project.graph import settings_of
from chainforge.records import Prompt
from chainforge.run.fingerprint import differences
from chainforge.run.step import open_step
from chainforge.teachers.answers import journal_folder
from chainforge.teachers.paid import read_paid
from chainforge.teachers.question import Question, asked_of, questions

TEACHERS = ("deepseek", "openrouter", "vllm", "sglang", "generic", "anthropic")
OF_FILES = ("teacher", "model", "base_url", "effort", "max_tokens", "assignments", "retry_truncated")


@dataclass(frozen=True, slots=True)
class Plan:
    """`traces` is the file to write in the end; None where `dvc repro` writes it."""

    title: str
    teacher: ApiTeacher
    about: Mapping[str, Any]
    questions: list[Question]
    folder: Path
    retry_truncated: bool
    traces: Path | None


def plan_of_step(options: Mapping[str, Any]) -> Plan:
    """The questions of a step: the same that `dvc repro` asks."""
    if given := [name for name in OF_FILES if options[name]]:
        raise ChainForgeError(
            f"--{given[0].replace('_', '-').replace('assignments', 'set')} is for --problems and --out",
            f"the teacher of step {options['step']} is set in params.yaml, where dvc repro looks",
        )
    need_project()
    name = options["step"]
    settings = settings_of(CollectSettings, name)
    teacher, about = make_teacher(settings.teacher)
    prompts = read_records(settings.prompts, Prompt, options["max_problems"] or settings.max_prompts)
    samples = options["samples"] or settings.samples
    seed = open_step(name).seed("teacher")
    asked = list(questions(teacher, prompts, samples, seed, settings.instruction))
    return Plan(name, teacher, about, asked, journal_folder(name), settings.retry_truncated, None)


def plan_of_files(options: Mapping[str, Any]) -> Plan:
    """The questions about a file of prompts, into a folder that answers no others."""
    problems, folder = options["problems"], options["out"]
    if not problems or not folder:
        raise ChainForgeError("--problems and --out belong together", "name a file, and a folder for answers")
    teacher, about = make_teacher(choice_of(options))
    prompts = read_records(problems, Prompt)[: options["max_problems"]]
    asked = list(questions(teacher, prompts, options["samples"] or 1, options["seed"]))
    refuse_another_teacher(folder, teacher)
    return Plan(
        folder.name, teacher, about, asked, folder, options["retry_truncated"], folder / "traces.jsonl"
    )


def choice_of(options: Mapping[str, Any]) -> Choice:
    """The teacher that the options name: a preset of openai_compatible, or a plugin."""
    name = options["teacher"] or "deepseek"
    settings = {key: options[key] for key in ("model", "base_url", "effort", "max_tokens") if options[key]}
    settings |= values(options["assignments"])
    if name in TEACHERS and name != "anthropic":
        return Choice.model_validate({"plugin": "openai_compatible", "preset": name, **settings})
    return Choice.model_validate({"plugin": name, **settings})


def make_teacher(choice: Choice) -> tuple[ApiTeacher, Mapping[str, Any]]:
    """(the teacher, its plugin and settings for the record)."""
    entry = load_plugins().pick("teachers", choice.plugin)
    teacher = make_component(entry, choice.settings)
    if not isinstance(teacher, ApiTeacher):
        raise ChainForgeError(
            f"teacher {choice.plugin} runs here and costs nothing: there is nothing to collect",
            "dvc repro asks it; or set the step's teacher to one behind an API, such as openai_compatible",
        )
    return teacher, {"plugin": choice.plugin, **choice.settings}


def refuse_another_teacher(folder: Path, teacher: ApiTeacher) -> None:
    """Raise ChainForgeError where the folder has answers that this teacher would all pay for again."""
    before = read_paid(folder).run
    if before is None:
        return
    changed = list(differences(asked_of(before["identity"]), asked_of(teacher.identity)))
    if changed:
        what = ", ".join(f"{key} {old} -> {new}" for key, old, new in changed)
        raise ChainForgeError(
            f"{folder} was collected with other settings: {what}",
            "nothing there could be used: choose another --out, or the settings from before",
        )

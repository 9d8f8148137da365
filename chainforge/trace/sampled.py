"""What policies answered to a problem: in GRPO, in rejection sampling, and in evaluations."""

from pathlib import Path
from typing import Any

from chainforge.completions.kept import of_another_run
from chainforge.completions.rows import answers_file, has_completions, rows_of_step
from chainforge.config.grpo import GrpoSettings
from chainforge.config.sample import SampleSettings
from chainforge.jsonl import read_records
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.project.graph import GraphStep, settings_of
from chainforge.records import Prompt
from chainforge.report.evaluations import correctness
from chainforge.report.shape import Evaluated, check_shape
from chainforge.run.step import LOGS, file_name, open_step
from chainforge.trace.about import rows_about

Facts = dict[str, Any]
NOT_KEPT = "what it sampled was not kept (runtime.keep_completions)"


def of_grpo(step: GraphStep, prompt_id: str, reward: str) -> Facts | None:
    """The RL steps that drew the problem, and what was sampled then, where that was kept.

    `drawn` is null where it cannot be known: only what was sampled tells, and it was not kept.
    """
    if not (Path("plots") / f"{file_name(step.name)}.csv").is_file() and not has_completions(step):
        return None  # has not run
    settings = settings_of(GrpoSettings, step.name)
    if not is_in(prompt_id, (settings.prompts, None), (settings.extra_prompts, None)):
        return None
    rows, missing = kept_rows(step, prompt_id, reward)
    drawn = drawn_in(step.name, prompt_id, settings)
    if rows:
        drawn = sorted({row["iteration"] for row in rows} | set(drawn or ()))
    return {"drawn": drawn, "rl_steps": settings.num_rl_steps, "missing": missing, "completions": rows}


def drawn_in(step: str, prompt_id: str, settings: GrpoSettings) -> list[int] | None:
    """The RL steps that draw a prompt: a pure function of the seed, but for dynamic sampling."""
    if settings.resample_rounds:
        return None
    own = read_records(settings.prompts, Prompt)
    extra = read_records(settings.extra_prompts, Prompt) if settings.extra_prompts else []
    mix = PromptMix(own, extra, settings.extra_share, open_step(step).seed("prompts"))
    size = settings.prompts_per_step
    return [
        number
        for number in range(1, settings.num_rl_steps + 1)
        if any(prompt.id == prompt_id for prompt in mix.draw(size, (number - 1) * size))
    ]


def is_in(prompt_id: str, *files: tuple[Path | None, int | None]) -> bool:
    """Whether one of the files has the prompt among its first so many, or among all."""
    return any(
        most is None or line <= most
        for file, most in files
        if file
        for line, _ in rows_about(file, prompt_id)
    )


def of_sampling(step: GraphStep, prompt_id: str, reward: str) -> Facts | None:
    """The examples that were made of samples, and all samples where they were kept."""
    settings = settings_of(SampleSettings, step.name)
    own, extra = (
        (settings.prompts, settings.max_prompts),
        (settings.extra_prompts, settings.extra_max_prompts),
    )
    if not settings.output.is_file() or not is_in(prompt_id, own, extra):
        return None
    accepted = [
        {"file": str(settings.output), "line": line, "response": row["response"]}
        for line, row in rows_about(settings.output, prompt_id)
    ]
    rows, missing = kept_rows(step, prompt_id, reward)
    return {"accepted": accepted, "samples": settings.samples, "missing": missing, "completions": rows}


def kept_rows(step: GraphStep, prompt_id: str, reward: str) -> tuple[list[Facts], str | None]:
    """(the kept completions of a problem, why there are none)."""
    if not has_completions(step):
        return [], NOT_KEPT
    if other := of_another_run(step):
        return [], f"what lies in {LOGS}/completions/ is of another run: {other}"
    return [row for row in rows_of_step(step, reward) if row["prompt_id"] == prompt_id], None


def of_evaluation(step: GraphStep, prompt_id: str, reward: str) -> Facts | None:
    """A checkpoint's answers, where the problem is one of the benchmark."""
    path = answers_file(step)
    for line, row in rows_about(path, prompt_id):
        where = f"{path}, line {line}"
        check_shape(Evaluated, row, where, "run the evaluate step again")
        samples, greedy = row["samples"], row["greedy"]
        right = [correctness(sample, reward, where) for sample in samples]
        return {
            "checkpoint": path.parent.name,
            "bench": path.stem,
            "file": str(path),
            "line": line,
            "right": sum(value == 1.0 for value in right),
            "samples": samples,
            "greedy": greedy,
            "greedy_right": greedy and correctness(greedy, reward, where) == 1.0,
        }
    return None

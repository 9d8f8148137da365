"""Write the card: Markdown with the front matter that the Hugging Face hub reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainforge.filtering.card.write import cell, number
from chainforge.model_card.hide import hide
from chainforge.model_card.lineage import TRAINING, File, Made, count_rows, line_of
from chainforge.model_card.measured import Measured
from chainforge.rendering import text_templates
from chainforge.response import TagFormat

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

PARSERS = {"think": "deepseek_r1"}  # of vLLM, by the tag around the reasoning


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a card tells. `repo` is where it will lie, `changed` why its step would run again, if so."""

    checkpoint: Path
    steps: tuple[Made, ...]
    measured: Sequence[Measured]
    run: Mapping[str, Any]
    form: TagFormat
    prefill: str  # what the snippet adds to the prompt: nothing where the chat template does
    version: str
    weights: int
    config: Mapping[str, Any]
    note: str
    repo: str
    licence: str | None
    base: str | None  # its name on the hub
    base_licence: str | None
    changed: Sequence[str] = ()
    cards: Mapping[str, str] = field(default_factory=dict)  # of data sets, by where they lie beside this card


def model_card(facts: Facts) -> str:
    """The whole card. The same checkpoint, figures and arguments give the same bytes."""
    from huggingface_hub import ModelCard

    # What came from outside goes by `cell` or `settings_block`.
    templates = text_templates(Path(__file__).parent, cell, number, settings_block)
    line, base = line_of(facts.steps)
    body = templates.get_template("card.md.j2").render(
        facts=facts,
        name=facts.checkpoint.name,
        line=[step.name for step in line],
        base=hide(base),
        data=data_sets(facts.steps),
        plugins=plugins_of(facts.steps),
        training=TRAINING,
        tags=facts.form.tags,
        parser=PARSERS.get(facts.form.reasoning_tag),
        libraries=libraries(facts.steps, facts.config),
    )
    return str(ModelCard(f"---\n{front_matter(facts).to_yaml()}\n---\n\n{body}"))


def front_matter(facts: Facts) -> "ModelCardData":
    """What the hub filters and shows by."""
    from huggingface_hub import ModelCardData

    rl = any(step.verb == "grpo" for step in line_of(facts.steps)[0])
    return ModelCardData(
        model_name=facts.checkpoint.name,
        license=facts.licence or "unknown",
        base_model=facts.base,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["reasoning", "chainforge", "grpo" if rl else "sft"],
        eval_results=[result for bench in facts.measured for result in eval_results(bench)] or None,
    )


def eval_results(bench: Measured) -> Iterable["EvalResult"]:
    """Each figure as the hub has them: the value, and what it was measured on."""
    from huggingface_hub import EvalResult

    sampling = bench.conditions.get("sampling", {})
    for name, title in (("pass_at_1", "pass@1"), ("greedy", "greedy"), ("maj_at_k", f"maj@{bench.samples}")):
        value = bench.figures.get(name)
        if value is None:
            continue
        lo, hi = ("ci95_lo", "ci95_hi") if name == "pass_at_1" else (f"{name}_ci95_lo", f"{name}_ci95_hi")
        yield EvalResult(
            task_type="text-generation",
            dataset_type=f"chainforge-{bench.bench}",
            dataset_name=bench.bench,
            dataset_split=bench.conditions.get("prompts", {}).get("split", "test"),
            dataset_args={"problems": int(bench.figures["n"] or 0)},
            metric_type="accuracy",
            metric_name=title,
            metric_value=round(value, 4),
            metric_args={
                "ci95": [None if (x := bench.figures.get(key)) is None else round(x, 4) for key in (lo, hi)]
            }
            | {
                "temperature": 0 if name == "greedy" else sampling.get("temperature"),
                "max_new_tokens": sampling.get("max_new_tokens"),
            },
        )


def data_sets(steps: Sequence[Made]) -> list[tuple[File, int | None, str, str]]:
    """(file, rows, the step that made it, its card) of every JSONL that a training step has read."""
    makers = {file.path: step for step in steps for file in step.writes}
    read = {file.path: file for step in steps if step.verb in TRAINING for file in step.reads}
    found = []
    for path, file in read.items():
        maker = makers.get(path)
        if path.endswith(".jsonl"):
            card = maker.settings.get("card") if maker else None
            found.append((file, count_rows(file), maker.name if maker else "–", str(card or "")))
    return found


def plugins_of(steps: Sequence[Made]) -> list[tuple[str, str]]:
    """(role:name, file with its digest or package with its version), each once."""
    found = {
        (name, f"{entry['source']} {entry.get('digest', '')}".strip())
        if "source" in entry
        else (name, f"{entry.get('distribution')} {entry.get('version')}")
        for step in steps
        for name, entry in step.lock.get("plugins", {}).items()
    }
    return sorted(found)


def libraries(steps: Sequence[Made], config: Mapping[str, Any]) -> list[str]:
    """What is known of the libraries' versions: those that the run watched, and what wrote the folder."""
    watched = {f"{name} {at}" for step in steps for name, at in step.lock.get("env", {}).items()}
    wrote = config.get("transformers_version")
    return sorted(watched | ({f"transformers {wrote}"} if wrote else set()))


def settings_block(settings: Mapping[str, Any]) -> str:
    """Settings as JSON that cannot end the fence around it."""
    shown = {key: value for key, value in hide(settings).items() if value not in (None, {}, [])}
    return json.dumps(shown, indent=1, ensure_ascii=True).replace("`", "\\u0060")

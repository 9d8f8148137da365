"""Filter a teacher's traces: keep what is whole, safe to tag, right, and short enough."""

from collections import Counter
from collections.abc import Iterable, Mapping

from chainforge.config.filter import FilterSettings
from chainforge.records import Completion, Example, Prompt, Trace
from chainforge.response import TagFormat
from chainforge.scoring import Scorer


def select_traces(
    traces: Iterable[Trace], prompts: Mapping[str, Prompt], scorer: Scorer, settings: FilterSettings
) -> tuple[list[Example], dict[str, int]]:
    """(accepted examples, counts): every trace is kept or dropped for exactly one reason."""
    reasons: Counter[str] = Counter()
    whole: list[tuple[Prompt, Trace, str]] = []
    for trace in traces:
        response = scorer.response_format
        if reason := defect(trace, prompts, response, settings):
            reasons[reason] += 1
        else:
            whole.append((prompts[trace.prompt_id], trace, response.render(trace.reasoning, trace.content)))
    completions = [(Completion(t.prompt_id, text, (), (), t.finish, t.origin),) for _, t, text in whole]
    groups = scorer.score([prompt for prompt, _, _ in whole], completions) if whole else []
    kept: Counter[str] = Counter()
    examples = []
    for group, (prompt, trace, text) in zip(groups, whole, strict=True):
        value = group.scores[0].parts[settings.reward]
        if value is not None and value < settings.min_reward:
            reasons["wrong"] += 1
        elif kept[prompt.id] == settings.keep_per_prompt:
            reasons["over_quota"] += 1
        else:
            kept[prompt.id] += 1
            examples.append(Example(prompt.id, prompt.messages, text, trace.origin))
    counts = {f"dropped/{reason}": count for reason, count in sorted(reasons.items())}
    return examples, {"read": len(examples) + reasons.total(), "kept": len(examples), **counts}


def defect(
    trace: Trace, prompts: Mapping[str, Prompt], response: TagFormat, settings: FilterSettings
) -> str | None:
    """Why this trace cannot be used whatever it answers, or None."""
    if trace.prompt_id not in prompts:
        return "unknown_prompt"
    if trace.finish != "stop":
        return f"finish_{trace.finish}"
    if not trace.reasoning.strip() or not trace.content.strip():
        return "empty"
    if any(tag in part for tag in response.tags for part in (trace.reasoning, trace.content)):
        return "contains_tag"
    if len(trace.reasoning) + len(trace.content) > settings.max_characters:
        return "too_long"
    return None

"""Under which conditions figures were measured: everything that they depend on besides the weights."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from chainforge.config.evaluate import EvaluateSettings
from chainforge.models.chat import encode_prompt, opening
from chainforge.records import Prompt, to_json
from chainforge.run.step import Step


def conditions(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    settings: EvaluateSettings,
    step: Step,
    graders: Mapping[str, Any],
    version: str,
) -> dict[str, Any]:
    """JSON-ready, and the same wherever it is measured. `graders` says what each reward is, `version` is
    ChainForge's.

    `rendered` is the SHA-256 of the token ids that the model gets, prompt by prompt: the template at work.
    """
    prefill = opening(tokenizer, step.response_format)
    first = prompts[0].messages if prompts else ()
    return {
        "chainforge": version,
        "prompts": {"count": len(prompts), "sha256": sha256(map(to_json, prompts))}
        | ({} if settings.split == "test" else {"split": settings.split}),
        "template": {
            "sha256": sha256([tokenizer.chat_template]),
            "rendered": sha256(encode_prompt(tokenizer, p.messages, prefill) for p in prompts),
            "example": tokenizer.decode(encode_prompt(tokenizer, first, prefill)),
            "response_format": step.settings.response_format,
        },
        "sampling": {
            "samples": settings.samples,
            "greedy": settings.greedy,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
            "max_new_tokens": settings.max_new_tokens,
            "engine": settings.engine.kind,
            "precision": step.settings.precision,
        },
        "grader": {
            "decides": settings.reward,
            "rewards": dict(graders),
            "settings": settings.model_dump(mode="json")["reward_settings"],
        },
        "seed": step.settings.seed,
    }


def sha256(values: Any) -> str:
    """Of values that JSON can hold, one after the other."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()

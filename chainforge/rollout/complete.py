"""Prompts in, completions out: the chat format around the sampler."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.models.chat import decode_response, encode_prompt, eos_id
from chainforge.models.checkpoint import Policy
from chainforge.records import Completion, Prompt
from chainforge.rollout.sampler import Request, sample
from chainforge.run.progress import progress
from chainforge.run.step import Step

CALLS_PER_BAR = 2  # sampler batches per move of the progress bar


def complete(
    policy: Policy,
    prompts: Sequence[Prompt],
    count: int,
    settings: SamplingSettings,
    *,
    seed: Callable[[str, int], int],
    step: Step,
    show_progress: bool = False,
) -> list[tuple[Completion, ...]]:
    """`count` completions per prompt, in order. `seed(prompt id, number)` seeds each of them."""
    prefill = step.response_format.prefill
    requests = [
        Request(encode_prompt(policy.tokenizer, p.messages, prefill), [seed(p.id, i) for i in range(count)])
        for p in prompts
    ]
    model = sampling_model(policy.model, step.settings.precision)
    rows = step.runtime.rollout_rows
    per_call = max(1, CALLS_PER_BAR * rows // count) if show_progress else len(requests)
    calls = range(0, len(requests), per_call)
    groups = []
    for start in progress(calls, f"{step.name} x{count}", unit="batch") if show_progress else calls:
        chunk = requests[start : start + per_call]
        sampled = sample(model, chunk, settings, eos_id=eos_id(policy.tokenizer), max_rows=rows)
        for prompt, answers in zip(prompts[start : start + per_call], sampled, strict=True):
            texts = [prefill + decode_response(policy.tokenizer, a.token_ids) for a in answers]
            groups.append(
                tuple(
                    Completion(prompt.id, text, a.token_ids, a.logprobs, a.finish, step.name)
                    for text, a in zip(texts, answers, strict=True)
                )
            )
    return groups


def sampling_model(model: PreTrainedModel, precision: str) -> PreTrainedModel:
    """The model itself in float32; a copy in bfloat16, because decoding would cast the weights per token."""
    return model if precision == "float32" else deepcopy(model).to(torch.bfloat16)  # type: ignore[arg-type]

"""Prompts in, completions out: the chat format around the sampler."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from transformers import PreTrainedModel

from chainforge.config.sampling import SamplingSettings
from chainforge.models.chat import decode_response, encode_prompt, eos_ids, opening
from chainforge.models.checkpoint import Policy
from chainforge.records import Completion, Prompt
from chainforge.rollout.sampler import Request, Sampled, sample
from chainforge.run.step import Step

QUEUE = 4  # completions asked for at once, as a multiple of those decoded at once: ended ones make room


def complete(
    policy: Policy,
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    count: int,
    settings: SamplingSettings,
    *,
    seed: Callable[[int, int], int],
    step: Step,
) -> list[tuple[Completion, ...]]:
    """`count` completions per prompt, in order, from `sampling_model(policy, …)`.

    `seed(place, number)` seeds each of them: the place of its prompt in `prompts`, which may hold one twice,
    and its number among the prompt's completions.
    """
    prefill = opening(policy.tokenizer, step.response_format)
    ends = eos_ids(policy.model, policy.tokenizer)
    requests = [
        Request(encode_prompt(policy.tokenizer, p.messages, prefill), [seed(place, i) for i in range(count)])
        for place, p in enumerate(prompts)
    ]
    sampled = sample(model, requests, settings, eos_ids=ends, max_rows=step.runtime.rollout_rows)
    return [
        tuple(
            Completion(
                prompt.id,
                prefill + decode_response(policy.tokenizer, said(a)),
                a.token_ids,
                a.logprobs,
                a.finish,
                step.name,
            )
            for a in answers
        )
        for prompt, answers in zip(prompts, sampled, strict=True)
    ]


def said(sampled: Sampled) -> Sequence[int]:
    """Its token ids without the EOS token, which need not be one that decoding leaves out."""
    return sampled.token_ids[:-1] if sampled.finish == "stop" else sampled.token_ids


def batch_size(count: int, step: Step) -> int:
    """How many prompts with `count` completions each the sampler is given at once."""
    return max(1, QUEUE * step.runtime.rollout_rows // count)


def sampling_model(policy: Policy, step: Step) -> PreTrainedModel:
    """The model itself in float32; a copy in bfloat16, because decoding would cast the weights per token."""
    if step.settings.precision == "float32":
        return policy.model
    # Buffers stay as they are: RoPE's frequencies in bfloat16 would turn far tokens by another angle.
    rounded: dict[int, Any] = {
        id(p): torch.nn.Parameter(p.detach().bfloat16(), requires_grad=False)
        for p in policy.model.parameters()
    }
    return deepcopy(policy.model, rounded)

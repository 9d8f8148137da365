"""Prompts in, completions out: the chat format around an engine."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from chainforge.config.sampling import SamplingSettings
from chainforge.models.chat import decode_response, encode_prompt, opening
from chainforge.records import Completion, Example, Prompt
from chainforge.rollout.engine import Engine, Request, Sampled
from chainforge.run.step import Step

QUEUE = 4  # completions asked for at once, as a multiple of those decoded at once: ended ones make room


Completions = list[tuple[Completion, ...]]  # of each prompt


def complete(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    count: int,
    settings: SamplingSettings,
    step: Step,
    *,
    seed: Callable[[int, int], int],
) -> Completions:
    """`count` completions per prompt, in order.

    `seed(place, number)` seeds each of them: the place of its prompt in `prompts`, which may hold one twice,
    and its number among the prompt's completions.
    """
    return begin_completions(engine, tokenizer, prompts, count, settings, step, seed=seed)()


def begin_completions(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    count: int,
    settings: SamplingSettings,
    step: Step,
    *,
    seed: Callable[[int, int], int],
) -> Callable[[], Completions]:
    """Start what `complete` does; what is returned waits for it."""
    prefill = opening(tokenizer, step.response_format)
    requests = [
        Request(encode_prompt(tokenizer, p.messages, prefill), [seed(place, i) for i in range(count)])
        for place, p in enumerate(prompts)
    ]
    wait = engine.begin(requests, settings)

    def completion(prompt: Prompt, found: Sampled) -> Completion:
        text = prefill + decode_response(tokenizer, text_ids(found))
        return Completion(prompt.id, text, found.token_ids, found.logprobs, found.finish, step.name)

    return lambda: [
        tuple(completion(prompt, found) for found in answers)
        for prompt, answers in zip(prompts, wait(), strict=True)
    ]


def longest_sequence(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt | Example],
    settings: SamplingSettings,
    step: Step,
) -> int:
    """Tokens of the longest of these prompts with the longest completion."""
    prefill = opening(tokenizer, step.response_format)
    longest = max((len(encode_prompt(tokenizer, p.messages, prefill)) for p in prompts), default=0)
    return longest + settings.max_new_tokens


def text_ids(sampled: Sampled) -> Sequence[int]:
    """Its token ids without the EOS token, which need not be one that decoding leaves out."""
    return sampled.token_ids[:-1] if sampled.finish == "stop" else sampled.token_ids


def batch_size(engine: Engine, count: int) -> int:
    """How many prompts with `count` completions each an engine is best given at once."""
    return max(1, QUEUE * engine.rows // count)

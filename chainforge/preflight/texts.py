"""Whether examples are learnt from as meant: the tags, the mask of the loss, the token that ends."""

from collections.abc import Sequence

import torch

from chainforge.algorithms.statistics import mean_interval
from chainforge.loops.figures import keeps_format
from chainforge.models.batch import Tokens, collate
from chainforge.models.chat import decode_response, encode_prompt, encode_response, eos_id, eos_ids, opening
from chainforge.models.checkpoint import Policy
from chainforge.preflight.estimate import Finding, Rate
from chainforge.records import Example
from chainforge.response import TagFormat

SOME = 64  # examples that are looked at


def check_examples(policy: Policy, examples: Sequence[Example], form: TagFormat) -> list[Finding]:
    """What is wrong with tags, masks or EOS of these examples."""
    tokenizer, found = policy.tokenizer, []
    prefill = opening(tokenizer, form)  # which refuses a tag that decoding would hide
    some = examples[:SOME]
    tokens = [
        Tokens(
            encode_prompt(tokenizer, e.messages, prefill),
            encode_response(tokenizer, e.response.removeprefix(prefill)),
        )
        for e in some
    ]
    end = eos_id(tokenizer)
    if end not in eos_ids(policy.model, tokenizer) or any(t.completion[-1] != end for t in tokens):
        found.append(Finding("a response does not end in EOS", "mend the tokenizer's eos_token", stops=True))
    if any(not masks_response(t) for t in tokens):
        found.append(Finding("the loss is not on the response alone", "report it: a bug", stops=True))
    lost = sum(
        decode_response(tokenizer, t.completion[:-1]) != e.response.removeprefix(prefill)
        for t, e in zip(tokens, some, strict=True)
    )
    if lost:
        found.append(
            Finding(
                f"{lost} of {len(some)} responses are not the same after encoding and decoding",
                "choose a tokenizer that knows their characters, or filter them out (filter.scripts)",
                loss=lost / len(some),
            )
        )
    return found


def masks_response(tokens: Tokens) -> bool:
    """Whether the loss counts the tokens of the response, EOS among them, and no others."""
    batch = collate([tokens, Tokens(tokens.prompt[:1], tokens.completion[:1])], torch.device("cpu"))
    chosen = batch.tokens_BS[0][batch.target_BS[0]].tolist()
    return chosen == list(tokens.completion) and int(batch.mask_BT[0].sum()) == len(tokens.completion)


def format_rate(examples: Sequence[Example], form: TagFormat) -> Rate:
    """Share of the examples that are in the response format."""
    return rate("examples in format", [keeps_format(e.response, form) for e in examples])


def rate(name: str, values: Sequence[float]) -> Rate:
    """Of one value from 0 to 1 per problem."""
    return Rate(name, len(values), *mean_interval([float(value) for value in values]))

"""One completion as a request to vLLM, and as its answer."""

from collections.abc import Collection, Sequence
from typing import Any

from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.rollout.engine import Sampled

SEEDS = 2**63  # vLLM takes fewer


def completion_request(
    model: str, prompt_ids: Sequence[int], seed: int, settings: SamplingSettings, eos_ids: Collection[int]
) -> dict[str, Any]:
    """The body for /v1/completions. All that shapes a distribution is said, so that no default of the server
    counts; of several EOS tokens each ends the completion, and no other token does."""
    return {
        "model": model,
        "prompt": list(prompt_ids),
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": seed % SEEDS,
        "stop_token_ids": list(eos_ids),
        "ignore_eos": True,
        "logprobs": 0,  # of the token that was drawn alone
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,  # else each would be spelt
    }


def read_completion(url: str, answer: Any, eos_ids: Collection[int]) -> Sampled:
    """The completion in an answer. Raises ChainForgeError where there is none that is whole."""
    try:
        (choice,) = answer["choices"]
        token_ids = tuple(map(int, choice["token_ids"]))
        logprobs = tuple(map(float, choice["logprobs"]["token_logprobs"]))
        finish = choice["finish_reason"]
    except (KeyError, TypeError, ValueError) as error:
        raise ChainForgeError(
            f"{url} answers without token ids and log-probabilities ({error!r:.200})",
            "use a vLLM that knows return_token_ids, as 0.32",
        ) from error
    ends = bool(token_ids) and token_ids[-1] in eos_ids
    if len(token_ids) != len(logprobs) or finish not in ("stop", "length") or ends != (finish == "stop"):
        raise ChainForgeError(
            f"{url} ended a completion of {len(token_ids)} tokens as {finish!r}, which no setting asks for",
            "start the server without arguments that end or shorten completions",
        )
    return Sampled(token_ids, logprobs, finish)

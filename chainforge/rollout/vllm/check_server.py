"""Whether a server can sample for a step: its version, model, context, tokenizer and log-probabilities."""

import json
import re
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.models.checkpoint import Policy
from chainforge.rollout.vllm.client import ServerFailed, call
from chainforge.run.progress import say

OLDEST, NEWEST = (0, 28), (0, 33)  # by the documentation, they have what is used here; 0.32 was tried
PROBES, CERTAIN = 24, 1e-3  # prompts; nats
ANSWER_S = 120.0  # the first completion compiles kernels
TEXTS = ("What is 12 + 35?", "<think>\nÜber 3.5 × 10⁻² — naïve\n\n    x = [1,2]\n</think>", "東京 🙂 don't")
SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
)
RESTART = "start it as docs/vllm.md says"


def check_server(url: str, policy: Policy, length: int, *, swaps: bool) -> str:
    """The name of the model that it serves. Raises ChainForgeError that says what does not fit.

    `length`: tokens that one completion and its prompt may have. `swaps`: it is to take new weights.
    """
    _check_version(url)
    base = _base_model(url)
    name = str(base["id"])
    _check_shape(url, base, policy)
    served = base.get("max_model_len")
    if isinstance(served, int) and served < length:
        raise ChainForgeError(
            f"vLLM at {url} serves up to {served} tokens, and prompts with completions have up to {length}",
            f"start it with --max-model-len {length} or more, or lower max_new_tokens",
        )
    _check_tokenizer(url, name, policy)
    if swaps and not _has_dev_mode(url):
        raise ChainForgeError(
            f"vLLM at {url} takes no new weights: it was started without VLLM_SERVER_DEV_MODE=1",
            f"{RESTART}: VLLM_SERVER_DEV_MODE=1 vllm serve …",
        )
    _check_logprobs(url, name, policy)
    return name


def _check_version(url: str) -> None:
    said = _get(url, "/version", "asking for its version")
    version = str(said.get("version")) if isinstance(said, dict) else "unknown"
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        return say(f"vLLM at {url} has version {version}, which is not known here")
    number = (int(found[1]), int(found[2]))
    if (0, 0) < number < OLDEST:
        raise ChainForgeError(
            f"vLLM at {url} has version {version}, and ChainForge needs {_dotted(OLDEST)} or newer",
            f"install one from {_dotted(OLDEST)} to {_dotted(NEWEST)} (docs/vllm.md)",
        )
    if number > NEWEST:
        tried = f"{_dotted(OLDEST)} to {_dotted(NEWEST)}"
        say(f"vLLM at {url} has version {version}; ChainForge was tried with {tried}")


def _base_model(url: str) -> dict[str, Any]:
    said = _get(url, "/v1/models", "asking what it serves")
    with suppress(TypeError, KeyError, StopIteration, AttributeError):
        found: dict[str, Any] = next(model for model in said["data"] if not model.get("parent"))
        return found
    raise ChainForgeError(f"{url} does not say which model it serves", "name the URL of a vLLM server")


def _check_shape(url: str, base: dict[str, Any], policy: Policy) -> None:
    """Where the server's folder can be read here: a model of the same shape. Else the first sync shows it."""
    try:
        theirs = json.loads((Path(str(base.get("root"))) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    ours = policy.model.config.to_dict()
    for key in ("model_type", *SHAPE, "vocab_size"):
        if key in theirs and key in ours and theirs[key] != ours[key]:
            raise ChainForgeError(
                f"vLLM at {url} serves another model than the checkpoint's: {base['root']} has "
                f"{key} {theirs[key]}, the checkpoint {ours[key]}",
                "start it on a model of the same kind, or remove it from runtime.vllm.urls",
            )


def _check_tokenizer(url: str, name: str, policy: Policy) -> None:
    for text in TEXTS:
        body = {"model": name, "prompt": text, "add_special_tokens": False}
        said = call(url, "/tokenize", body=body, doing="comparing tokenizers", within_s=ANSWER_S)
        ours = policy.tokenizer.encode(text, add_special_tokens=False)
        theirs = said.get("tokens") if isinstance(said, dict) else None
        if theirs != ours:
            raise ChainForgeError(
                f"vLLM at {url} has another tokenizer than the checkpoint: {text!r} is {theirs!s:.80} "
                f"there, and {ours!s:.80} here",
                "start it on the checkpoint, or on one with the same tokenizer",
            )


def _has_dev_mode(url: str) -> bool:
    try:
        _get(url, "/is_sleeping", "asking whether it takes new weights")
    except ServerFailed as error:
        if error.status == 404:
            return False
        raise
    return True


def _check_logprobs(url: str, name: str, policy: Policy) -> None:
    """With top_k 1 a token is certain: its processed log-probability is 0, and a raw one is below. Prompts of
    one token each leave a model in doubt; among 16-bit logits two may be the largest, now and then."""
    prompts = [[token] for token in policy.tokenizer.encode(" ".join(TEXTS), add_special_tokens=False)]
    body = {
        "model": name,
        "prompt": prompts[:PROBES],
        "max_tokens": 1,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
        "seed": 0,
        "logprobs": 0,
        "ignore_eos": True,
    }
    said = call(url, "/v1/completions", body=body, doing="asking for completions", within_s=ANSWER_S)
    try:
        found = [float(choice["logprobs"]["token_logprobs"][0]) for choice in said["choices"]]
    except (KeyError, IndexError, TypeError) as error:
        raise ChainForgeError(
            f"{url} gives no log-probabilities with a completion", f"it must be vLLM: {RESTART}"
        ) from error
    if abs(median(found)) > CERTAIN:
        raise ChainForgeError(
            f"vLLM at {url} gives log-probabilities of the raw logits, not of logits / temperature",
            f"{RESTART}: vllm serve … --logprobs-mode processed_logprobs",
        )


def _get(url: str, path: str, doing: str) -> Any:
    return call(url, path, doing=doing, within_s=ANSWER_S, method="GET")


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"

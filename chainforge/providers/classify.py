"""A classifier on a vLLM server, for a reward: conversations in, raw scores out, or one clear error.

vLLM cuts a text for a classifier at its end by default, and gives probabilities; so both are said in each
request. API: https://docs.vllm.ai/en/stable/models/pooling_models/classify/
"""

import math
import random
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chainforge.errors import ChainForgeError
from chainforge.providers.calls import seconds_of
from chainforge.providers.secrets import without_key
from chainforge.records import Message

if TYPE_CHECKING:
    import httpx2

AT_ONCE = 16
CONNECT_S, ANSWER_S = 30.0, 600.0
PATIENCE_S = 60.0  # of asking again
FIRST_S, LONGEST_S = 0.5, 8.0  # between two tries
OLDEST = 28  # vLLM 0.28: it has `use_activation` and `truncation_side`
START = "vllm serve MODEL --runner pooling --convert classify"


@dataclass(frozen=True, slots=True)
class Classified:
    """The raw scores of one conversation, and what the model calls the highest."""

    scores: list[float]
    winner: str | None


def classify(
    url: str, model: str, conversations: Sequence[Sequence[Message]], *, max_tokens: int, key: str = ""
) -> list[Classified]:
    """What the model says to each conversation, of which it reads the last `max_tokens`; in order.

    `url` may end in /v1. Raises ChainForgeError: the server was away for a minute, serves no such model or
    no classifier, or gives no finite number for each class. No message holds the key.
    """
    import httpx2

    root = url.rstrip("/").removesuffix("/v1")
    limits = httpx2.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S, pool=None)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(
        base_url=root, headers=headers, limits=limits, timeout=timeout, trust_env=False
    ) as http:
        server = Server(root, key, http)
        most = min(max_tokens, server.longest(model) or max_tokens)

        def one(messages: Sequence[Message]) -> Classified:
            return server.classify(model, messages, most)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(one, conversations))
    if len(counts := {len(each.scores) for each in found}) > 1:
        raise ChainForgeError(
            f"{root} gives {min(counts)} scores for one text and {max(counts)} for another",
            "one model must answer: see what the server is",
        )
    return found


@dataclass(frozen=True, slots=True)
class Server:
    """An open connection. It is asked again while it is away or busy."""

    root: str
    key: str
    http: "httpx2.Client"

    def longest(self, model: str) -> int | None:
        """How many tokens the model reads at most, if the server says so; it serves that model, by vLLM."""
        answer = self._answer("GET", "/v1/models")
        try:
            cards: dict[str, Mapping[str, Any]] = {str(card["id"]): card for card in answer.json()["data"]}
        except (ValueError, TypeError, KeyError):
            raise self._refused("does not say what it serves", answer) from None
        if model not in cards:
            raise ChainForgeError(
                f"{self.root} serves no model called {model!r}",
                f"set `model` to one of: {', '.join(cards) or 'none'}",
            )
        if cards[model].get("owned_by") == "sglang":
            raise ChainForgeError(
                f"{self.root} is SGLang, which gives no raw scores, and takes no conversation to classify",
                f"serve the model by vLLM: {START}",
            )
        self._check_version()
        longest = cards[model].get("max_model_len")
        return longest if type(longest) is int and longest > 0 else None

    def classify(self, model: str, messages: Sequence[Message], most: int) -> Classified:
        body = {
            "model": model,
            "messages": [{"role": turn["role"], "content": turn["content"]} for turn in messages],
            "add_generation_prompt": False,
            "truncate_prompt_tokens": most,
            "truncation_side": "left",
            "use_activation": False,
        }
        answer = self._answer("POST", "/classify", body)
        if not answer.is_success:
            raise self._refused(f"does not classify by {model!r}", answer)
        try:
            (data,) = answer.json()["data"]
            scores = [number(value) for value in data["probs"]]
            if not scores or data.get("num_classes", len(scores)) != len(scores):
                raise ValueError("not one number for each class")
            return Classified(scores, data.get("label"))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ChainForgeError(
                f"{self.root}/classify: the answer has no finite score for each class "
                f"({type(error).__name__}: {self._plain(str(error)):.80}): {self._plain(answer.text):.200}",
                f"it must be a whole classifier, served by vLLM: {START}",
            ) from None

    def _check_version(self) -> None:
        """Older ones would take no notice of what a request says, and give other numbers."""
        answer = self._answer("GET", "/version")
        found = re.match(r'\{"version":\s*"0\.(\d+)\.\d', answer.text)
        if found and int(found[1]) < OLDEST:
            raise ChainForgeError(
                f"vLLM at {self.root} has version 0.{found[1]}, which classifies in another way",
                f"install 0.{OLDEST} or newer (docs/vllm.md)",
            )

    def _answer(self, method: str, path: str, body: Any = None) -> "httpx2.Response":
        """An answer that is neither 429 nor 5xx."""
        import httpx2

        wait, end = FIRST_S, math.inf
        while True:
            asked_for = None
            try:
                answer = self.http.request(method, path, json=body)
                if answer.status_code != 429 and answer.status_code < 500:
                    return answer
                trouble = self._reason(answer)
                asked_for = seconds_of(answer.headers.get("retry-after", ""), datetime.now(UTC))
            except httpx2.HTTPError as error:
                trouble = self._plain(str(error)) or type(error).__name__
            end = min(end, time.monotonic() + PATIENCE_S)
            pause = max(asked_for or 0.0, wait * random.uniform(0.5, 1.0))
            if time.monotonic() + pause > end:
                raise ChainForgeError(
                    f"{self.root}{path} gives no answer, tried for {PATIENCE_S:g} s: {trouble:.300}",
                    f"see that the server runs and `url` is right, and read its log; to start one: {START}",
                )
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_S)

    def _refused(self, what: str, answer: "httpx2.Response") -> ChainForgeError:
        fix = f"start the server as a classifier of vLLM: {START}"
        if answer.status_code in (401, 403):
            fix = "export the server's key in the shell, and name that variable in `api_key_env`"
        elif "template" in answer.text:
            fix = "start the server with --chat-template FILE: the model has none of its own"
        return ChainForgeError(f"{self.root} {what}: it answers {self._reason(answer):.300}", fix)

    def _reason(self, answer: "httpx2.Response") -> str:
        return f"{answer.status_code}: {self._plain(answer.text) or answer.reason_phrase}"

    def _plain(self, said: str) -> str:
        """In one line, without the key."""
        return str(without_key(self.key, " ".join(said.split())))


def number(value: object) -> float:
    """
    >>> number(3)
    3.0
    >>> number(None)
    Traceback (most recent call last):
    ValueError: None is no finite number
    """
    if type(value) not in (int, float) or not math.isfinite(float(value)):  # type: ignore[arg-type]
        raise ValueError(f"{value!r:.40} is no finite number")
    return float(value)  # type: ignore[arg-type]

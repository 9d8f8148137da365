"""One sample of one prompt, and the fingerprint by which its answer is found again."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from chainforge.hookspecs import ApiTeacher
from chainforge.providers.reasoning import without_reasoning
from chainforge.records import Message, Prompt

LABEL_PART = 200  # characters of a prompt's id in a label
# Parameters that change no answer which ended by itself: how long it may be, how long it may take, for whom.
LIMITS = frozenset({"max_tokens", "max_completion_tokens", "timeout"})
NO_MATTER = LIMITS | {"user", "user_id", "safety_identifier", "prompt_cache_key"}


@dataclass(frozen=True, slots=True)
class Question:
    """`fingerprint` is a digest of all that a finished answer depends on: provider, model, parameters,
    messages, sample."""

    prompt_id: str
    sample: int
    messages: tuple[Message, ...]
    fingerprint: str
    seed: int

    def label(self, attempt: int) -> str:
        """By which a provider can find the request: SEED/PROMPT/SAMPLE/ATTEMPT."""
        name = quote(self.prompt_id, safe="", errors="replace")[:LABEL_PART]
        return f"{self.seed}/{name}/{self.sample}/{attempt}"

    @property
    def own_seed(self) -> int:
        """Another for every prompt and sample; 31 bits, which every provider takes."""
        digest = hashlib.sha256(f"{self.seed}:{self.prompt_id}:{self.sample}".encode(errors="replace"))
        return int.from_bytes(digest.digest()[:4], "big") >> 1


def questions(
    teacher: ApiTeacher, prompts: Iterable[Prompt], samples: int, seed: int, instruction: str | None = None
) -> Iterator[Question]:
    """`samples` questions per prompt, in order; the instruction comes first, so that providers can cache it.

    The seed belongs to the fingerprint only where the teacher sends it: elsewhere samples are exchangeable,
    and a new seed is no reason to pay again.
    """
    identity = asked_of(teacher.identity)
    own = {"seed": seed} if teacher.seeded else {}
    first = () if instruction is None else (Message(role="system", content=instruction),)
    for prompt in prompts:
        messages = tuple(map(whole, (*first, *without_reasoning(prompt.messages))))
        for sample in range(samples):
            name = fingerprint(identity | own, messages, sample)
            yield Question(prompt.id, sample, messages, name, seed)


def asked_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What of a teacher's identity a finished answer depends on: neither the server's host nor any limit."""
    asked = dict(identity)
    if isinstance(provider := asked.get("provider"), str):
        asked["provider"] = provider.partition("@")[0]
    if isinstance(parameters := asked.get("parameters"), Mapping):
        asked["parameters"] = {name: v for name, v in parameters.items() if name not in NO_MATTER}
    return asked


def fingerprint(identity: Mapping[str, Any], messages: Sequence[Message], sample: int) -> str:
    """The digest. Journals of schema 1 have it of the whole identity."""
    about = {"teacher": identity, "messages": messages, "sample": sample}
    text = orjson.dumps(about, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]


def whole(message: Message) -> Message:
    """Without lone surrogates, which no JSON can carry."""
    return Message(role=message["role"], content=message["content"].encode(errors="replace").decode())

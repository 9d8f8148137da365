"""One sample of one prompt, and the fingerprint by which its answer is found again."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

import orjson

from chainforge.hookspecs import ApiTeacher
from chainforge.reasoning import without_reasoning
from chainforge.records import Message, Prompt

LABEL_PART = 200  # characters of a prompt's id in a label


@dataclass(frozen=True, slots=True)
class Question:
    """`fingerprint` is a digest of all that the answer depends on: teacher, parameters, messages, sample."""

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
    identity = dict(teacher.identity) | ({"seed": seed} if teacher.seeded else {})
    first = () if instruction is None else (Message(role="system", content=instruction),)
    for prompt in prompts:
        messages = tuple(map(whole, (*first, *without_reasoning(prompt.messages))))
        for sample in range(samples):
            about = {"teacher": identity, "messages": messages, "sample": sample}
            text = orjson.dumps(about, option=orjson.OPT_SORT_KEYS)
            yield Question(prompt.id, sample, messages, hashlib.sha256(text).hexdigest()[:32], seed)


def whole(message: Message) -> Message:
    """Without lone surrogates, which no JSON can carry."""
    return Message(role=message["role"], content=message["content"].encode(errors="replace").decode())

"""Teacher `procedural_instructions`: fulfils the requests of prompt source `procedural_instructions`.

It reads the request alone, never the reference answer, and thinks in short steps before it speaks.

>>> fulfil("Spell fig backward.", random.Random(17))
('f i g. g i f.', 'gif')
>>> fulfil('Write sun 3 times, joined by "-".', random.Random(17))
('1 sun 2 sun 3 sun.', 'sun-sun-sun')
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import chainforge as cf

Worked = tuple[str, str]  # reasoning, answer
WRITERS: list[tuple[re.Pattern[str], Callable[..., Worked]]] = []
TERSE = "Quick."
KNOWN = {
    "animals": ("cat", "dog", "cow", "fish", "fox", "goat", "hen", "pig"),
    "colours": ("red", "blue", "green", "black", "white", "brown", "pink", "grey"),
    "fruits": ("apple", "pear", "plum", "fig", "lemon", "lime", "melon", "grape"),
}
COUNTS = {"two": 2, "three": 3, "four": 4}


def fulfils(pattern: str) -> Callable[[Callable[..., Worked]], Callable[..., Worked]]:
    """Fulfil requests of that form by the function below: it gets a random generator and the groups."""

    def add(writer: Callable[..., Worked]) -> Callable[..., Worked]:
        WRITERS.append((re.compile(pattern), writer))
        return writer

    return add


@fulfils(r'Write (\w+) (\d+) times, joined by "(.)"\.')
def repeat(rng: random.Random, word: str, times: str, joiner: str) -> Worked:
    counted = " ".join(f"{i} {word}" for i in range(1, int(times) + 1))
    return f"{counted}.", joiner.join([word] * int(times))


@fulfils(r"Spell (\w+) backward\.")
def backward(rng: random.Random, word: str) -> Worked:
    return f"{' '.join(word)}. {' '.join(word[::-1])}.", word[::-1]


@fulfils(r"Name ([1-4]) (animals|colours|fruits)(?: but not (\w+)(?: or (\w+))?)?(, in capitals)?\.")
def listing(rng: random.Random, n: str, kind: str, *rest: str | None) -> Worked:
    *without, upper = rest
    chosen = rng.sample([item for item in KNOWN[kind] if item not in without], int(n))
    counted = " ".join(f"{i} {item}" for i, item in enumerate(chosen, start=1))
    answer = ", ".join(chosen)
    return f"{counted}.", answer.upper() if upper else answer


@fulfils(r'Greet (\w+)(, in capitals)?(?:, in (two|three|four) words)?(?:, ending with "([!?])")?\.')
def greeting(rng: random.Random, name: str, upper: str | None, count: str | None, end: str | None) -> Worked:
    """Two words are `Hello NAME`; three and four have others in front of the name, or behind if it asks."""
    words = COUNTS[count] if count else rng.choice((2, 3))
    start = {2: "Hello", 3: "Hello dear", 4: "Hello my dear"}[words]
    if end == "?":
        start = {2: "Hello", 3: "Hello again", 4: "Hello again dear"}[words]
    text = f"{start} {name}{end or ''}"
    return f"{start} and {name} is {words} words.", text.upper() if upper else text


@fulfils(r"(First|Last|Longest) word of: ([\w ]+)\?")
def picking(rng: random.Random, which: str, text: str) -> Worked:
    words = text.split()
    if which == "Longest":
        return " ".join(f"{word} {len(word)}" for word in words) + ".", max(words, key=len)
    order = " ".join(f"{i} {word}" for i, word in enumerate(words, start=1))
    return f"{order}.", words[0] if which == "First" else words[-1]


def fulfil(request: str, rng: random.Random) -> Worked | None:
    """Reasoning and answer, or None if no family makes requests of that form."""
    for pattern, writer in WRITERS:
        if match := pattern.fullmatch(request):
            return writer(rng, *match.groups())
    return None


@dataclass(frozen=True, kw_only=True)
class ProceduralInstructions:
    """In a hurry now and then, and, if asked to be, wrong or cut off now and then."""

    terse_fraction: float = 0.4  # of the traces: the answer after one short line
    wrong_fraction: float = 0.0  # of the traces: half a wrong answer, half cut off; food for the filter

    synthetic = True  # nobody thought: for the data-set card

    def __post_init__(self) -> None:
        for name in ("terse_fraction", "wrong_fraction"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise cf.ChainForgeError(f"{name} is {value}", "a fraction lies between 0 and 1")

    def generate(self, prompts: Sequence[cf.Prompt], *, n: int, seed: int) -> Iterator[cf.Trace]:
        """Yield `n` traces per prompt. Raises ChainForgeError for a request of no known form."""
        for prompt in prompts:
            for i in range(n):
                yield self.trace(prompt, random.Random(f"{seed}:{prompt.id}:{i}"))

    def trace(self, prompt: cf.Prompt, rng: random.Random) -> cf.Trace:
        terse, fault = rng.random() < self.terse_fraction, rng.random()
        request = prompt.messages[-1]["content"]
        worked = fulfil(request, rng)
        if worked is None:
            raise cf.ChainForgeError(
                f"teacher procedural_instructions cannot read prompt {prompt.id!r}: {request!r:.80}",
                "it answers prompts of procedural_instructions only; choose another teacher for the others",
            )
        reasoning, answer = (TERSE, worked[1]) if terse else worked
        if fault < self.wrong_fraction / 2:
            return cf.Trace(prompt.id, reasoning[: len(reasoning) // 2], "", "length", "procedural")
        content = "No." if fault < self.wrong_fraction else answer
        return cf.Trace(prompt.id, reasoning, content, "stop", "procedural")


@cf.hookimpl
def register_teachers(register: Callable[[str, Any], None]) -> None:
    register("procedural_instructions", ProceduralInstructions)

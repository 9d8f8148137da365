"""Prompt source `procedural_instructions`: simple requests whose fulfilment can be checked exactly.

Repeat a word, spell it backward, name some animals, greet somebody, pick a word. Train and evaluation
never meet, whatever the seed and however many are asked for: the text of a request decides its split.

>>> [prompt.messages[0]["content"] for prompt in procedural_instructions(split="eval", n=2, seed=17)]
['Write lemon 4 times, joined by "_".', 'Spell fetot backward.']
"""

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import chainforge as cf

EVAL_SHARE = 5  # one request in five is kept for evaluation
MOST_TRIES = 5_000  # draws without a new request before a family counts as used up
WORD_LIST = """
    air ant apple arm art axe baby back bag ball band bank barn bath bean bear bed bee bell belt bird boat
    body bone book boot bowl box bread brick bus cake camp car card cat chair city clay cloud coat coin cold
    cook corn cow cup dance day deer desk dish dog door dream drum duck dust ear east egg face fan farm fast
    fig film fire fish flag floor fly fog food foot fork fox frog game gate gift girl glass goat gold grass
    hair hand hat hen hill home horse hour ice ink iron jar jet joke jump key king kite lake lamp leaf lemon
    light line lion list lock map milk mind moon mouse music nail name nest net night north nose note nut oak
    oil oven page paint park pen phone pie pig plan plum pond rain ring river road rock roof room rope rose
    sand sea seed ship shoe shop sky snow soap song star stone sun table tail tea tent tiger tree van wall
    wind wolf wood zebra
"""
WORDS = WORD_LIST.split()
KINDS = {
    "animals": "ant bear bird cat cow deer dog duck fish fox frog goat hen horse lion mouse pig wolf zebra",
    "colours": "red blue green black white brown pink grey gold orange yellow purple silver violet",
    "fruits": "apple banana cherry date fig grape kiwi lemon lime mango melon orange peach pear plum",
}
NUMBERS = ("zero", "one", "two", "three", "four")


class Request(NamedTuple):
    """A request with its one right answer, or with the check that an answer must pass."""

    text: str
    answer: str | None
    check: dict[str, Any] | None = None


def syllables(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(count))


def repeat(rng: random.Random) -> Request:
    word, times, joiner = rng.choice(WORDS), rng.randint(2, 5), rng.choice("-+/_")
    return Request(f'Write {word} {times} times, joined by "{joiner}".', joiner.join([word] * times))


def backward(rng: random.Random) -> Request:
    """A word of the list, or one made up of syllables."""
    word = rng.choice(WORDS) if rng.random() < 0.3 else syllables(rng, 2) + rng.choice(("", "n", "s", "t"))
    if word == word[::-1]:
        return backward(rng)
    return Request(f"Spell {word} backward.", word[::-1])


def listing(rng: random.Random) -> Request:
    kind, n, upper = rng.choice(list(KINDS)), rng.randint(2, 4), rng.random() < 0.5
    without = rng.sample(KINDS[kind].split(), rng.randint(0, 2))
    text = " but not ".join([f"Name {n} {kind}", " or ".join(without)] if without else [f"Name {n} {kind}"])
    allowed = [item for item in KINDS[kind].split() if item not in without]
    check = {"rule": "items", "from": allowed, "n": n, "upper": upper}
    return Request(f"{text}{', in capitals' * upper}.", None, check)


def greeting(rng: random.Random) -> Request:
    """Greet somebody: in capitals, in a given number of words, with a mark at the end, or some of these."""
    name = (syllables(rng, 1) + rng.choice("lmnrst") + rng.choice(("a", "o", "i", "en", "us"))).capitalize()
    upper, words, end = rng.random() < 0.4, rng.choice((None, 2, 3, 4)), rng.choice((None, "!", "?"))
    forms = ["in capitals"] * upper
    forms += [] if words is None else [f"in {NUMBERS[words]} words"]
    forms += [] if end is None else [f'ending with "{end}"']
    check = {"rule": "greeting", "name": name, "upper": upper, "words": words, "end": end}
    return Request(f"Greet {name}{''.join(f', {form}' for form in forms)}.", None, check)


def picking(rng: random.Random) -> Request:
    """The first, last or longest of a few words of which one is longer than all others."""
    words = rng.sample(WORDS, rng.randint(3, 4))
    longest = max(words, key=len)
    if sum(len(word) == len(longest) for word in words) > 1:
        return picking(rng)
    which, answer = rng.choice((("First", words[0]), ("Last", words[-1]), ("Longest", longest)))
    return Request(f"{which} word of: {' '.join(words)}?", answer)


FAMILIES: dict[str, Callable[[random.Random], Request]] = {
    "repeat": repeat,
    "backward": backward,
    "listing": listing,
    "greeting": greeting,
    "picking": picking,
}


def split_of(text: str) -> str:
    """The split that a request belongs to, for good."""
    digest = hashlib.sha256(text.encode()).digest()
    return "train" if int.from_bytes(digest, "big") % EVAL_SHARE else "eval"


def requests(family: str, split: str, seed: int) -> Iterator[Request]:
    """Different requests of one family and split, until there is no new one to be found."""
    seen: set[str] = set()
    for i in itertools.count():
        rng = random.Random(f"{seed}:{split}:{family}:{i}")
        for _ in range(MOST_TRIES):
            request = FAMILIES[family](rng)
            if request.text not in seen and split_of(request.text) == split:
                break
        else:
            raise cf.ChainForgeError(
                f"{family} is used up: it has about {len(seen)} different {split} requests",
                f"ask for fewer {split} prompts, or leave {family} out of `families`",
            )
        seen.add(request.text)
        yield request


def procedural_instructions(
    *, split: str, n: int, seed: int, families: list[str] | None = None
) -> Iterator[cf.Prompt]:
    """`n` prompts, the families taking turns; `families` chooses some of the five."""
    chosen = list(FAMILIES) if families is None else families
    if split not in ("train", "eval"):
        raise cf.ChainForgeError(f"there is no split called {split!r}", "ask for train or eval")
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(FAMILIES):
        raise cf.ChainForgeError(
            f"families: {chosen!r} is not a choice among the families of procedural_instructions",
            f"name each at most once; known: {', '.join(FAMILIES)}",
        )
    return in_turns({family: requests(family, split, seed) for family in chosen}, split, n)


def in_turns(sources: Mapping[str, Iterator[Request]], split: str, n: int) -> Iterator[cf.Prompt]:
    """`n` prompts, the families taking turns."""
    chosen = list(sources)
    for i in range(n):
        turn, place = divmod(i, len(chosen))
        family = chosen[place]
        text, answer, check = next(sources[family])
        yield cf.Prompt(
            id=f"{family}-{split}-{turn:05d}",
            source=family,
            messages=({"role": "user", "content": text},),
            answer=answer,
            columns={} if check is None else {"check": check},
        )


@cf.hookimpl
def register_prompt_sources(register: Callable[[str, Any], None]) -> None:
    register("procedural_instructions", procedural_instructions)

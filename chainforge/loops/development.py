"""The development split: problems on which settings are chosen, so that nobody tunes on the test."""

import re
from collections.abc import Iterable

from chainforge.errors import ChainForgeError
from chainforge.loops.prompts import unique
from chainforge.records import Prompt, plain_text

NUMBER = re.compile(r"\d+")


def development(name: str, pool: Iterable[Prompt], wanted: int, taken: Iterable[Prompt]) -> list[Prompt]:
    """At most `wanted` prompts of `pool`, none of them the twin of one in `taken`: training and test.

    Raises ChainForgeError where none is left. `name` is the setting that asks for them.
    """
    keys = set(map(twin_key, taken))
    fresh = [prompt for prompt in pool if twin_key(prompt) not in keys]
    if not fresh:
        raise ChainForgeError(
            f"{name}: no problem is left for the development split: training and test have them all",
            f"ask for fewer of them; or take them from the other side, {name}.dev_from: train or eval",
        )
    return unique(name, "dev", fresh, wanted)


def twin_key(prompt: Prompt) -> str:
    """The same for two prompts that differ in the order of their numbers, case or white space alone.

    So 12 + 35 and 35 + 12 are twins, and 12 - 35 and 35 - 12: one problem too many is left out, not kept.
    """
    text = plain_text(prompt)
    ordered = iter(sorted(NUMBER.findall(text)))
    return NUMBER.sub(lambda _: next(ordered), text)

"""Materialise the prompts: deduplicate, and refuse any overlap of training and evaluation."""

from collections.abc import Iterable, Mapping

from chainforge.errors import ChainForgeError
from chainforge.records import Prompt, plain_text
from chainforge.run.progress import progress

REPEATS = 100  # prompts per one that is wanted, after which a source is taken for endless


def materialise(
    name: str, sources: Mapping[str, Iterable[Prompt]], wanted: Mapping[str, int]
) -> dict[str, list[Prompt]]:
    """The prompts of each split, duplicates within a split dropped. Raises ChainForgeError."""
    splits = {split: unique(name, split, prompts, wanted[split]) for split, prompts in sources.items()}
    for split, prompts in splits.items():
        if not prompts:
            raise ChainForgeError(
                f"prompts.{name}: the source gave no prompt for {split}", "check its file and settings"
            )
    trained = {plain_text(p): p for p in splits["train"]}
    for held_out in splits["eval"]:
        if twin := trained.get(plain_text(held_out)):
            raise ChainForgeError(
                f"prompts.{name}: evaluation prompt {held_out.id!r} is also training prompt {twin.id!r}",
                "remove it from one of the two: scores on trained problems mean nothing",
            )
    return splits


def unique(name: str, split: str, prompts: Iterable[Prompt], wanted: int) -> list[Prompt]:
    """`wanted` prompts with distinct text, the first of each kept; no more is taken from the source.

    Raises ChainForgeError for an id given twice, and for a source that goes on without a new text.
    """
    by_text: dict[str, Prompt] = {}
    by_id: dict[str, str] = {}
    bar = progress(prompts, f"prompts {name} {split}", total=wanted, unit="prompt")
    for taken, prompt in enumerate(bar, start=1):
        text = plain_text(prompt)
        if by_id.setdefault(prompt.id, text) != text:
            raise ChainForgeError(
                f"prompts.{name}: the id {prompt.id!r} stands for two different {split} prompts",
                "give every prompt an id of its own",
            )
        by_text.setdefault(text, prompt)
        if len(by_text) == wanted:
            break
        if taken > REPEATS * (wanted + REPEATS):
            raise ChainForgeError(
                f"prompts.{name}: {taken} prompts for {split} have only {len(by_text)} different texts",
                f"mend the source, which gives up to n prompts; or ask for fewer than {wanted}",
            )
    bar.close()
    return list(by_text.values())

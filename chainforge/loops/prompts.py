"""Materialise the prompts: deduplicate, and refuse any overlap of training and evaluation."""

from collections.abc import Iterable, Mapping

from chainforge.errors import ChainForgeError
from chainforge.records import Prompt, plain_text


def materialise(
    name: str, sources: Mapping[str, Iterable[Prompt]], wanted: Mapping[str, int]
) -> dict[str, list[Prompt]]:
    """The prompts of each split, duplicates within a split dropped. Raises ChainForgeError."""
    splits = {split: unique(name, split, prompts) for split, prompts in sources.items()}
    for split, prompts in splits.items():
        if not prompts:
            raise ChainForgeError(
                f"prompts.{name}: the source gave no prompt for {split}", "check its file and settings"
            )
        if len(prompts) > wanted[split]:
            splits[split] = prompts[: wanted[split]]
    trained = {plain_text(p): p for p in splits["train"]}
    for held_out in splits["eval"]:
        if twin := trained.get(plain_text(held_out)):
            raise ChainForgeError(
                f"prompts.{name}: evaluation prompt {held_out.id!r} is also training prompt {twin.id!r}",
                "remove it from one of the two: scores on trained problems mean nothing",
            )
    return splits


def unique(name: str, split: str, prompts: Iterable[Prompt]) -> list[Prompt]:
    """Prompts with distinct text, the first of each kept. Raises ChainForgeError for an id given twice."""
    by_text: dict[str, Prompt] = {}
    by_id: dict[str, str] = {}
    for prompt in prompts:
        text = plain_text(prompt)
        if by_id.setdefault(prompt.id, text) != text:
            raise ChainForgeError(
                f"prompts.{name}: the id {prompt.id!r} stands for two different {split} prompts",
                "give every prompt an id of its own",
            )
        by_text.setdefault(text, prompt)
    return list(by_text.values())

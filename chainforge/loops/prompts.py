"""Materialise the prompts: deduplicate, and refuse any overlap of training and evaluation."""

from collections.abc import Iterable, Mapping

from chainforge.errors import ChainForgeError
from chainforge.records import Prompt, plain_text
from chainforge.run.progress import progress

REPEATS = 100  # prompts per one that is wanted, after which a source is taken for endless


def materialise(
    name: str, sources: Mapping[str, Iterable[Prompt]], wanted: Mapping[str, int]
) -> dict[str, list[Prompt]]:
    """The prompts of each split, duplicates within a split dropped. `name` is the setting that asks for them.

    Raises ChainForgeError for a split without prompts, and for a prompt in both.
    """
    splits = {split: unique(name, split, prompts, wanted[split]) for split, prompts in sources.items()}
    refuse_trained(name, splits["train"], splits["eval"])
    return splits


def refuse_trained(name: str, trained: Iterable[Prompt], held_out: Iterable[Prompt]) -> None:
    """Raise ChainForgeError for an evaluation prompt that is trained on."""
    texts = {plain_text(p): p for p in trained}
    for prompt in held_out:
        if twin := texts.get(plain_text(prompt)):
            raise ChainForgeError(
                f"{name}: evaluation prompt {prompt.id!r} is also training prompt {twin.id!r}",
                "remove it from one of the two: scores on trained problems mean nothing",
            )


def unique(name: str, split: str, prompts: Iterable[Prompt], wanted: int) -> list[Prompt]:
    """`wanted` prompts with distinct text, the first of each kept; no more is taken from the source.

    Raises ChainForgeError for no prompt at all, an id given twice, and a source that goes on without a new
    text.
    """
    by_text: dict[str, Prompt] = {}
    by_id: dict[str, str] = {}
    bar = progress(prompts, f"{name} {split}", total=wanted, unit="prompt")
    for taken, prompt in enumerate(bar, start=1):
        text = plain_text(prompt)
        if by_id.setdefault(prompt.id, text) != text:
            raise ChainForgeError(
                f"{name}: the id {prompt.id!r} stands for two different {split} prompts",
                "give every prompt an id of its own",
            )
        by_text.setdefault(text, prompt)
        if len(by_text) == wanted:
            bar.update()  # else the bar of a finished split ends one short
            break
        if taken > REPEATS * (wanted + REPEATS):
            raise ChainForgeError(
                f"{name}: {taken} prompts for {split} have only {len(by_text)} different texts",
                f"mend the source, which gives up to n prompts; or ask for fewer than {wanted}",
            )
    bar.close()
    if not by_text:
        raise ChainForgeError(f"{name}: the source gave no prompt for {split}", "check its file and settings")
    return list(by_text.values())

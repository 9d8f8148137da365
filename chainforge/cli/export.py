"""A checkpoint as a folder for others: weights, tokenizer, its card, and the cards of its data."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chainforge.errors import ChainForgeError
from chainforge.model_card.hide import refuse_secrets
from chainforge.model_card.write import data_sets, model_card

if TYPE_CHECKING:
    from chainforge.model_card.write import Facts

CARD = "README.md"
TEXTS = (".json", ".md", ".jinja", ".txt")


def export(facts: "Facts", folder: Path, *, link: bool = False) -> list[Path]:
    """Fill an empty folder; its files, the card first. With `link` the weights are links to the checkpoint's:
    for a folder that is gone soon.

    An adapter is left out: it is merged in the weights. Raises ChainForgeError where a text holds a key.
    """
    for path in sorted(facts.checkpoint.iterdir()):
        if not path.is_file() or path.name == CARD:
            continue
        if link and path.suffix not in TEXTS:
            (folder / path.name).symlink_to(path.resolve())
        else:
            shutil.copyfile(path, folder / path.name)
    cards = {str(source): name for source, name in _data_cards(facts)}
    for source, name in cards.items():
        shutil.copyfile(source, folder / name)
    (folder / CARD).write_text(model_card(replace(facts, cards=cards)), encoding="utf-8")
    files = sorted(folder.iterdir(), key=lambda path: (path.name != CARD, path.name))
    for path in files:
        if path.suffix in TEXTS:
            refuse_secrets(path.read_text(encoding="utf-8", errors="replace"), path.name)
    return files


def _data_cards(facts: "Facts") -> Iterator[tuple[Path, str]]:
    """(the card of a data set as `filter` wrote it, its name in the export)."""
    for _, _, maker, card in data_sets(facts.steps):
        if card and Path(card).is_file():
            yield Path(card), f"data-{maker}.md"


def check_repo(repo: str) -> None:
    """Raise ChainForgeError where this cannot be a name on the hub: user/name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is documented

    try:
        validate_repo_id(repo)
        if repo.count("/") != 1:
            raise HFValidationError("it has no owner")
    except HFValidationError as error:
        raise ChainForgeError(
            f"{repo!r:.100} is no name of a repository: {str(error).splitlines()[0]:.150}",
            "write USER/NAME or ORGANISATION/NAME, of letters, digits, '-', '_' and '.'",
        ) from None

"""Rows of a data set of the Hugging Face hub, through the package `datasets`, which is an extra."""

from collections.abc import Iterator

from chainforge.errors import ChainForgeError, describe
from chainforge.problems.rows import Row, places_of


def hub_rows(
    dataset: str,
    split: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    n: int | None = None,
    seed: str = "",
) -> Iterator[Row]:
    """The rows of one split in their order; with `n`, a seeded choice of `n` of them if it has more.

    `dataset` is a hub name or a local folder; `split` may be a slice: `train[:90%]`. No code of a data set is
    run. Raises ChainForgeError where the package is missing, and where the data cannot be loaded.
    """
    name = f"data set {dataset}{f' ({config})' if config else ''}, split {split}"
    try:
        import datasets
    except ImportError as error:
        raise ChainForgeError(
            f"{name}: reading the hub needs the package datasets", "pip install 'chainforge-r1[hub]'"
        ) from error
    try:
        rows = datasets.load_dataset(dataset, config, split=split, revision=revision)
        count = len(rows)
    except Exception as error:  # of the network, of the hub, of pyarrow: it raises of every kind
        raise ChainForgeError(
            f"{name} cannot be loaded: {describe(error)}",
            "check its name, configuration, split and revision; without a network only what is in the cache "
            "can be read",
        ) from error
    chosen = places_of(count, count if n is None else n, seed)
    for place in range(count):
        if place in chosen:
            yield Row(f"{name}, row {place + 1}", place + 1, rows[place])

"""Too little memory, said in two lines: PyTorch says it in three ways."""

from collections.abc import Iterator
from contextlib import contextmanager

from chainforge.errors import ChainForgeError

OF_PYTORCH = "OutOfMemoryError"  # by name: whoever imports this does not wait for torch
OF_ALLOCATORS = ("can't allocate memory", "not enough memory", "out of memory")  # in plain RuntimeErrors


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether that is what an error means."""
    if isinstance(error, MemoryError) or type(error).__name__ == OF_PYTORCH:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OF_ALLOCATORS)


@contextmanager
def enough_memory(what: str, fix: str) -> Iterator[None]:
    """Inside, a lack of memory is a ChainForgeError that says what needed it and what to lower."""
    try:
        yield
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        raise ChainForgeError(f"there is not enough memory for {what}", fix) from error

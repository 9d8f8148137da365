"""What a chat template makes of messages. It is code that came with a model, so it may fail in any way."""

import ctypes
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from chainforge.errors import ChainForgeError
from chainforge.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIMIT_S = 20.0  # it needs a thousandth of a second
MEND = "mend its chat_template.jinja, or choose another model"


def render_chat(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, to_answer: bool = True
) -> str:
    """The conversation as text, up to where the answer begins if it is still `to_answer`.

    Raises ChainForgeError that names the model where its template raises, does not end, or leaves out the
    last message.
    """
    source = f"the chat template of {tokenizer.name_or_path or 'the tokenizer'}"
    if not tokenizer.chat_template:
        raise ChainForgeError(
            "the tokenizer has no chat template",
            "start from an instruction-tuned model, or add chat_template.jinja",
        )
    turns = [{"role": m["role"], "content": m["content"]} for m in messages]
    found: list[Any] = []  # the text, or the error

    def render() -> None:
        try:
            found.append(
                tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=to_answer)
            )
        except (Exception, SystemExit) as error:
            found.append(error)

    if not _ends(render):
        raise ChainForgeError(f"{source} did not end within {LIMIT_S:g} s", MEND)
    if isinstance(found[0], BaseException):
        error = found[0]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
        roles = ", ".join(dict.fromkeys(turn["role"] for turn in turns))
        raise ChainForgeError(
            f"{source} refuses a conversation of {roles}: {reason:.200}",
            f"give it other messages{' (without a system message)' if 'system' in roles else ''}; or {MEND}",
        ) from error
    text = str(found[0])
    if _squeezed(turns[-1]["content"]) not in _squeezed(text) or not text.strip():
        raise ChainForgeError(
            f"{source} leaves out what the {turns[-1]['role']} says: {turns[-1]['content']!r:.60}", MEND
        )
    return text


class _Watched:
    """A thread that does one piece of work after another: to start one for each takes as long as the work."""

    def __init__(self) -> None:
        self._given = queue.SimpleQueue[tuple[Callable[[], None], threading.Event] | None]()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """False in a process that was forked from that of the thread, too."""
        return self._thread.is_alive()

    def ends(self, work: Callable[[], None]) -> bool:
        """Whether it ends within LIMIT_S. If not, the thread ends."""
        done = threading.Event()  # its own: the wait for an earlier one may have been interrupted
        self._given.put((work, done))
        if done.wait(LIMIT_S):
            return True
        stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
        stop(ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(SystemExit))
        self._given.put(None)
        return False

    def _work(self) -> None:
        while given := self._given.get():
            work, done = given
            work()
            done.set()


_watched = threading.local()


def _ends(work: Callable[[], None]) -> bool:
    """Whether it ends within LIMIT_S. It runs in a thread of its own, which is ended then."""
    thread = getattr(_watched, "thread", None)
    if thread is None or not thread.is_alive():
        thread = _watched.thread = _Watched()
    ended: bool = thread.ends(work)
    if not ended:
        del _watched.thread
    return ended


def _squeezed(text: str) -> str:
    return "".join(text.split())

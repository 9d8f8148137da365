"""`chainforge chat`: what a model is shown, what a person is shown, and how to stop it."""

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from a_project import Run
from click.testing import CliRunner
from fakes import SUPERCOT, make_step, policy, response, tokenizer
from hypothesis import given
from hypothesis import strategies as st

from chainforge.cli import cli
from chainforge.cli.chat import answer, take
from chainforge.cli.chat_conversation import Conversation, decode_stream
from chainforge.cli.chat_screen import Screen
from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.models.chat import decode_response, encode_prompt, encode_response, eos_ids
from chainforge.models.checkpoint import save_policy
from chainforge.records import Message
from chainforge.rollout.stream import StreamingEngine


class Scripted(StreamingEngine):
    """Says what it was told to, and keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), list[list[int]]()

    def stream(self, prompt_ids: Any, seed: int, settings: SamplingSettings) -> Iterator[int]:
        self.asked.append(list(prompt_ids))
        yield from encode_response(tokenizer(), self.answers.pop(0))[:-1][: settings.max_new_tokens]


def conversation(*answers: str, system: str = "", most: int = 300) -> tuple[Conversation, Scripted]:
    made = Conversation(policy(), make_step("chat"), SamplingSettings(max_new_tokens=most), system)
    made._engine = engine = Scripted(*answers)
    return made, engine


def asked(text: str) -> Message:
    return Message(role="user", content=text)


@pytest.mark.slow
@given(st.lists(st.integers(0, len(tokenizer()) - 1), max_size=40))
def test_texts_that_are_streamed_join_to_what_the_tokens_say(ids: list[int]) -> None:
    seen: list[int] = []
    assert "".join(decode_stream(tokenizer(), iter(ids), seen)) == decode_response(tokenizer(), ids)
    assert seen == ids


def test_the_prompt_is_that_of_training_and_earlier_reasoning_is_left_out() -> None:
    talk, engine = conversation(response("6*7=42", "It is 42."), response("So", "Yes."), system="Be brief.")
    "".join(piece.text for piece in talk.ask("6*7=?"))
    list(talk.ask("Sure?"))
    turns = [Message(role="system", content="Be brief."), asked("6*7=?")]
    assert engine.asked[0] == encode_prompt(tokenizer(), turns)
    turns += [Message(role="assistant", content="It is 42."), asked("Sure?")]
    assert engine.asked[1] == encode_prompt(tokenizer(), turns)


def test_commands_change_what_the_model_sees(capsys: pytest.CaptureFixture[str]) -> None:
    talk, engine = conversation(*[response("So", "Yes.")] * 3)
    for line in (
        "One?",
        "/system Be brief.",
        "/reset",
        "Two?",
        "/system",
        " /reset is a word",
        "/rset",
        "/help",
    ):
        assert not take(talk, line, Screen(raw=False))
    assert take(talk, "/quit", Screen(raw=False))
    two = [Message(role="system", content="Be brief."), asked("Two?")]
    assert engine.asked[1] == encode_prompt(tokenizer(), two)
    assert "user\n/reset is a word<|im_end|>" in tokenizer().decode(engine.asked[2])
    said = capsys.readouterr().err
    assert "there is no command /rset" in said
    assert "/system TEXT" in said


def test_an_answer_that_was_stopped_or_cut_is_kept_only_if_it_says_something() -> None:
    tags = SUPERCOT.tags
    talk, engine = conversation(f"{tags[0]}So and so", response("So", "Yes, it is."), "x", most=30)
    list(talk.ask("One?"))
    assert (talk.finish, talk.answered) == ("stop", False)
    pieces = talk.ask("Two?")
    for piece in pieces:
        if piece.kind == "summary":
            break
    pieces.close()  # type: ignore[attr-defined]
    assert (talk.finish, talk.answered) == (None, True)
    list(talk.ask("Three?"))
    text = tokenizer().decode(engine.asked[2])
    assert "One?" not in text
    assert "Two?" in text
    assert "So" not in text


def test_a_conversation_that_is_too_long_is_refused_and_goes_on_after_a_reset() -> None:
    talk, _ = conversation(response("So", "Yes."))
    with pytest.raises(ChainForgeError, match="the model takes 512"):
        list(talk.ask("x" * 600))
    assert list(talk.ask("x"))


HOSTILE = response("a\x1b[2Jb", "c\x1b]0;title\x07\rd\u202ee")


@pytest.mark.parametrize("raw", [True, False])
def test_nothing_that_a_model_writes_is_obeyed_by_the_terminal(
    raw: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    talk, _ = conversation(HOSTILE)
    answer(talk, "?", Screen(raw=raw))
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert "c␛]0;title␇␍d⟨U+202E⟩e" in out
    assert ("a␛[2Jb" in out) == raw, "a pipe gets the summary alone"


@pytest.fixture
def checkpoint(project: Path) -> str:
    made = policy(sharpness=0.3, max_position_embeddings=10**6)
    with torch.no_grad():  # some other token is always likelier: a greedy answer does not end by itself
        made.model.get_output_embeddings().weight[eos_ids(made.model, made.tokenizer)] = 0
    save_policy(made, project / "checkpoints/mine")
    return "mine"


@pytest.mark.slow
def test_a_pipe_gets_an_answer_per_line_and_the_same_ones_again(checkpoint: str, project: Path) -> None:
    arguments = ["chat", checkpoint, "--max-tokens", "12", "--raw"]

    def said(*more: str, lines: str = "1+1?\n\n/reset\n2+2?\n/quit\n3+3?\n") -> str:
        result = CliRunner().invoke(cli, [*arguments, *more], input=lines)
        assert result.exit_code == 0, result.output
        return result.stdout

    first = said()
    assert first == said()
    assert first != said("--seed", "5")
    assert said("--prompt", "1+1?", lines="") == first[: len(said("--prompt", "1+1?", lines=""))]


@pytest.mark.dear
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none",), "there is no checkpoint called 'none'\n  -> known: mine"),
        (("inputs/none",), "there is no folder inputs/none"),
        (("mine", "--temperature", "0.001"), "0.001 is too cold"),
    ],
)
def test_what_cannot_be_talked_with_is_told(
    checkpoint: str, run: Run, arguments: tuple[str, ...], words: str
) -> None:
    assert words in run("chat", *arguments, "--prompt", "x", code=1).stderr


@pytest.mark.slow
def test_on_a_terminal_ctrl_c_stops_an_answer_and_then_ends(checkpoint: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        many = ("--max-tokens", "100000", "--temperature", "0")
        os.execv(sys.executable, [sys.executable, "-m", "chainforge", "chat", checkpoint, *many])
    seen, sent, heard, deadline = b"", 0, 0, time.monotonic() + 300
    try:
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 3)[0]:
                if sent == -2 and len(seen) == heard:  # readline misses a signal just before it waits
                    os.write(terminal, b"\x03")
                continue
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
            if sent == 0 and b"> " in seen:
                os.write(terminal, b"What is 6 times 7?\n")
                sent = len(seen)
            elif sent > 0 and len(seen) > sent + 60:
                os.write(terminal, b"\x03")
                sent = -1
            elif sent == -1 and b"stopped" in seen and seen.endswith(b"> "):
                os.write(terminal, b"\x03")
                sent, heard = -2, len(seen)
        assert sent == -2, seen
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"Traceback" not in seen

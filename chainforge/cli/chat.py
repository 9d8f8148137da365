"""`chainforge chat`: talk with a checkpoint on the terminal, or through a pipe."""

import sys
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from chainforge.cli.chat_screen import Screen
from chainforge.cli.complete import complete
from chainforge.cli.find_model import checkpoint_folders, find_model, load_found
from chainforge.cli.project import ProjectCommand
from chainforge.cli.show import show
from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.response import PRESETS

if TYPE_CHECKING:
    from chainforge.cli.chat_conversation import Conversation

COMMANDS = {
    "/reset": "forget the conversation",
    "/system": "set the system message: /system TEXT; without a text there is none",
    "/quit": "leave; so does Ctrl-D, or Ctrl-C while nothing is being written",
    "/help": "this list",
}
SAMPLING = ("temperature", "top_p", "top_k", "max_new_tokens")


@click.command(cls=ProjectCommand)
@click.argument("checkpoint", shell_complete=complete(checkpoint_folders))
@click.option("--prompt", help="Ask this alone, and end.")
@click.option("--system", help="A system message.")
@click.option("--raw", is_flag=True, help="The whole response with its tags, as the model wrote it.")
@click.option("--temperature", type=click.FloatRange(0, 100), help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(1e-6, 1), help="Nucleus.")
@click.option("--top-k", type=click.IntRange(0), help="Only the k likeliest tokens; 0 for all.")
@click.option("--max-tokens", "max_new_tokens", type=click.IntRange(1), help="Answers are cut here.")
@click.option("--seed", type=click.IntRange(0), help="Another one gives other answers.  [default: run.seed]")
@click.option(
    "--format", "form", type=click.Choice([*PRESETS]), help="Which tags.  [default: run.response_format]"
)
@click.option("--revision", help="Pin a model of the hub to this commit.")
def chat(
    checkpoint: str,
    prompt: str | None,
    system: str | None,
    raw: bool,
    seed: int | None,
    form: str | None,
    revision: str | None,
    **sampling: Any,
) -> None:
    """Talk with CHECKPOINT: a name below checkpoints/, a folder, or a name of the hub.

    On a terminal answers appear as they are drawn, the reasoning dimmed and the summary plain. Ctrl-C stops
    an answer; once more, or /quit, ends. Elsewhere each line of standard input is a turn, and standard output
    gets the summaries alone.

    What no option says is as in the sections `evaluate`, `run` and `runtime` of params.yaml: so a question
    gets the prompt and the settings that it has in an evaluation.
    """
    from chainforge.cli.chat_conversation import Conversation
    from chainforge.models.checkpoint import start_torch
    from chainforge.plugins import load_plugins
    from chainforge.run.step import open_step

    model, settings = find_model(checkpoint, click.get_current_context()), sampling_settings(sampling)
    shared = {"response_format": form, "seed": seed}
    step = open_step("chat")
    step = replace(
        step, settings=step.settings.model_copy(update={k: v for k, v in shared.items() if v is not None})
    )
    device = start_torch(step.settings, step.runtime)
    policy = load_found(model, revision, load_plugins(), device)
    conversation = Conversation(policy, step, settings, readable(system or ""))
    screen = Screen(raw=raw)
    if prompt is not None:
        answer(conversation, readable(prompt), screen)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        talk(conversation, screen)
    else:
        with suppress(AttributeError):
            sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        for line in sys.stdin:
            if line.strip() and take(conversation, line, screen):
                break


def sampling_settings(given: dict[str, Any]) -> SamplingSettings:
    """As in section `evaluate`, but for what an option says. Raises ChainForgeError."""
    from chainforge.project.graph import param

    section = param("evaluate")
    known = {name: section[name] for name in given if name in section}
    try:
        return SamplingSettings.model_validate(
            known | {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = (first.get("ctx") or {}).get("error")
        raise ChainForgeError(
            f"{'.'.join(map(str, first['loc']))}: {problem or first['msg']}",
            getattr(problem, "fix", "correct the option, or section evaluate of params.yaml"),
        ) from None


def talk(conversation: "Conversation", screen: Screen) -> None:
    """Turn after turn, until who is at the terminal has had enough."""
    with suppress(ImportError):
        import readline  # noqa: F401 - from now on lines can be edited

    show(f"{screen.about}. /help lists the commands.", err=True)
    while True:
        try:
            line = readable(input("> "))
        except (EOFError, KeyboardInterrupt):
            return click.echo()
        try:
            if line.strip() and take(conversation, line, screen):
                return None
        except KeyboardInterrupt:
            screen.note("stopped; Ctrl-C again to leave")
        except ChainForgeError as error:
            screen.note(str(error))


def take(conversation: "Conversation", line: str, screen: Screen) -> bool:
    """Obey a line that is a command, and answer any other. Whether it was the last one."""
    command, _, text = line.strip().partition(" ") if line.startswith("/") else ("", "", "")
    if command == "/quit":
        return True
    if command == "/reset":
        conversation.reset()
        screen.note("the conversation begins anew")
    elif command == "/system":
        conversation.system = text.strip()
        screen.note("the system message is set" if text.strip() else "there is no system message")
    elif command in COMMANDS:
        screen.note("\n".join(f"{name:<9}{does}" for name, does in COMMANDS.items()))
    elif command:
        screen.note(
            f"there is no command {command}: /help lists them. In a question, write a space before the /"
        )
    else:
        answer(conversation, line.strip(), screen)
    return False


def answer(conversation: "Conversation", question: str, screen: Screen) -> None:
    """Ask, and show the answer as it comes."""
    with closing(conversation.ask(question)) as pieces:
        try:
            for piece in pieces:
                screen.add(piece)
        finally:
            screen.end()
    if conversation.finish == "length":
        screen.note("cut here: --max-tokens N allows more")
    if not conversation.answered:
        screen.note("there was no summary, so this turn is forgotten")


def readable(text: str) -> str:
    """What a person typed, without what no tokenizer takes: halves of characters become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")

"""Ask a teacher for verdicts in the middle of a step: by the collector, so that no answer is paid twice.

All steps of a project share the journal `collected/judge`: the same question is asked once, whichever step
has it, and a step that was killed pays for nothing again. `collector.budget_usd` bounds what it may cost.
"""

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from inspect import signature
from typing import Any, TypeVar

from filelock import FileLock

from chainforge.config.collector import collector_settings
from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.plugins import load_plugins, make_component
from chainforge.records import Message, Prompt
from chainforge.teachers.answers import answer_all, journal_folder
from chainforge.teachers.question import questions
from chainforge.teachers.traces import traces_of

JOURNAL = "judge"

Verdict = TypeVar("Verdict")


@dataclass(frozen=True)
class Judge:
    """A teacher whose answers are as good without reasoning."""

    teacher: ApiTeacher
    thinks = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.teacher, name)


@cache
def make_judge(settings: str) -> Judge:
    """The teacher that these settings name, as JSON, `plugin` among them. Raises ChainForgeError."""
    own = json.loads(settings)
    name = own.pop("plugin")
    entry = load_plugins().pick("teachers", name)
    judge = make_component(entry, calm(own, signature(entry.component).parameters))
    if not isinstance(judge, ApiTeacher):
        raise ChainForgeError(
            f"teacher {name} is not behind an API, and cannot judge",
            "name one that is: {plugin: openai_compatible, preset: vllm, model: …}",
        )
    return Judge(judge)


def calm(settings: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """With thinking off and temperature 0 where nothing else is said: verdicts are short, and stay the same.

    Who lets it think leaves the temperature to the provider: DeepSeek refuses both together.
    """
    thinks = settings.get("thinking") or settings.get("thinking_tokens")
    usual = {"thinking": False, "thinking_tokens": 0} | ({} if thinks else {"temperature": 0.0})
    return {name: value for name, value in usual.items() if name in known} | dict(settings)


def ask_judge(
    settings: Mapping[str, Any],
    asked: Sequence[tuple[Message, ...]],
    read: Callable[[int, str], Verdict | None],
    tries: int,
) -> list[Verdict | None]:
    """What `read` makes of the judge's answer to each question, given its place and text.

    An answer of which it makes nothing is asked for again, `tries` times in all; then it is None. Raises
    CollectionStopped where not all could be asked, such as for want of budget: what came is kept.
    """
    judge = make_judge(json.dumps(settings, sort_keys=True))
    folder = journal_folder(JOURNAL)
    verdicts: list[Verdict | None] = [None] * len(asked)
    folder.mkdir(parents=True, exist_ok=True)
    for sample in range(tries):
        places = [place for place, verdict in enumerate(verdicts) if verdict is None]
        prompts = [Prompt(name_of(asked[place]), JOURNAL, asked[place]) for place in places]
        every = list(questions(judge, prompts, sample + 1, seed=0))[sample :: sample + 1]
        once = list({question.fingerprint: question for question in every}.values())
        if not once:
            break
        with FileLock(folder / "turn.lock"):  # another step of the project may be at it
            paid = answer_all(judge, once, folder, collector_settings(), about=settings, for_examples=False)
        for place, trace in zip(places, traces_of(judge, every, folder, paid), strict=True):
            if trace.finish == "stop":
                verdicts[place] = read(place, trace.content)
    return verdicts


def name_of(messages: Sequence[Message]) -> str:
    """The same for the same question."""
    said = json.dumps(messages, sort_keys=True)
    return sha256(said.encode()).hexdigest()[:16]

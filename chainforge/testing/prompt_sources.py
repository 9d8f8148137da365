"""The contract of a prompt source."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from chainforge.plugins import Entry, plugin_settings
from chainforge.records import Prompt, check_record, from_json, plain_text, to_json
from chainforge.testing.imports import imports_nothing_slow, imports_the_public_api
from chainforge.testing.laws import Breach, Finding, Law, check, demand

COUNT = 20  # prompts to ask for
SPLITS = ("train", "eval")


@dataclass(frozen=True)
class SourceCase:
    """A prompt source with its settings."""

    entry: Entry
    settings: Mapping[str, Any]

    def ask(self, split: str, n: int = COUNT, seed: int = 17) -> list[Prompt]:
        """All that it yields."""
        found = self.entry.component(
            split=split, n=n, seed=seed, **plugin_settings(self.entry, self.settings)
        )
        demand(isinstance(found, Iterable), f"gives {type(found).__name__}, not prompts")
        return list(islice(found, n + 1))  # it may never end


def check_prompt_source(entry: Entry, settings: Mapping[str, Any] | None = None) -> list[Finding]:
    """A finding per law."""
    return check(LAWS, SourceCase(entry, settings or {}))


def quick_import(case: SourceCase) -> str | None:
    return imports_nothing_slow(case.entry)


def public_api(case: SourceCase) -> str | None:
    return imports_the_public_api(case.entry)


def whole_prompts(case: SourceCase) -> str | None:
    counts = []
    for split in SPLITS:
        prompts = case.ask(split)
        demand(prompts, f"gives no prompt for {split}")
        for prompt in prompts:
            whole(prompt)
        counts.append(f"{len(prompts)} {split}")
    return ", ".join(counts)


def whole(prompt: Any) -> None:
    """Raise Breach unless it is a prompt that a JSONL file can hold and a model can answer."""
    demand(isinstance(prompt, Prompt), f"gives {type(prompt).__name__}, not cf.Prompt")
    demand(
        isinstance(prompt.messages, tuple),
        f"{prompt.id!r}: messages is not a tuple, so it can be changed later",
    )
    try:
        text = json.dumps(to_json(prompt), allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Breach(f"{prompt.id!r} cannot be written as JSON: {error}") from error
    try:
        check_record(Prompt, prompt)
        again = from_json(Prompt, json.loads(text))
    except ValueError as error:
        if prompt.messages and str(error).startswith("the last message is empty"):
            raise Breach(f"{prompt.id!r} asks nothing") from error
        raise Breach(f"{prompt.id!r} is no prompt: {error}") from error
    demand(prompt.id, f"a prompt has an empty id: {prompt.messages!r:.80}")
    demand(
        again == prompt,
        f"{prompt.id!r} is another prompt when read again: use JSON's own types in columns, and text as keys",
    )
    last = prompt.messages[-1]
    demand(last["role"] == "user", f"{prompt.id!r} does not end with the user's turn")


def own_ids(case: SourceCase) -> str | None:
    for split in SPLITS:
        seen: dict[str, Prompt] = {}
        for prompt in case.ask(split):
            demand(prompt.id not in seen, f"{split} gives the id {prompt.id!r} twice")
            seen[prompt.id] = prompt
    return None


def splits_apart(case: SourceCase) -> str | None:
    """As the step `prompts` compares: without differences of case and white space."""
    trained = {plain_text(prompt): prompt.id for prompt in case.ask("train", 10 * COUNT)}
    for prompt in case.ask("eval", 10 * COUNT):
        twin = trained.get(plain_text(prompt))
        demand(twin is None, f"evaluation prompt {prompt.id!r} is also training prompt {twin!r}")
    return None


def same_seed(case: SourceCase) -> str | None:
    for split in SPLITS:
        demand(case.ask(split) == case.ask(split), f"{split}: the same seed gives other prompts")
    return None


def at_most_n(case: SourceCase) -> str | None:
    for split in SPLITS:
        for n in (1, 3, COUNT):
            found = len(case.ask(split, n))
            demand(found <= n, f"{split}: asked for {n}, gives {found}")
    return None


LAWS: tuple[Law[SourceCase], ...] = (
    ("imports neither torch nor transformers", quick_import),
    ("imports nothing of ChainForge but its public API", public_api),
    ("gives whole prompts for both splits", whole_prompts),
    ("every prompt has an id of its own", own_ids),
    ("training and evaluation share no prompt", splits_apart),
    ("the same seed gives the same prompts", same_seed),
    ("gives at most n prompts", at_most_n),
)

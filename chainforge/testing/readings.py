"""Completions of a run, read for `chainforge plugins check --on`: evaluations, examples, traces."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.jsonl import read_records, read_rows
from chainforge.plugins import Plugins
from chainforge.records import Completion, Message, Prompt
from chainforge.testing.subjects import bench, response_format
from chainforge.wiring import make_scorer

PROMPTS = (Path("data/prompts"), Path("data/benches"))
AT_ONCE = 64  # prompts per call of a reward


@dataclass
class Reading:
    """Prompts with their completions, in the order of the file."""

    prompts: dict[tuple[str, str], Prompt] = field(default_factory=dict)  # by id and last message
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, prompt: Prompt, text: str) -> None:
        """One more completion."""
        key = (prompt.id, prompt.messages[-1]["content"] if prompt.messages else "")
        self.prompts.setdefault(key, prompt)
        self.texts.setdefault(key, []).append(text)

    @property
    def pairs(self) -> list[tuple[Prompt, str]]:
        """Every completion with its prompt, those of a prompt side by side."""
        return [(prompt, text) for key, prompt in self.prompts.items() for text in self.texts[key]]

    @property
    def described(self) -> str:
        """How many there are, and why some are not."""
        counts = f"{len(self.pairs):,} completions of {len(self.prompts):,} prompts"
        return counts + "".join(f", {n:,} left out: {why}" for why, n in sorted(self.left_out.items()))


def read_groups(path: Path, prompts: Sequence[Path] = PROMPTS) -> Reading:
    """The completions of a file. A prompt that `prompts` holds comes with all its columns."""
    known: dict[str, list[Prompt]] = {}
    for file in (file for folder in prompts for file in sorted(folder.glob("*.jsonl"))):
        for one in read_records(file, Prompt):
            known.setdefault(one.id, []).append(one)
    reading = Reading()
    for number, row in read_rows(path):
        if not isinstance(row, Mapping) or "prompt_id" not in row:
            raise ChainForgeError(
                f"{path}, line {number}: no prompt_id",
                "name a file of completions: data/eval/CHECKPOINT/BENCH.jsonl, or a traces or accepted file",
            )
        prompt, texts = prompt_of(row, known), texts_of(row)
        if prompt is None:
            reading.left_out["their prompt is not in data/prompts or data/benches"] += 1
        elif texts is None:
            reading.left_out["unfinished, or with a tag inside"] += 1
        else:
            for text in texts:
                reading.add(prompt, text)
    if not reading.pairs:
        raise ChainForgeError(
            f"{path} has no completion to score: {reading.described}", "make the prompts: dvc repro prompts"
        )
    return reading


def prompt_of(row: Mapping[str, Any], known: Mapping[str, Sequence[Prompt]]) -> Prompt | None:
    """The row's prompt: one of the known ones with that id and text, else as much as the row tells."""
    messages: tuple[Message, ...] = tuple(row.get("messages") or ())
    if "question" in row and not messages:
        messages = ({"role": "user", "content": str(row["question"])},)
    candidates = known.get(str(row["prompt_id"]), ())
    for prompt in candidates:
        if not messages or prompt.messages[-1]["content"] == messages[-1]["content"]:
            return prompt
    if not messages:
        return None
    return Prompt(str(row["prompt_id"]), str(row.get("source", "")), messages, row.get("answer"))


def texts_of(row: Mapping[str, Any]) -> list[str] | None:
    """The row's completions; None for a trace that no response can be made of."""
    if "samples" in row:
        return [str(sample["text"]) for sample in row["samples"]]
    if "reasoning" in row:
        form, parts = response_format(), (str(row["reasoning"]), str(row.get("content", "")))
        if row.get("finish") != "stop" or any(tag in part for tag in form.tags for part in parts):
            return None
        return [form.render(*parts)]
    text = row.get("text", row.get("response"))
    return None if text is None else [str(text)]


def score(
    plugins: Plugins,
    names: Sequence[str],
    reading: Reading,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, list[float | None]]:
    """What each reward, with its own settings, gives every completion of `reading.pairs`."""
    columns: dict[str, list[float | None]] = {name: [] for name in names}  # one may be named twice
    keys = list(reading.prompts)
    with make_scorer(plugins, dict.fromkeys(names, 1.0), bench(), settings) as scorer:
        for start in range(0, len(keys), AT_ONCE):
            chunk = keys[start : start + AT_ONCE]
            prompts = [reading.prompts[key] for key in chunk]
            groups = [[completion(reading.prompts[key], t) for t in reading.texts[key]] for key in chunk]
            for group in scorer.score(prompts, groups):
                for given in group.scores:
                    for name in columns:
                        columns[name].append(given.parts[name])
    return columns


def completion(prompt: Prompt, text: str) -> Completion:
    """As a teacher's trace is scored: the files hold no token ids."""
    return Completion(prompt.id, text, (), (), "stop", "file")

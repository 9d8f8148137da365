"""docs/rewards.md: every bundled reward has a section, and every example there is what the reward says."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import ROOT, SUPERCOT, completion
from tree import PLUGINS as BUNDLED

from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.records import Prompt
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

PAGE = (ROOT / "docs/rewards.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
PLUGINS = load_plugins(ROOT / "plugins")
Example = tuple[Prompt, str, float | None]


def cells(line: str) -> list[str]:
    """The cells of a row, without their backticks."""
    parts = (
        part.strip().replace("\\|", "|").replace("⏎", "\n") for part in re.split(r"(?<!\\)\|", line)[1:-1]
    )
    return [part[1:-1] if part.startswith("`") and part.endswith("`") else part for part in parts]


def examples(section: str) -> Iterator[Example]:
    """The rows of every table of a section whose last column is `value`."""
    for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        names, _, *rows = map(cells, table.splitlines())
        for row in rows if names[-1] == "value" else ():
            yield example(dict(zip(names, row, strict=True)))


def example(row: dict[str, str]) -> Example:
    value = row.pop("value")
    text = row.pop("completion", None)
    if text is None:
        text = SUPERCOT.render(row.pop("reasoning", "so"), row.pop("summary", "18"))
    answer, question = row.pop("answer", None), row.pop("prompt", "?")
    columns: dict[str, Any] = {name: json.loads(cell) if cell else None for name, cell in row.items()}
    prompt = Prompt("example", "docs", ({"role": "user", "content": question},), answer or None, columns)
    return prompt, text, None if value == "None" else float(value)


def test_every_bundled_reward_has_a_section_in_alphabetical_order() -> None:
    entries = [entry for (role, _), entry in PLUGINS.entries.items() if role == "rewards"]
    bundled = [entry.name for entry in entries if Path(str(entry.module.__file__)).stem in BUNDLED]
    assert list(SECTIONS) == sorted(bundled)
    assert all("**Range:**" in section for section in SECTIONS.values())


@pytest.mark.dear
@pytest.mark.parametrize("name", SECTIONS)
def test_the_examples_are_what_the_reward_says(name: str) -> None:
    found = list(examples(SECTIONS[name]))
    if not found and "**No examples:**" in SECTIONS[name]:
        pytest.skip("it says why it has none")
    assert len({value for _, _, value in found}) >= 2
    own = re.search(r"^Settings of the examples: `(.+)`\.$", SECTIONS[name], re.MULTILINE)
    reward = make_reward(PLUGINS.pick("rewards", name), 1.0, json.loads(own[1]) if own else {})
    options = replace(reward.options, isolation="inline", each_s=None, prepare=None)
    try:
        reward.check_ready()
    except ChainForgeError as error:
        pytest.skip(error.problem)  # for want of a package or of a sandbox
    with Scorer((replace(reward, options=options),), SUPERCOT, 60.0) as scorer:
        groups = scorer.score(
            [prompt for prompt, _, _ in found],
            [[completion(prompt, text, range(len(text)))] for prompt, text, _ in found],
        )
    said = [group.scores[0].parts[name] for group in groups]
    for (_, text, value), got in zip(found, said, strict=True):
        assert got == (None if value is None else pytest.approx(value, abs=0.005)), text

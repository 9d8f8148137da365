"""What the laws are tried on: prompts with and without an answer, right, wrong and odd responses."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chainforge.records import Completion, Message, Prompt
from chainforge.response import TagFormat

SUMS = (("12+35=?", "47"), ("78*3=?", "234"), ("719-665=?", "54"))
CHOICES = (
    ("Which is even? A) 3 B) 4", "B"),
    ("Which is odd? A) 7 B) 8", "A"),
    ("Who is tall? A) B) C)", "C"),
)
HUGE = 100_000  # characters
TOKENS = 1_000  # at most, of a completion

ODD = {
    "empty text": "",
    "white space": " \n\t\u00a0\u2028",
    "a huge text": "why? " * (HUGE // 5),
    "one huge word": "x" * HUGE,
    "huge digits": "9" * HUGE,
    "huge brackets": "(" * HUGE,
    "a lone surrogate": "\ud800 4\udfff2",
    "right-to-left text": "\u202eהתשובה היא ٤٢ \u200f\u0639\u0631\u0628\u064a",
    "a NUL": "4\x002",
    "emoji": "👩‍👩‍👧‍👦 = 4️⃣2️⃣ 🏳️‍🌈",
    "combining marks": "4" + "\u0301" * 500,
    "other scripts' digits": "४२ ½ ² Ⅷ 一百",
    "control characters": "\x1b[31m\r\b\x7f\ufeff",
    "braces and percents": "{0} {x!r} %s %(n)d \\boxed{ \\N{",
}


def sample_prompts(
    columns: Mapping[str, Any] | None = None, refuses: Callable[[str], str | None] | None = None
) -> list[Prompt]:
    """Three sums with their answers, and a prompt that has none; choices, where `refuses` says so of sums."""
    asked = CHOICES if refuses and refuses(SUMS[0][1]) and not refuses(CHOICES[0][1]) else SUMS
    solved = {"solution": "It is worked out step by step.\n#### {}"}
    prompts = [
        Prompt(
            f"sample-{number}",
            "sums",
            ({"role": "user", "content": question},),
            answer,
            {name: text.format(answer) for name, text in solved.items()} | dict(columns or {}),
        )
        for number, (question, answer) in enumerate(asked, start=1)
    ]
    kind: Message = {"role": "user", "content": "Say something kind."}
    return [*prompts, Prompt("sample-open", "talk", (kind,), None, dict(columns or {}))]


def make_completion(prompt: Prompt, text: str) -> Completion:
    """A completion as if a policy had written it; an id per character stands for its first tokens."""
    ids = tuple(ord(letter) % 256 for letter in text[:TOKENS])
    return Completion(prompt.id, text, ids, (-1.0,) * len(ids), "stop", "sample")


def responses(prompt: Prompt, form: TagFormat) -> list[str]:
    """What a policy may well write: right, wrong, without reasoning, tags missing or in the wrong place."""
    right = prompt.answer or "You are kind."
    start, stop, *_ = form.tags
    return [
        form.render(f"First I look at {prompt.messages[-1]['content']} Then I work it out.", right),
        form.render("A guess.", wrong_answer(right)),
        form.render("", ""),
        right,
        f"{start}{right}",
        f"{stop}{right}{start}",
        form.render("Twice.", right) * 2,
    ]


def odd_responses(text: str, form: TagFormat) -> list[str]:
    """An odd text on its own, in either part of a response, and cut off."""
    return [text, form.render(text, "42"), form.render("So.", text), form.tags[0] + text]


def wrong_answer(right: str) -> str:
    """Another answer of the same length: what a reward for style cannot tell from the right one."""
    changed = "".join(str((int(letter) + 1) % 10) if letter in "0123456789" else letter for letter in right)
    return changed if changed != right else ("y" if right[:1] != "y" else "n") + right[1:]


def as_groups(prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[Completion]]:
    """Completions by prompt, as a rollout has them."""
    pairs = zip(prompts, texts, strict=True)
    return [[make_completion(prompt, text) for text in group] for prompt, group in pairs]

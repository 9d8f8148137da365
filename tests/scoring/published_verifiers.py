"""Reward functions as their authors write them for a rubric of verifiers: one completion at a time."""

import asyncio


def exact_answer(completion, answer) -> float:
    """1 if the last message is the answer, letter by letter."""
    return 1.0 if completion[-1]["content"].strip() == answer else 0.0


async def effort(prompt, completion, info, state, **kwargs) -> float | None:
    """Longer answers to harder questions; does not apply to a question without a level."""
    state["turns"] = state.get("turns", 0) + 1
    await asyncio.sleep(0)
    if info.get("level") is None:
        return None
    assert isinstance(prompt, str)
    return len(completion.split()) / {"easy": 1, "hard": 2}[info["level"]] / state["turns"]

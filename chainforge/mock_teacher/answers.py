"""Who answers: the first teacher that can read the question, or else the filler."""

import random
from collections import deque
from collections.abc import Sequence

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import Teacher
from chainforge.mock_teacher.asked import Label
from chainforge.mock_teacher.filler import Filler
from chainforge.mock_teacher.refused import Refused
from chainforge.records import Message, Prompt, Trace


def answer(messages: Sequence[Message], label: Label, teachers: Sequence[Teacher], filler: Filler) -> Trace:
    """The trace that a teacher in the process would give for this seed, prompt and sample.

    The last message of the user is the question. Raises Refused with 500 if a teacher breaks.
    """
    question = next(message for message in reversed(messages) if message["role"] == "user")
    prompt = Prompt(label.prompt, "mock", (question,))
    for teacher in teachers:
        try:
            traces = teacher.generate([prompt], n=label.sample + 1, seed=label.seed)
            return deque(traces, maxlen=1).pop()
        except ChainForgeError:
            continue  # it cannot read this one
        except Exception as error:
            raise Refused(500, f"{type(teacher).__name__} failed: {type(error).__name__}: {error}") from error
    return filler.trace(label.prompt, random.Random(f"{label.seed}:{label.prompt}:{label.sample}"))

"""What a collection will ask and cost, before it does."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from chainforge.hookspecs import ApiTeacher
from chainforge.providers.calls import Usage
from chainforge.teachers.paid import Paid
from chainforge.teachers.question import Question

CHARACTERS_PER_TOKEN = 4  # of English text
SHORT_ANSWER = 1000  # tokens of reasoning and answer that an easy problem takes


@dataclass(frozen=True, slots=True)
class Estimate:
    """`low` is one call per question, off peak, with short answers; `high` is what no call can pass: every
    token that it may write, at the peak price. Asking again comes on top of both. USD, None if unknown.
    """

    questions: int
    left: int
    prompt_tokens: int
    low_output_tokens: int
    high_output_tokens: int
    low_usd: Decimal | None
    high_usd: Decimal | None


def estimate(teacher: ApiTeacher, questions: Sequence[Question], paid: Paid) -> Estimate:
    """What is left to ask, after what the journal answers. Needs no key."""
    left = [question for question in questions if question.fingerprint not in paid.finals]
    lengths = [sum(len(m["content"]) for m in question.messages) for question in left]
    prompt_tokens = sum(length // CHARACTERS_PER_TOKEN + 1 for length in lengths)
    short = min(SHORT_ANSWER, teacher.max_tokens)
    low = high = None
    if teacher.prices:
        usage = Usage(hit=0, miss=prompt_tokens, output=short * len(left))
        low = teacher.prices.cost(usage, "off-peak")
        high = sum((teacher.prices.most(q.messages, teacher.max_tokens) for q in left), Decimal(0))
    return Estimate(
        questions=len(questions),
        left=len(left),
        prompt_tokens=prompt_tokens,
        low_output_tokens=short * len(left),
        high_output_tokens=teacher.max_tokens * len(left),
        low_usd=low,
        high_usd=high,
    )

"""What one request gets: its answer, or its fault."""

from dataclasses import dataclass

from chainforge.mock_teacher.answers import answer
from chainforge.mock_teacher.asked import Asked, Label, digest
from chainforge.mock_teacher.dialect import Dialect
from chainforge.mock_teacher.dialects import ANTHROPIC, DIALECTS
from chainforge.mock_teacher.draft import Draft, prompt_usage
from chainforge.mock_teacher.faults import Fault, on_wire
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.plan import Plan, events_plan, json_plan
from chainforge.mock_teacher.refused import Refused
from chainforge.mock_teacher.wreck import Scene

RETIRED = {"deepseek-reasoner", "deepseek-chat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What is sent; `draft` is what was generated and is billed, None where nothing was."""

    plan: Plan
    label: Label | None = None
    fault: Fault | None = None
    draft: Draft | None = None

    @property
    def whole(self) -> bool:
        """Whether it is an answer with choices, finish reason and usage, once it arrives."""
        return self.draft is not None and (self.fault is None or self.fault.whole)


def deal(mock: MockTeacher, asked: Asked, label: Label, dialect: Dialect, number: int) -> Deal:
    """What the request gets that is the server's so-manyeth. Raises Refused."""
    if dialect.name == "deepseek" and asked.model in RETIRED:
        raise Refused(400, "Model Not Exist")
    fault = on_wire(mock.faults.fault(label, number), stream=asked.stream)
    if fault is None:
        answered = drafted(mock, asked, label)
        return Deal(plan=_plan(mock, asked, dialect, answered), label=label, draft=answered)
    if fault.dialect and dialect is not ANTHROPIC:
        dialect = DIALECTS[fault.dialect]
    draft = drafted(mock, asked, label) if fault.billed or fault.status == 200 else None
    if draft and fault.spoil:
        draft = fault.spoil(draft)
    if draft is None or fault.status != 200:
        plan = json_plan(dialect.error(fault.status, fault.message), fault.status)
    else:
        plan = _plan(mock, asked, dialect, draft)
    if fault.wreck:
        script = mock.faults
        scene = Scene(
            dialect=dialect,
            retry_after_s=script.retry_after_s,
            blank_s=script.blank_s,
            drip_s=script.drip_s,
        )
        plan = fault.wreck(plan, scene)
    return Deal(plan=plan, label=label, fault=fault, draft=draft if fault.billed else None)


def drafted(mock: MockTeacher, asked: Asked, label: Label) -> Draft:
    """The answer as it should be."""
    trace = answer(asked.messages, label, mock.teachers, mock.filler)
    named = f"{label.seed}/{label.prompt}/{label.sample}/{asked.model}"
    draft = Draft(
        id=f"mock-{digest(named.encode())}",
        model=asked.model,
        reasoning=None,
        content=None,
        finish=None,
        usage=prompt_usage(asked.messages, cache=mock.cache),
    )
    return draft.saying(trace.reasoning, trace.content, trace.finish).within(asked.max_tokens)


def _plan(mock: MockTeacher, asked: Asked, dialect: Dialect, draft: Draft) -> Plan:
    if asked.stream:
        return events_plan(dialect.events(draft, with_usage=asked.with_usage), mock.tokens_per_s)
    return json_plan(dialect.body(draft))

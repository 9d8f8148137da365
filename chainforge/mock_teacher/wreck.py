"""What faults do to a response on its way. Pure: a plan becomes another one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from chainforge.mock_teacher.dialect import Dialect
from chainforge.mock_teacher.plan import Plan, json_plan

BLANKS = 5
HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
SPLIT_PAUSE_S = 0.01  # or the pieces would arrive as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a fault may need to know besides the plan."""

    dialect: Dialect
    retry_after_s: float
    blank_s: float
    drip_s: float


def with_retry_after(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, headers={**plan.headers, "Retry-After": f"{scene.retry_after_s:g}"})


def as_html(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, content_type="text/html", pieces=(HTML,), length=len(HTML))


def blank_lines_first(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, silence=(b"\n",) * BLANKS, silence_s=scene.blank_s, length=None)


def comments_first(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, silence=(b": keep-alive\n\n",) * BLANKS, silence_s=scene.blank_s)


def blank_lines_only(plan: Plan, scene: Scene) -> Plan:
    return replace(blank_lines_first(plan, scene), pieces=())


def blank_lines_for_ever(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, silence=(b"\n",), silence_s=scene.blank_s, length=None, ending="endless")


def empty(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, pieces=(), length=0)


def cut(plan: Plan, scene: Scene) -> Plan:
    """A stream ends in good order, as if it were over; other bodies before their length."""
    if plan.streams:
        return replace(plan, pieces=_a_third(plan))
    return replace(plan, pieces=(_half(plan),), ending="short")


def bad_json(plan: Plan, scene: Scene) -> Plan:
    """The closing bracket is missing; in a stream, in one of the events."""
    if not plan.streams:
        return replace(plan, pieces=(plan.body[:-1],), length=len(plan.body) - 1)
    start = _a_third(plan)
    *before, broken = start
    after = plan.pieces[len(start) :]
    return replace(plan, pieces=(*before, broken.rstrip()[:-1] + b"\n\n", *after))


def error_event(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, pieces=(*_a_third(plan), scene.dialect.error_event("upstream failed")))


def error_instead(plan: Plan, scene: Scene) -> Plan:
    """JSON of an error under status 200, even where a stream was asked for."""
    return json_plan(scene.dialect.error(500, "upstream failed"))


def reset_before(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, pieces=(), ending="reset")


def reset_midway(plan: Plan, scene: Scene) -> Plan:
    pieces = _a_third(plan) if plan.streams else (_half(plan),)
    return replace(plan, pieces=pieces, ending="reset")


def drip(plan: Plan, scene: Scene) -> Plan:
    """Byte by byte."""
    body = plan.body
    return replace(plan, pieces=tuple(bytes([b]) for b in body), pause_s=scene.drip_s / max(1, len(body)))


def split_characters(plan: Plan, scene: Scene) -> Plan:
    """Cut before each character's second byte."""
    return replace(plan, pieces=tuple(_split(plan.body)), pause_s=SPLIT_PAUSE_S)


def hang(plan: Plan, scene: Scene) -> Plan:
    return replace(plan, ending="hang")


def _a_third(plan: Plan) -> tuple[bytes, ...]:
    """Of the events, at least one: some text has come, the finish has not."""
    return plan.pieces[: max(1, len(plan.pieces) // 3)]


def _half(plan: Plan) -> bytes:
    return plan.body[: len(plan.body) // 2]


def _split(body: bytes) -> Iterator[bytes]:
    start = 0
    for i in range(1, len(body)):
        if body[i - 1] >= 0xC0:  # the byte before begins a character of several
            yield body[start:i]
            start = i
    yield body[start:]

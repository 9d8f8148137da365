"""What faults do to an answer before it is put into words. Pure."""

from dataclasses import replace

from chainforge.mock_teacher.draft import Draft

NOT_ASCII = "naïve café, 東京, ☕"


def cut_off(draft: Draft) -> Draft:
    """Out of tokens half-way through the reasoning."""
    return draft.saying(half(draft.reasoning), "", "length")


def filtered(draft: Draft) -> Draft:
    """Half of the content, then a filter stepped in."""
    return draft.saying(draft.reasoning or "", half(draft.content), "content_filter")


def interrupted(draft: Draft) -> Draft:
    """Half of the reasoning, then the provider needed its machines."""
    return draft.saying(half(draft.reasoning), "", "insufficient_system_resource")


def oddly_finished(draft: Draft) -> Draft:
    """A finish reason that no client knows."""
    return replace(draft, finish="mystery")


def without_finish(draft: Draft) -> Draft:
    """No finish reason."""
    return replace(draft, finish=None)


def without_usage(draft: Draft) -> Draft:
    """No usage, though there was some."""
    return replace(draft, usage_told=0)


def with_usage_twice(draft: Draft) -> Draft:
    """The same usage in two chunks."""
    return replace(draft, usage_told=2)


def without_choices(draft: Draft) -> Draft:
    """No choices, though there is usage."""
    return replace(draft, choices=False)


def without_text(draft: Draft) -> Draft:
    """Neither reasoning nor content; what was generated is lost."""
    return replace(draft, reasoning=None, content=None)


def without_reasoning(draft: Draft) -> Draft:
    """The content alone, as with thinking switched off."""
    return draft.saying("", draft.content or "", draft.finish or "stop")


def beyond_ascii(draft: Draft) -> Draft:
    """A field beside the answer has characters of several bytes."""
    return replace(draft, note=NOT_ASCII)


def half(text: str | None) -> str:
    """The first half."""
    return (text or "")[: len(text or "") // 2]

"""The contract of a teacher. It is asked about a few prompts, three times at most five."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from chainforge.errors import ChainForgeError
from chainforge.hookspecs import ApiTeacher
from chainforge.plugins import Entry, make_component
from chainforge.records import Prompt, Trace, from_json, to_json
from chainforge.testing.api_teachers import LAWS as API_LAWS
from chainforge.testing.api_teachers import ApiTeacherCase
from chainforge.testing.imports import imports_nothing_slow, imports_the_public_api
from chainforge.testing.laws import Breach, Finding, Law, check, demand
from chainforge.testing.samples import sample_prompts
from chainforge.testing.subjects import response_format

PROMPTS = 4  # to ask about


@dataclass(frozen=True)
class TeacherCase:
    """A teacher with its settings, and the prompts to ask it about."""

    entry: Entry
    settings: Mapping[str, Any]
    prompts: Sequence[Prompt]
    samples: int

    def ask(self, prompts: Sequence[Prompt], seed: int = 17) -> list[Trace]:
        """All traces of a teacher made afresh."""
        teacher = make_component(self.entry, self.settings)
        given = teacher.generate(list(prompts), n=self.samples, seed=seed)
        demand(isinstance(given, Iterable), f"`generate` gives {type(given).__name__}, not traces")
        return list(islice(given, len(prompts) * self.samples + 1))  # it may never end

    @cached_property
    def traces(self) -> list[Trace]:
        """What it says to all prompts."""
        return self.ask(self.prompts)


def check_teacher(
    entry: Entry,
    settings: Mapping[str, Any] | None = None,
    *,
    prompts: Sequence[Prompt] | None = None,
    samples: int = 2,
) -> list[Finding]:
    """A finding per law. A teacher behind an API is not asked."""
    if behind_an_api(entry, settings or {}):
        return check(API_LAWS, ApiTeacherCase(entry, settings or {}))
    asked = list(prompts or sample_prompts()[:3])[:PROMPTS]
    return check(LAWS, able(TeacherCase(entry, settings or {}, asked, samples)))


def behind_an_api(entry: Entry, settings: Mapping[str, Any]) -> bool:
    """Whether it makes one; if it makes nothing, the laws tell why."""
    try:
        return isinstance(make_component(entry, settings), ApiTeacher)
    except (Exception, SystemExit):
        return False


def able(case: TeacherCase) -> TeacherCase:
    """With one trace per prompt if the teacher says that it has no more to give."""
    try:
        case.traces  # noqa: B018 - asked once, kept for the laws
    except ChainForgeError:
        return replace(case, samples=1)
    except (Exception, SystemExit):  # the laws report it
        return case
    return case


def quick_import(case: TeacherCase) -> str | None:
    return imports_nothing_slow(case.entry)


def public_api(case: TeacherCase) -> str | None:
    return imports_the_public_api(case.entry)


def n_traces_each(case: TeacherCase) -> str | None:
    for trace in case.traces:
        demand(isinstance(trace, Trace), f"gives {type(trace).__name__}, not cf.Trace")
        try:
            from_json(Trace, to_json(trace))
        except ValueError as error:
            raise Breach(f"a trace of {trace.prompt_id!r}: {error}") from error
    given = Counter(trace.prompt_id for trace in case.traces)
    for prompt in case.prompts:
        demand(
            given[prompt.id] == case.samples,
            f"asked for {case.samples} of {prompt.id!r}, gives {given[prompt.id]}: one that failed is a "
            "trace too, with finish 'error'",
        )
    strangers = sorted(set(given) - {prompt.id for prompt in case.prompts})
    demand(not strangers, f"answers {strangers[:1]}, which nobody asked")
    ends = Counter(trace.finish for trace in case.traces)
    asked = f"{len(case.prompts)} prompts, {case.samples} each"
    return asked if set(ends) == {"stop"} else f"{asked}: {dict(ends)}"


def no_tags(case: TeacherCase) -> str | None:
    for trace in case.traces:
        found = [tag for tag in response_format().tags if tag in trace.reasoning + trace.content]
        demand(not found, f"the trace of {trace.prompt_id!r} contains the tag {found[:1]}")
    return None


def same_seed(case: TeacherCase) -> str | None:
    demand(by_prompt(case.ask(case.prompts)) == by_prompt(case.traces), "the same seed gives other traces")
    return None


def subset_says_the_same(case: TeacherCase) -> str | None:
    """Who resumes a collection asks about the rest alone."""
    half = list(reversed(case.prompts))[: max(1, len(case.prompts) // 2)]
    all_of_them = by_prompt(case.traces)
    for prompt_id, traces in by_prompt(case.ask(half)).items():
        demand(
            traces == all_of_them.get(prompt_id),
            f"asked about {len(half)} of {len(case.prompts)} prompts, in another order, it says something "
            f"else to {prompt_id!r}: draw from random.Random(f'{{seed}}:{{prompt.id}}')",
        )
    return None


def by_prompt(traces: Sequence[Trace]) -> dict[str, Counter[Trace]]:
    """Traces of each prompt, in whatever order."""
    found: dict[str, Counter[Trace]] = {}
    for trace in traces:
        found.setdefault(trace.prompt_id, Counter())[trace] += 1
    return found


LAWS: tuple[Law[TeacherCase], ...] = (
    ("imports neither torch nor transformers", quick_import),
    ("imports nothing of ChainForge but its public API", public_api),
    ("gives n traces per prompt", n_traces_each),
    ("writes no tag of the response format", no_tags),
    ("the same seed gives the same traces", same_seed),
    ("some prompts alone get the traces they get among others", subset_says_the_same),
)

"""A problem's way as text for a terminal: a section per step, long texts in one line but for --full."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from chainforge.trace.paper import Paper

Facts = Mapping[str, Any]
LAST = 3  # RL steps whose completions are shown, unless all is asked for
MARKS = {True: "✓", False: "✗", None: "·"}


def as_text(facts: Facts, *, width: int = 80, full: bool = False) -> str:
    """The object of gather.py as a person reads it."""
    paper = Paper(width, full)
    lines = [facts["prompt_id"], *_problems(facts, paper)]
    for step in facts["steps"]:
        lines += ["", f"{step['step']}", *SECTIONS[step["verb"]](step, paper)]
    if not facts["steps"]:
        lines += ["", paper.prose("No step has done anything with it yet.", 0)]
    if changed := facts["changed_since"]:
        names = ", ".join(changed)
        lines += ["", paper.prose(f"The settings are no longer those that these steps ran with: {names}", 0)]
    return "\n".join(lines)


def _problems(facts: Facts, paper: Paper) -> Iterator[str]:
    texts = {(str(p["messages"]), p["answer"]) for p in facts["problems"]}
    if len(texts) > 1:
        yield paper.prose(f"{len(texts)} problems have this id: what follows may be of any of them.")
    for problem in facts["problems"]:
        split = f", split {problem['split']}" if problem["split"] else ""
        place = f"{problem['file']}, line {problem['line']}"
        yield paper.prose(f"{place} ({problem['step']}{split}), source {problem['source']}")
    for shown in {(str(p["messages"]), p["answer"]): p for p in facts["problems"]}.values():
        for message in shown["messages"]:
            yield paper.text(message["role"], message["content"], 2)
        if shown["answer"] is not None:
            yield paper.text("answer", shown["answer"], 2)


def _collect(step: Facts, paper: Paper) -> Iterator[str]:
    if calls := step["calls"]:
        cost = sum(float(call.get("cost_usd", 0)) for call in calls)
        again = sum(call["attempt"] > 0 for call in calls)
        yield paper.prose(
            f"teacher {step['teacher']}, {count(len(calls), 'call')}, {again} of them again, ${cost:.6f}"
        )
    else:
        yield paper.prose(f"teacher {step['teacher']}: it runs here, and costs nothing")
    for call in calls:
        yield paper.prose(_call(call), 4)
    for trace in step["traces"]:
        yield paper.prose(
            f"{trace['file']}, line {trace['line']}: {trace['origin']}, finish {trace['finish']}", 4
        )
        yield paper.text("reasoning", trace["reasoning"], 6)
        yield paper.text("answer", trace["content"], 6)


def _call(call: Facts) -> str:
    ends = {"answer": "answered", "failed": "failed", None: "no end is known"}
    told = [f"sample {call['sample'] + 1}, attempt {call['attempt'] + 1}: {ends[call['end']]}"]
    told += [f"by {call['model']}"] if "model" in call else []
    told += [f"finish {call['finish']}"] if "finish" in call else []
    told += [f"${float(call['cost_usd']):.6f}"] if "cost_usd" in call else []
    told += [f"{call['latency_s']:.1f} s"] if "latency_s" in call else []
    told += [f"HTTP {call['http_status']}"] if "http_status" in call else []
    told += [str(call["cause"])] if call.get("cause") else []
    told += [f"{call['message']:.160}"] if call.get("message") else []
    told += ["taken from another journal"] if call.get("reused") else []
    return ", ".join(told)


def _filter(step: Facts, paper: Paper) -> Iterator[str]:
    for it in step["decisions"]:
        verdict = "kept" if it["kept"] else f"dropped, {it['reason']}: {it['why'] or ''}".rstrip(": ")
        yield paper.prose(f"{step['traces']}, line {it['line']}: {verdict}")


def _training(step: Facts, paper: Paper) -> Iterator[str]:
    words = {
        "trained": f"trained on, {step['epochs']:g} epoch{'s' * (step['epochs'] != 1)}",
        "held out": "held out for the evaluation loss",
        "unknown": "trained on, held out or too long: only the tokenizer could tell",
    }
    for row in step["examples"]:
        yield paper.prose(f"{row['file']}, line {row['line']}: {words[row['use']]}")
        yield paper.text("response", row["response"])


def _grpo(step: Facts, paper: Paper) -> Iterator[str]:
    drawn = step["drawn"]
    if drawn is None:
        yield paper.prose(
            "which RL steps drew it is not known: with resample_rounds only what was sampled tells"
        )
    elif not drawn:
        yield paper.prose(f"drawn in none of {step['rl_steps']} RL steps")
    else:
        yield paper.prose(
            f"drawn in RL step{'s' * (len(drawn) > 1)} {', '.join(map(str, drawn))} of {step['rl_steps']}"
        )
    if step["missing"] and drawn != []:
        yield paper.prose(step["missing"])
    rollouts = [
        (k, list(rows)) for k, rows in groupby(step["completions"], lambda r: (r["iteration"], r["group"]))
    ]
    for place, ((number, _), rows) in enumerate(rollouts):
        totals = [row["total"] for row in rows if row["total"] is not None]
        mean = f", mean reward {sum(totals) / len(totals):.3f}" if totals else ""
        right = sum(row["right"] is True for row in rows)
        yield paper.prose(f"RL step {number}: {count(len(rows), 'completion')}, {right} right{mean}")
        if paper.full or place >= len(rollouts) - LAST:
            yield from _completions(rows, paper)
    if not paper.full and len(rollouts) > LAST:
        yield paper.prose(f"--full shows the completions of all {len(rollouts)}")


def _sample(step: Facts, paper: Paper) -> Iterator[str]:
    made = count(len(step["accepted"]), "example")
    yield paper.prose(f"{count(step['samples'], 'sample')} asked for; {made} made of it")
    for row in step["accepted"]:
        yield paper.text(f"{row['file']}, line {row['line']}", row["response"])
    if step["missing"]:
        yield paper.prose(step["missing"])
    yield from _completions(step["completions"], paper)


def _completions(rows: list[Facts], paper: Paper) -> Iterator[str]:
    """A line of figures and a line of text for each."""
    for row in rows:
        rewards = " ".join(f"{name} {short(value)}" for name, value in row["rewards"].items())
        told = [f"{MARKS[row['right']]} {row['index'] + 1:>2}", f"total {short(row['total'])}", rewards]
        told += [f"advantage {row['advantage']:+.3f}"] if row.get("advantage") is not None else []
        told += [{True: "kept", False: "not kept"}[row["kept"]]] if row.get("kept") is not None else []
        told += [f"{row['tokens']} tokens", ending(row["finish"])]
        yield paper.prose("  ".join(filter(None, told)), 4)
        yield paper.text("", row["text"], 9)


def _evaluation(step: Facts, paper: Paper) -> Iterator[str]:
    samples, greedy = step["samples"], step["greedy"]
    best = "" if greedy is None else f", greedy {'right' if step['greedy_right'] else 'not right'}"
    place = f"({step['file']}, line {step['line']})"
    yield paper.prose(f"{step['right']} of {count(len(samples), 'sample')} right{best} {place}")
    answers = ([("greedy", greedy)] if greedy else []) + [(str(n), s) for n, s in enumerate(samples, start=1)]
    for name, answer in answers:
        rewards = " ".join(f"{reward} {short(value)}" for reward, value in answer["rewards"].items())
        yield paper.prose(
            "  ".join(filter(None, [name, rewards, f"{answer['tokens']} tokens", ending(answer["finish"])])),
            4,
        )
        yield paper.text("", answer["text"], 9)


def ending(finish: str) -> str:
    """Nothing for an ordinary end."""
    return {"stop": "", "length": "cut off"}.get(finish, finish)


def short(value: float | None) -> str:
    """A reward, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def count(number: int, noun: str) -> str:
    """1 call, 2 calls."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


SECTIONS = {
    "collect": _collect,
    "filter": _filter,
    "sft": _training,
    "distill": _training,
    "grpo": _grpo,
    "sample": _sample,
    "evaluate": _evaluation,
}

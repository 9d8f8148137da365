"""Data between steps that somebody edited, or that was torn."""

import json

from malformed.case import Case, append, fifo, put, write

SFT = "python -m stages.sft sft_cold_start"
FILTER = "python -m stages.filter filter_cot"
REPORT = "python -m stages.report report"
EVAL = "data/eval/qwen_sft_ckpt/reasoning.jsonl"
ROW: dict[str, object] = {
    "prompt_id": "p",
    "source": "s",
    "question": "q",
    "answer": "1",
    "greedy": None,
    "samples": [{"text": "t", "finish": "stop", "tokens": 1, "rewards": {"correct": 0.0, "format": 0.0}}],
}
EXAMPLE: dict[str, object] = {
    "prompt_id": "p",
    "messages": [{"role": "user", "content": "6*7?"}],
    "response": "42",
    "origin": "x",
}
TRACE: dict[str, object] = {
    "prompt_id": "p",
    "reasoning": "r",
    "content": "c",
    "finish": "stop",
    "origin": "x",
}
NOT_JSON = {
    "not JSON": "{oops\n",
    "a list": "[1]\n",
    "not UTF-8": b"\xff\xfe\n",
    "deep": "[" * 100_000 + "\n",
}


def rows(**changed: object) -> str:
    return json.dumps(changed) + "\n"


CASES = [
    *(
        Case(
            tried=f"examples: {name}",
            spoil=write("data/cot/accepted.jsonl", text),
            command=SFT,
            says=r"accepted\.jsonl",
            quick=name == "not JSON",
        )
        for name, text in NOT_JSON.items()
    ),
    *(
        Case(
            tried=f"examples: {key} is {value!r}",
            spoil=append("data/cot/accepted.jsonl", rows(**(EXAMPLE | {key: value}))),
            command=SFT,
            says=key.removesuffix("s"),
        )
        for key, value in (
            ("messages", "a text"),
            ("messages", [{"role": "poet", "content": "x"}]),
            ("messages", [{"role": "user"}]),
            ("response", None),
            ("prompt_id", 5),
        )
    ),
    Case(
        tried="examples: none at all",
        spoil=write("data/cot/accepted.jsonl", ""),
        command=SFT,
        says="is empty",
    ),
    Case(tried="examples: a pipe", spoil=fifo("data/cot/accepted.jsonl"), command=SFT, says="accepted"),
    *(
        Case(
            tried=f"traces: {key} is {value!r}",
            spoil=append("data/cot/traces.jsonl", rows(**(TRACE | {key: value}))),
            command=FILTER,
            says=key,
        )
        for key, value in (
            ("finish", "banana"),
            ("reasoning", None),
            ("content", 5),
            ("prompt_id", None),
            ("extra", 1),
        )
    ),
    *(
        Case(
            tried=f"calls.json: {name}",
            spoil=write("data/cot/calls.json", text),
            command=FILTER,
            says=r"calls\.json",
        )
        for name, text in (
            ("wrong types", '{"teacher": 5, "requests": "x"}'),
            ("a list", "[]"),
            ("garbage", "{"),
        )
    ),
    *(
        Case(
            tried=f"evaluation rows: {key} is {value!r}",
            spoil=write(EVAL, rows(**(ROW | {key: value}))),
            command=REPORT,
            says=r"reasoning\.jsonl",
        )
        for key, value in (
            ("samples", None),
            ("samples", ["a"]),
            ("greedy", "x"),
            ("greedy", {"finish": "stop"}),
            ("question", None),
        )
    ),
    *(
        Case(
            tried=f"a curve: {name}",
            spoil=write("plots/sft_cold_start.csv", text),
            command=REPORT,
            says=r"sft_cold_start\.csv",
        )
        for name, text in (
            ("empty", ""),
            ("not UTF-8", b"step,loss\n1,\xff\n"),
            ("words", "step,loss\none,two\n"),
        )
    ),
    *(
        Case(
            tried=f"figures of an evaluation: {name}",
            spoil=write("metrics/eval/qwen_sft_ckpt/reasoning.json", text),
            command=REPORT,
            says=r"reasoning\.json",
        )
        for name, text in (
            ("a list", "[]"),
            ("texts for numbers", '{"n": "x", "pass_at_1": "y"}'),
            ("garbage", "{"),
        )
    ),
    Case(tried="report.parents is a text", spoil=put("report.parents", "x"), command=REPORT, says="parents"),
    Case(
        tried="dvc.lock with conflict marks",
        spoil=append("dvc.lock", "<<<<<<< HEAD\n"),
        command="dvc repro",
    ),
]

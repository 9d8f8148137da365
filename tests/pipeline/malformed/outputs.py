"""Outputs that would destroy what lies in their place."""

from malformed.case import LOCK, Case, both, folder, link, put, write

SFT = "python -m stages.sft sft_cold_start"
FILTER = "python -m stages.filter filter_cot"
PLACES = (
    "..",
    ".",
    ".git",
    ".dvc",
    ".work",
    "plugins",
    "docs",
    "stages",
    "logs",
    "data",
    "checkpoints",
    "../outside",
)
PLACES += ("checkpoints/../..", "/tmp/outside-of-it", "chainforge", "collected", "profiles/mine")
FILES = ("params.yaml", "plugins/reward_correct.py", "data/cot/traces.jsonl", "README.md", ".git/config")


CASES = [
    *(
        Case(
            tried=f"{how}: the output of SFT is {place}",
            spoil=both(folder("../outside", "mine.txt"), put("sft_cold_start.output", place)),
            command=command,
            says="" if how == "dvc repro" else "output",
            quick=place in ("..", ".git") and how == "lock",
        )
        for place in PLACES
        for how, command in (("lock", LOCK), ("by hand", SFT), ("dvc repro", "dvc repro sft_cold_start"))
    ),
    *(
        Case(
            tried=f"{how}: the output of a filter is {file}",
            spoil=put("filter_cot.output", file),
            command=command,
        )
        for file in FILES
        for how, command in (("lock", LOCK), ("by hand", FILTER))
    ),
    Case(
        tried="two steps, one output",
        spoil=put("sft_refine.output", "checkpoints/qwen_sft_ckpt"),
        says="qwen_sft_ckpt",
    ),
    Case(
        tried="two steps, one output, dvc repro",
        spoil=put("sft_refine.output", "checkpoints/qwen_sft_ckpt"),
        command="dvc repro",
    ),
    Case(
        tried="a folder of the user's where a checkpoint goes, dvc repro",
        spoil=both(
            folder("checkpoints/mine", "mine.txt"),
            put("sft_cold_start.output", "checkpoints/mine"),
            put("grpo_reasoning.start_from", "checkpoints/mine"),
        ),
        command="dvc repro sft_cold_start",
    ),
    Case(
        tried="a file of the user's where a filter writes, dvc repro",
        spoil=both(
            write("data/cot/mine.jsonl", "precious\n"),
            put("filter_cot.output", "data/cot/mine.jsonl"),
            put("sft_cold_start.examples", "data/cot/mine.jsonl"),
        ),
        command="dvc repro filter_cot",
    ),
    Case(
        tried="checkpoints is a link to a folder outside",
        spoil=both(
            link("checkpoints/elsewhere", "../outside"),
            put("sft_cold_start.output", "checkpoints/elsewhere/model"),
        ),
        command=SFT,
    ),
]

"""Commands that are misspelt, or that meet files of another shape."""

from malformed.case import Case, both, edit, folder, gone, nothing, put, write

COLLECT = (
    "chainforge collect --problems data/prompts/reasoning_train.jsonl --output t.jsonl"
    " --budget-usd 1 --limit 2"
)
RUNS = {
    "an unknown command": "chainforge resluts",
    "an unknown profile": "chainforge profile use nowhere",
    "a plugin's name that is too long": f"chainforge plugins new reward {'x' * 300}",
    "a plugin called like a module of Python's": "chainforge plugins new reward json",
    "a plugin whose name is no name": "chainforge plugins new reward '../x'",
    "a plugin called like a word of Python's": "chainforge plugins new reward class",
    "a step too many": "python -m stages.lock a b",
    "no step": "python -m stages.grpo",
    "a step that is no text": "python -m stages.lock $'\\xff'",
    "an unknown step": "python -m stages.grpo grpo_reasonin",
    "a key that is missing": f"env -u DEEPSEEK_API_KEY {COLLECT}",
    "a key of two lines": f"DEEPSEEK_API_KEY=$'a\\nb' {COLLECT}",
    "a ledger that cannot be written": "chainforge mock-teacher --ledger /nonexistent/x.jsonl --port 0",
    "standard output is full": "chainforge results > /dev/full",
    "outside of a project": "cd ../ && chainforge results",
    "compare with a revision that is not there": "chainforge compare nowhere",
}
FILES = {
    "stages.json is garbage": (write("reports/stages.json", "{"), "chainforge results", "stages.json"),
    "stages.json is an object": (write("reports/stages.json", "{}"), "chainforge results", "stages.json"),
    "stages.json has texts for numbers": (
        write("reports/stages.json", '[{"checkpoint": 5, "n": "x"}]'),
        "chainforge results",
        "stages.json",
    ),
    "a log is a list": (write("logs/prompts.json", "[1]"), "chainforge timings", "logs/prompts.json"),
    "evaluation rows of another shape": (
        write("data/eval/qwen_sft_ckpt/reasoning.jsonl", "[1]\n"),
        "chainforge compare qwen_sft_ckpt",
        "reasoning.jsonl",
    ),
    "a profile with a YAML error": (
        write("profiles/odd.yaml", "a: [\n"),
        "chainforge profile use odd --force",
        "odd",
    ),
    "an empty profile": (write("profiles/odd.yaml", ""), "chainforge profile use odd --force", "odd"),
    "a profile that is not UTF-8": (
        write("profiles/odd.yaml", b"profile: odd\n# \xff\n"),
        "chainforge profile use odd --force",
        "odd",
    ),
    "a profile that makes a section a number": (
        write("profiles/odd.yaml", "profile: odd\ngrpo: 5\n"),
        "chainforge profile use odd --force",
        "grpo",
    ),
    "a profile of another name": (
        write("profiles/odd.yaml", "profile: other\n"),
        "chainforge profile use odd --force",
        "odd",
    ),
    "results without a run": (gone("reports/stages.json"), "chainforge results", "stages.json|run"),
    "broken settings": (write("params.yaml", "a: [\n"), "chainforge plugins list", "params.yaml"),
    "the lock differs from the committed one": (
        edit("params.yaml", "seed: 17", "seed: 18"),
        "git rm -q --cached plugins.lock.json; chainforge plugins diff",
        "commit",
    ),
    "faults with an impossible date": (
        write("faults.yaml", "- fault: 2024-02-31\n"),
        "chainforge mock-teacher --faults faults.yaml --port 0",
        "faults",
    ),
}
CASES = [
    *(
        Case(tried=name, spoil=nothing, command=command, quick=i in (0, 3))
        for i, (name, command) in enumerate(RUNS.items())
    ),
    *(
        Case(
            tried=name,
            spoil=spoil,
            command=command,
            says=says,
            changes=(r"^plugins\.lock\.json$",) if "lock" in name else (),
        )
        for name, (spoil, command, says) in FILES.items()
    ),
    Case(
        tried="a checkpoint that somebody made by hand",
        spoil=both(folder("checkpoints/mine", "config.json"), put("checkpoints", ["mine"])),
        says="mine",
    ),
]

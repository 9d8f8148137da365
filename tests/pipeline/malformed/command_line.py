"""Commands that are misspelt, or that meet files of another shape."""

from malformed.case import Case, append, both, edit, folder, gone, nothing, put, write

COLLECT = (
    "chainforge collect --problems data/prompts/reasoning_train.jsonl --out mine"
    " --budget-usd 1 --max-problems 2 --teacher deepseek"
)
RUNS = {
    "an unknown command": ("chainforge resluts", "results"),
    "an unknown profile": ("chainforge profile use nowhere", "tiny"),
    "a plugin's name that is too long": (f"chainforge plugins new reward {'x' * 300}", "at most 60"),
    "a plugin called like a module of Python's": ("chainforge plugins new reward json", "my_json"),
    "a plugin whose name is no name": ("chainforge plugins new reward '../x'", "letters"),
    "a plugin called like a word of Python's": ("chainforge plugins new reward class", "my_class"),
    "a step too many": ("python -m stages.lock a b", "one step"),
    "no step": ("python -m stages.grpo", "grpo_reasoning"),
    "an option in place of a step": ("python -m stages.lock --force", "known: lock"),
    "a step that is no text": ("python -m stages.lock $'\\xff'", "known: lock"),
    "an unknown step": ("python -m stages.grpo grpo_reasonin", "did you mean 'grpo_reasoning'"),
    "a key that is missing": (f"env -u DEEPSEEK_API_KEY {COLLECT}", "DEEPSEEK_API_KEY is not set"),
    "a key of two lines": (f"DEEPSEEK_API_KEY=$'a\\nb' {COLLECT}", "DEEPSEEK_API_KEY"),
    "a ledger that cannot be written": (
        "chainforge mock-teacher --ledger /nonexistent/x.jsonl --port 0",
        "/nonexistent",
    ),
    "standard output is full": ("chainforge results > /dev/full", "no room"),
    "outside of a project": ("cd ../ && chainforge results", "project"),
    "compare with a revision that is not there": ("chainforge compare nowhere", "nowhere"),
}
FILES = {
    "stages.json is garbage": (write("reports/stages.json", "{"), "chainforge results", "stages.json"),
    "stages.json is an object": (write("reports/stages.json", "{}"), "chainforge results", "stages.json"),
    "stages.json has texts for numbers": (
        write("reports/stages.json", '[{"checkpoint": 5, "n": "x"}]'),
        "chainforge results",
        "stages.json",
    ),
    "a log is a list": (
        write("logs/prompts/general.json", "[1]"),
        "chainforge timings",
        "logs/prompts/general.json",
    ),
    "a log of another shape": (
        write("logs/prompts/general.json", '{"step": 5, "wall_s": "x"}'),
        "chainforge timings",
        "logs/prompts/general.json",
    ),
    "compare with broken settings": (
        write("params.yaml", "a: [\n"),
        "chainforge compare HEAD",
        "params.yaml",
    ),
    "compare with an impossible date in the settings": (
        append("params.yaml", "day: 2024-02-31\n"),
        "chainforge compare HEAD",
        "params.yaml",
    ),
    "compare with a commit whose dvc.lock is garbage": (
        both(write("dvc.lock", "}{"), lambda clone: clone.commit("garbage")),
        "chainforge compare HEAD",
        "dvc.lock",
    ),
    "evaluation rows of another shape": (
        both(
            lambda clone: clone.commit("the run"),
            write("data/eval/qwen_sft_ckpt/reasoning.jsonl", "[1]\n"),
        ),
        "chainforge compare HEAD",
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
    "broken settings": (write("params.yaml", "a: [\n"), "chainforge profile args tiny", "params.yaml"),
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
        Case(
            tried=name,
            spoil=nothing,
            command=command,
            says=says,
            quick=i in (0, 3),
        )
        for i, (name, (command, says)) in enumerate(RUNS.items())
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

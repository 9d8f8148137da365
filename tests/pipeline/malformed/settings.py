"""Mistakes in params.yaml, dvc.yaml and the lock."""

from malformed.case import Case, Spoil, append, both, edit, fifo, gone, nothing, put, take_out, write

REPRO = "dvc repro"
ODD_YAML = {
    "nested 20,000 deep": "deep: " + "[" * 20_000 + "]" * 20_000 + "\n",
    "an integer of 6,000 digits": "huge: " + "9" * 6_000 + "\n",
    "an impossible date": "day: 2024-02-31\n",
    "a tag that is no number": "odd: !!float abc\n",
    "a tag that is no truth value": "odd: !!bool abc\n",
    "a tag of Python": "odd: !!python/object/apply:os.system [ls]\n",
    "a list as a key": "? [a, b]\n: c\n",
    "a number as a section": "5: x\n",
    "a tab": "\tkey: value\n",
    "a key twice": "profile: tiny\n",
}
ODD_SECTIONS: dict[str, object] = {
    "report": [],
    "checkpoints": [5],
    "students": {"a": None},
    "profile": None,
    "run": 5,
    "benches": [],
    "evaluate": "x",
    "prompts": [1],
    "grpo": "none",
}
ODD_VALUES: dict[str, object] = {
    "run.seed": 2**64,
    "run.threads": 10**12,
    "runtime.micro_batch_tokens": 10**12,
    "sft.learning_rate": 1e300,
    "sft.muon_learning_rate": 1e300,
    "sft_cold_start.num_epochs": 1e300,
    "sft.batch_size": 10**12,
    "grpo.group_size": 10**9,
    "grpo.mini_batches": 10**12,
    "grpo.resample_rounds": 10**6,
    "grpo_reasoning.num_rl_steps": 10**12,
    "grpo.temperature": 1e-300,
    "grpo.top_p": 1e-300,
    "grpo.max_new_tokens": 10**12,
    "rejection_sampling.samples": 10**9,
    "collect.samples": 10**9,
    "evaluate.samples": 10**9,
    "prompts.reasoning.train": 10**15,
    "filter.decontaminate": ["nowhere.jsonl"],
    "report.parents": {"qwen_sft_ckpt": 5},
    "collect.instruction": "Write money as ${amount} dollars.",
    "profile": ["x"],
}
OF_PLUGINS: dict[str, dict[str, object]] = {
    "base_model": {"plugin": "tiny_qwen2", "hidden": 17},
    "collect_cot.teacher": {"plugin": "procedural", "wrong_fraction": 2},
    "collect_general.teacher": {"plugin": "procedural_instructions", "terse_fraction": -1},
    "prompts.reasoning.source": {
        "plugin": "jsonl",
        "train": "inputs/nowhere.jsonl",
        "eval": "inputs/no.jsonl",
    },
}
BASES: dict[str, object] = {
    "vocab": 10**12,
    "max_positions": -1,
    "hidden": 10**9,
    "layers": 10**9,
    "initializer_range": -1.0,
}
ODD_GRAPHS = {
    "garbage": "}{",
    "a list": "- a\n",
    "no stages": "plots: []\n",
    "an odd stage": "stages:\n  lock: 5\n",
    "a foreach of a number": "stages:\n  d:\n    foreach: 5\n    do:\n      cmd: python -m stages.sft a\n",
    "nothing": "",
}
# DVC refuses these before any step of ours can; docs/experiments.md says what its messages mean.
SPOKEN_BY_DVC: dict[str, Spoil] = {
    "params.yaml is a list": write("params.yaml", "- a\n"),
    "params.yaml is missing": gone("params.yaml"),
    "no sft_refine": take_out("sft_refine"),
    "no students": take_out("students"),
    "checkpoints is a text": put("checkpoints", "qwen_sft_ckpt"),
    "an output is null": put("sft_cold_start.output", None),
    "an output is a section": put("sft_cold_start.output", {"a": "b"}),
    "an output is a number": put("sft_cold_start.output", 5),
    "a step starts from its own result": put("grpo_reasoning.start_from", "checkpoints/qwen_rl_ckpt_stage2"),
    "two steps wait for one another": put("sft_cold_start.examples", ["data/rejection/accepted.jsonl"]),
    "two students, one output": put(
        "students.qwen_student_cold_start.output", "checkpoints/qwen_distilled_student"
    ),
    "a setting is a text": put("grpo.kl_coeff", "abc"),
}
ODD_LOCKS = {
    "a number for a step": '{"prompts": 5}',
    "texts for mappings": '{"grpo_reasoning": "x", "prompts": {"code": 5, "plugins": "y"}}',
    "a list": "[]",
    "conflict marks": "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> other\n",
    "nested 100,000 deep": "[" * 100_000 + "]" * 100_000,
}


NAMES = ("a b", "a@b", "a.b", "$(touch x)", "a; touch ../pwned #", "x" * 300)


def bad_name(name: str) -> dict[str, object]:
    return {name: {"output": f"checkpoints/{name}", "examples": "data/cot/accepted.jsonl"}}


CASES = [
    *(
        Case(tried=f"params.yaml: {name}", spoil=append("params.yaml", text), says="params.yaml", quick=i < 2)
        for i, (name, text) in enumerate(ODD_YAML.items())
    ),
    *(
        Case(
            tried=f"dvc repro, params.yaml: {name}",
            spoil=append("params.yaml", text),
            command=REPRO,
        )
        for name, text in ODD_YAML.items()
    ),
    *(Case(tried=f"dvc repro, {name}", spoil=spoil, command=REPRO) for name, spoil in SPOKEN_BY_DVC.items()),
    *(
        Case(tried=f"{key} is {value!r}", spoil=put(key, value), says=key.split(".")[0])
        for key, value in ODD_SECTIONS.items()
    ),
    *(
        Case(tried=f"{key} is {value!r}", spoil=put(key, value), says=key.rpartition(".")[2], quick=i < 1)
        for i, (key, value) in enumerate(ODD_VALUES.items())
    ),
    *(
        Case(
            tried=f"{key} is {value!r}",
            spoil=put(key, value),
            says=list(value)[-1].replace("eval", "nowhere"),
        )
        for key, value in OF_PLUGINS.items()
    ),
    *(
        Case(
            tried=f"base_model.{key} is {value!r}",
            spoil=put("base_model", {"plugin": "tiny_qwen2", key: value}),
            says=key,
        )
        for key, value in BASES.items()
    ),
    *(
        Case(
            tried=f"a student called {name!r}",
            spoil=put("students", bad_name(name)),
            says="name",
        )
        for name in NAMES
    ),
    *(
        Case(
            tried=f"a student called {name!r}, dvc repro",
            spoil=put("students", bad_name(name)),
            command=REPRO,
        )
        for name in NAMES
    ),
    *(
        Case(
            tried=f"a checkpoint called {name!r}, dvc repro", spoil=put("checkpoints", [name]), command=REPRO
        )
        for name in ("a b", "$(touch x)", "a; touch ../pwned #", "no_step_makes_it")
    ),
    Case(
        tried="a student less",
        spoil=both(
            put("checkpoints", ["qwen_sft_ckpt", "qwen_student_cold_start"]),
            take_out("students.qwen_student_cold_start"),
        ),
        says="qwen_student_cold_start",
    ),
    Case(
        tried="the examples of a student that no step makes",
        spoil=put("students.qwen_distilled_student.examples", "data/other/accepted.jsonl"),
        says="data/other",
    ),
    Case(
        tried="a model folder that is missing",
        spoil=put("base_model", {"plugin": "pretrained", "model": "inputs/none"}),
        says="inputs/none",
    ),
    Case(
        tried="a start that no step makes",
        spoil=put("grpo_reasoning.start_from", "checkpoints/none"),
        says="checkpoints/none",
    ),
    Case(
        tried="a start that no step makes, dvc repro",
        spoil=put("grpo_reasoning.start_from", "checkpoints/none"),
        command=REPRO,
    ),
    Case(tried="a GPU where there is none", spoil=put("runtime.device", "cuda"), says="cuda"),
    Case(
        tried="a bench without problems",
        spoil=put(
            "benches",
            {
                "reasoning": {"prompts": "data/prompts/reasoning_eval.jsonl"},
                "general": {"prompts": "data/prompts/general_eval.jsonl"},
                "mine": {"samples": 2},
            },
        ),
        says="mine",
    ),
    Case(
        tried="an unknown key in a bench",
        spoil=put(
            "benches",
            {"reasoning": {"promts": "x"}, "general": {"prompts": "data/prompts/general_eval.jsonl"}},
        ),
        says="promts",
    ),
    Case(
        tried="sft.beta2 is 1",
        spoil=edit("params.yaml", "\nsft:\n", "\nsft:\n  beta2: 1.0\n"),
        says="beta2",
    ),
    Case(
        tried="no profile, the report",
        spoil=take_out("profile"),
        command="python -m stages.report report",
        says="profile",
    ),
    Case(
        tried="a reward that is not there, dvc exp",
        spoil=nothing,
        command="dvc exp run -S '+grpo_final.rewards.nowhere=1.0' || exit 5",
        changes=(r"^params\.yaml$", r"^dvc\.lock$", r"^plugins\.lock\.json$"),
        says="nowhere",
    ),
    Case(
        tried="a setting of the wrong type, dvc exp",
        spoil=nothing,
        command="dvc exp run -S grpo.kl_coeff=abc || exit 5",
        changes=(r"^params\.yaml$", r"^dvc\.lock$", r"^plugins\.lock\.json$"),
        says="kl_coeff",
    ),
    *(
        Case(
            tried=f"dvc.yaml: {name}", spoil=write("dvc.yaml", text), says="dvc.yaml", quick=name == "garbage"
        )
        for name, text in ODD_GRAPHS.items()
    ),
    Case(
        tried="dvc.yaml: not UTF-8",
        spoil=write("dvc.yaml", "stages: {ä: 5}\n".encode("latin-1")),
        says="dvc.yaml",
    ),
    Case(
        tried="a cycle",
        spoil=put("sft_cold_start.examples", "data/rejection/accepted.jsonl"),
        says="wait for one another",
    ),
    *(
        Case(
            tried=f"plugins.lock.json: {name}, a step",
            spoil=both(write("plugins.lock.json", text)),
            command="python -m stages.prompts prompts@reasoning",
            says="lock",
        )
        for name, text in ODD_LOCKS.items()
    ),
    Case(
        tried="plugins.lock.json is a pipe",
        spoil=fifo("plugins.lock.json"),
        command="python -m stages.prompts prompts@reasoning",
        says="plugins.lock.json",
    ),
    Case(tried="no params.yaml", spoil=gone("params.yaml"), says="params.yaml", quick=True),
    Case(
        tried="runtime.locked and a committed lock that is garbage",
        spoil=both(
            write("plugins.lock.json", "garbage"),
            lambda clone: clone.commit("garbage"),
            put("runtime.locked", True),
        ),
        says="lock",
    ),
    Case(
        tried="a plugin's name that is misspelt",
        spoil=edit("params.yaml", "plugin: procedural\n", "plugin: procedurall\n"),
        says="did you mean",
        quick=True,
    ),
]

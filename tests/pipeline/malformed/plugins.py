"""Plugins that break."""

import textwrap

from tree import ROOT

from malformed.case import Case, Spoil, both, chosen, edit, fifo, write

REWARD = "python -m stages.grpo grpo_reasoning"
PROMPTS = "python -m stages.lock lock && python -m stages.prompts prompts@reasoning"
COLLECT = "python -m stages.lock lock && python -m stages.collect collect_cot"
GRPO = "python -m stages.lock lock && python -m stages.grpo grpo_reasoning"
SFT = "python -m stages.lock lock && python -m stages.sft sft_cold_start"
TINY = (ROOT / "plugins/model_tiny_qwen2.py").read_text(encoding="utf-8")
LOCK_WRITTEN = (r"^plugins\.lock\.json$",)

HOOK = """
import chainforge as cf
{code}

@cf.hookimpl
def register_rewards(register):
    register("odd", odd)
"""


def reward(body: str, options: str = "") -> Spoil:
    """A reward whose call does this."""
    code = "def odd(*, completions, **_):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    text = HOOK.format(code=code)
    return chosen("reward", text.replace('register("odd", odd)', f'register("odd", odd{options})'))


def at_import(code: str) -> Spoil:
    """A plugin that is selected, and does this when it is imported."""
    return chosen(
        "reward",
        HOOK.format(code=f"{code}\ndef odd(*, completions, **_):\n    return [0.0] * len(completions)\n"),
    )


def source(body: str) -> Spoil:
    """A prompt source whose call does this."""
    lines = textwrap.indent(textwrap.dedent(body), "    ")
    return chosen(
        "prompts",
        f"import chainforge as cf\ndef odd(*, split, n, seed):\n{lines}\n"
        "@cf.hookimpl\ndef register_prompt_sources(register):\n    register('odd', odd)\n",
    )


def teacher(body: str) -> Spoil:
    """A teacher whose `generate` does this."""
    lines = textwrap.indent(textwrap.dedent(body), "        ")
    return chosen(
        "teacher",
        f"import chainforge as cf\nclass Odd:\n    def generate(self, prompts, *, n, seed):\n{lines}\n"
        "@cf.hookimpl\ndef register_teachers(register):\n    register('odd', Odd)\n",
    )


def model(body: str) -> Spoil:
    """A student model that is made like `tiny_qwen2`, and then this is done."""
    lines = textwrap.indent(textwrap.dedent(body), "        ")
    return chosen(
        "model",
        (TINY.replace("def load(", "def made(").replace('"tiny_qwen2", TinyQwen2', '"odd", Odd'))
        + "\n\nclass Odd(TinyQwen2):\n    def load(self, *, seed, texts):\n"
        + f"        model, tokenizer = self.made(seed=seed, texts=texts)\n{lines}\n",
    )


def prompt(id: str = "'a'", answer: str = "'1'") -> str:
    """Code that makes a prompt."""
    return f"cf.Prompt({id}, 's', ({{'role': 'user', 'content': '6*7?'}},), {answer})"


AT_IMPORT = {
    "os._exit(0)": "import os; os._exit(0)",
    "sys.exit(0)": "import sys; sys.exit(0)",
    "os.abort()": "import os; os.abort()",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "GeneratorExit": "raise GeneratorExit",
    "a loop without end": "while True: pass",
    "an error that cannot be shown": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    "a syntax error": "def (:",
    "a missing module": "import a_module_that_is_not_there",
    "replaces json.dumps": "import json\njson.dumps = None",
    "an error when the program ends": "import atexit\natexit.register(lambda: 1 / 0)",
}
CALLS = {
    "raises a BaseException": ("class B(BaseException): pass\nraise B('odd')", ""),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", ""),
    "raises SystemExit(0)": ("raise SystemExit(0)", ""),
    "os._exit(0)": ("import os; os._exit(0)", ""),
    "an error that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "",
    ),
    "returns texts": ("return ['a'] * len(completions)", ""),
    "returns too few": ("return []", ""),
    "returns a NaN": ("return [float('nan')] * len(completions)", ""),
    "returns 1e308": ("return [1e308 * (-1) ** i for i in range(len(completions))]", ""),
    "returns None always": ("return [None] * len(completions)", ""),
    "deletes what the step reads": (
        "import os; os.remove('data/prompts/reasoning_train.jsonl'); return [0.0] * len(completions)",
        "",
    ),
    "swallows its time limit": (
        "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass",
        ", timeout_s=2.0",
    ),
    "sleeps with SIGALRM blocked": (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\ntime.sleep(10**6)",
        ", timeout_s=2.0",
    ),
    "process: an error that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        ", isolation='process'",
    ),
    "process: raises a BaseException": (
        "class B(BaseException): pass\nraise B('odd')",
        ", isolation='process'",
    ),
    "process: os._exit(0)": ("import os; os._exit(0)", ", isolation='process'"),
    "process: kills itself": ("import os; os.kill(os.getpid(), 9)", ", isolation='process'"),
    "process: closes every descriptor": (
        "import os; os.closerange(0, 4096); return [0.0] * len(completions)",
        ", isolation='process'",
    ),
    "process: writes garbage everywhere": (
        "import os\nfor fd in range(1, 64):\n    try:\n        os.write(fd, b'garbage' * 99)\n"
        "    except OSError:\n        pass\nreturn [0.0] * len(completions)",
        ", isolation='process'",
    ),
    "process: sleeps for ever": ("import time; time.sleep(10**6)", ", isolation='process', timeout_s=2.0"),
}
DEATHS = {
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "crashes": "import ctypes; ctypes.string_at(0)",
}
LEFT_BY_A_DEATH = r"^checkpoints/\.\w+\.chainforge-\d+-\w+\.partial"  # the next run removes it
SOURCES = {
    "returns None": "return None",
    "yields dicts": "yield {'id': 'a'}",
    "raises half-way": f"yield {prompt()}\nraise ValueError('odd')",
    "never ends": f"i = 0\nwhile True:\n    i += 1\n    yield {prompt('str(i)')}",
    "an id that is a number": f"yield {prompt('5')}",
    "an answer that is a number": f"yield {prompt(answer='5')}",
    "messages that are a text": "yield cf.Prompt('a', 's', 'what is it?', '1')",
    "columns that are no JSON": (
        "yield cf.Prompt('a', 's', ({'role': 'user', 'content': 'x'},), '1', {'a': object()})"
    ),
    "sys.exit(0)": "import sys; sys.exit(0)\nyield",
}
TEACHERS = {
    "returns None": "return None",
    "yields dicts": "yield {'a': 1}",
    "reasoning None": "for p in prompts: yield cf.Trace(p.id, None, 'c', 'stop', 'x')",
    "finish 'banana'": "for p in prompts: yield cf.Trace(p.id, 'r', 'c', 'banana', 'x')",
    "never ends": "while True: yield cf.Trace(prompts[0].id, 'r', 'c', 'stop', 'x')",
    "sys.exit(0) half-way": "yield cf.Trace(prompts[0].id, 'r', 'c', 'stop', 'x')\nimport sys; sys.exit(0)",
    "raises half-way": "yield cf.Trace(prompts[0].id, 'r', 'c', 'stop', 'x')\nraise ValueError('odd')",
}
FACTORIES = {
    "gives an object without generate": "odd = object",
    "raises": "def odd(): raise ValueError('odd')",
    "needs an argument that nobody gives": "def odd(path, /): return path",
    "is a class whose signature cannot be read": "class odd:\n    __signature__ = 'none'",
    "is no function": "odd = 'a text'",
}
MODELS = {
    "raises": "raise RuntimeError('odd')",
    "sys.exit(0)": "import sys; sys.exit(0)",
    "returns None": "return None",
    "returns the model only": "return model",
    "returns texts": "return 'model', 'tokenizer'",
    "has fewer tokens than the tokenizer": "model.resize_token_embeddings(10); return model, tokenizer",
    "is on the meta device": "return model.to('meta'), tokenizer",
    "a template with a syntax error": "tokenizer.chat_template = '{% for %}'; return model, tokenizer",
    "a template that loops": (
        "loop = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x'\n"
        "tokenizer.chat_template = loop\nreturn model, tokenizer"
    ),
    "a tokenizer without an end": "tokenizer.eos_token = None; return model, tokenizer",
}
CASES = [
    *(
        Case(
            tried=f"a plugin at import: {name}",
            spoil=both(
                at_import(code), edit("chainforge/plugins/trial.py", "LIMIT_S = 60.0", "LIMIT_S = 10.0")
            ),
            command="python -m stages.lock lock",
            says="odd",
            quick=name == "sys.exit(0)",
            changes=LOCK_WRITTEN,
        )
        for name, code in AT_IMPORT.items()
    ),
    *(
        Case(
            tried=f"a reward: {name}",
            spoil=reward(body, options),
            command=GRPO,
            says="odd|deadline|data/prompts",
            changes=(*LOCK_WRITTEN, *((r"^data/prompts/reasoning_train",) if "deletes" in name else ())),
        )
        for name, (body, options) in CALLS.items()
    ),
    *(
        Case(
            tried=f"a reward: {name}",
            spoil=reward(body),
            command=f"{GRPO} || exit 5",
            says="its process ended without a word",
            changes=(*LOCK_WRITTEN, LEFT_BY_A_DEATH),
        )
        for name, body in DEATHS.items()
    ),
    *(
        Case(
            tried=f"a prompt source: {name}",
            spoil=source(body),
            command=PROMPTS,
            says="odd",
            changes=LOCK_WRITTEN,
        )
        for name, body in SOURCES.items()
    ),
    *(
        Case(
            tried=f"a teacher: {name}", spoil=teacher(body), command=COLLECT, says="odd", changes=LOCK_WRITTEN
        )
        for name, body in TEACHERS.items()
    ),
    *(
        Case(
            tried=f"the factory of a teacher {name}",
            spoil=chosen(
                "teacher",
                f"import chainforge as cf\n{code}\n@cf.hookimpl\n"
                "def register_teachers(register):\n    register('odd', odd)\n",
            ),
            command=COLLECT,
            says="odd",
            changes=LOCK_WRITTEN,
        )
        for name, code in FACTORIES.items()
    ),
    *(
        Case(
            tried=f"a student model: {name}", spoil=model(body), command=SFT, says="odd", changes=LOCK_WRITTEN
        )
        for name, body in MODELS.items()
    ),
    Case(
        tried="a plugin at import, dvc repro: os._exit(0)",
        spoil=at_import("import os; os._exit(0)"),
        command="dvc repro",
        says="odd",
    ),
    Case(
        tried="a plugin that is not UTF-8",
        spoil=chosen("reward", "pass"),
        command="printf '\\xff' > plugins/zz_odd.py; python -m stages.lock lock",
        says="zz_odd",
        changes=(r"^plugins/zz_odd\.py$",),
    ),
    Case(
        tried="a plugin that registers the name of another",
        spoil=write(
            "plugins/a.py",
            HOOK.format(code="odd = lambda *, completions, **_: [0.0] * len(completions)").replace(
                '"odd"', '"correct"'
            ),
        ),
        says="correct",
    ),
    Case(
        tried="a plugin that is a pipe, selected",
        spoil=both(chosen("reward", ""), fifo("plugins/zz_odd.py")),
        says="zz_odd",
    ),
    Case(
        tried="a plugin that registers a number",
        spoil=chosen("reward", HOOK.format(code="odd = 5")),
        says="odd",
    ),
    Case(
        tried="a plugin that registers the name 5",
        spoil=chosen(
            "reward", HOOK.format(code="def odd(**_): return []").replace('register("odd"', "register(5")
        ),
        says="odd",
    ),
    Case(
        tried="a plugin that imports its neighbour",
        spoil=chosen("reward", HOOK.format(code="from reward_format import x\ndef odd(**_): return []")),
        says="reward_format",
    ),
]

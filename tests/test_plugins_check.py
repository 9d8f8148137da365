"""Every law of every contract is kept by the bundled plugins, and noticed where a plugin breaks it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import tokenizer

from chainforge.cli import cli
from chainforge.jsonl import write_records
from chainforge.plugins import load_plugins
from chainforge.project.profiles import compose
from chainforge.testing.api_teachers import LAWS as API_LAWS
from chainforge.testing.contracts import CONTRACTS, keeps_contract
from chainforge.testing.laws import Finding
from chainforge.testing.prompt_sources import LAWS as SOURCE_LAWS
from chainforge.testing.rewards import LAWS as REWARD_LAWS
from chainforge.testing.samples import sample_prompts
from chainforge.testing.student_models import LAWS as STUDENT_LAWS
from chainforge.testing.teachers import LAWS as TEACHER_LAWS

pytestmark = pytest.mark.slow

LAWS = {
    "rewards": REWARD_LAWS,
    "prompt_sources": SOURCE_LAWS,
    "teachers": TEACHER_LAWS,
    "student_models": STUDENT_LAWS,
}
TOP = """
import itertools
import math
import random
import chainforge as cf

calls = itertools.count()
numbers = random.Random(1)
"""
HOOK = """
@cf.hookimpl
def register_{role}(register):
    register("bad", bad{options})
"""


@pytest.fixture
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real graph, plugins and settings of tiny."""
    monkeypatch.chdir(root)
    (tmp_path / "params.yaml").write_text(compose("tiny"), encoding="utf-8")
    (tmp_path / "dvc.yaml").symlink_to(root / "dvc.yaml")
    (tmp_path / "plugins").symlink_to(root / "plugins")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Checks one plugin file in a folder without a project."""
    monkeypatch.chdir(tmp_path)

    def run(role: str, code: str, *arguments: str, options: str = "", exit_code: int | None = None) -> str:
        Path("plugins").mkdir(exist_ok=True)
        Path("plugins/bad.py").write_text(TOP + code + HOOK.format(role=role, options=options))
        result = CliRunner().invoke(cli, ["plugins", "check", "bad", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert exit_code is None or result.exit_code == exit_code, result.output
        assert (result.exit_code == 1) == any(
            line.startswith(("FAILED", "Error: ")) for line in result.output.splitlines()
        )
        assert not Path("logs").exists()
        return result.output

    return run


BAD_REWARDS = {
    "imports neither torch nor transformers": [
        ("import torch\ndef bad(completions): return [0.0] * len(completions)", "", "imports torch"),
        ("import transformers\ndef bad(completions): return [0.0] * len(completions)", "", "imports"),
    ],
    "one finite number, or None, per completion": [
        ("def bad(completions): return [0.0]", "", "returned 1 values for 28 completions"),
        ("def bad(completions): return 0.5", "", "not a list"),
        ("def bad(completions): return [math.nan] * len(completions)", "", "returned nan for completion 0"),
        ("def bad(completions): return ['1'] * len(completions)", "", "returned '1'"),
        ("def bad(completions, level): return [0.0] * len(level)", "", "'level'"),
        ("def bad(completions): raise SystemExit('bye')", "", "bye"),
        ("def bad(completion): return 'x' if completion else None", ", per_sample=True", "returned 'x'"),
        ("async def bad(completions): raise KeyError('x')", "", "KeyError"),
    ],
    "reads empty, huge and odd text": [
        ("def bad(completions): return [1.0 / len(c) for c in completions]", "", "empty text: "),
        ("def bad(completions): return [float(c[0] < c[-1]) for c in completions]", "", "empty text: "),
        (
            "def bad(completions):\n    assert max(map(len, completions)) < 90_000\n"
            "    return [0.0] * len(completions)",
            "",
            "a huge text: ",
        ),
        ("def bad(completions): return [len(c.encode()) / 9 for c in completions]", "", "a lone surrogate: "),
        (
            "def bad(completions):\n    assert not any('\\0' in c for c in completions)\n"
            "    return [0.0] * len(completions)",
            "",
            "a NUL: ",
        ),
        (
            "def bad(completions):\n"
            "    return [sum(int(x) for x in c if x.isdigit()) / 9 for c in completions]",
            "",
            "other scripts' digits: ",
        ),
        ("def bad(completions): return [float(bool(c.format())) for c in completions]", "", "braces and"),
    ],
    "the same call gives the same values": [
        ("def bad(completions): return [random.random() for _ in completions]", "", "the same call twice"),
        ("def bad(completions): return [float(next(calls))] * len(completions)", "", "the same call twice"),
    ],
    "the order of the prompts does not matter": [
        ("def bad(completions): return [float(i) for i in range(len(completions))]", "", "in another order"),
        (
            "def bad(completions, prompts): return [float(p == prompts[0]) for p in prompts]",
            "",
            "in another order",
        ),
    ],
    "the order of the completions of a prompt does not matter": [
        (
            "def bad(completions, prompts):\n"
            "    return [float(i == prompts.index(p)) for i, p in enumerate(prompts)]",
            "",
            "with the completions of sample-1 in another order, number ",
        ),
        (
            "def bad(completions):\n    return [float(c in completions[::2]) for c in completions]",
            "",
            "in another order, number ",
        ),
    ],
    "right answers score 1, if it judges answers": [
        (
            "def bad(completion, answer): return float(str(answer) not in completion)",
            ", per_sample=True",
            "the right answer '47' gets 0, a wrong one 1",
        )
    ],
}


@pytest.mark.parametrize(
    ("law", "code", "options", "complaint"),
    [(law, *case) for law, cases in BAD_REWARDS.items() for case in cases],
)
def test_a_reward_that_breaks_a_law_is_told_so(
    law: str, code: str, options: str, complaint: str, check: Callable[..., str]
) -> None:
    said = check("rewards", code, options=options, exit_code=1)
    (line,) = [line for line in said.splitlines() if line[8:].startswith(law)]
    assert line.startswith(f"FAILED  {law}: ")
    assert complaint in line


GOOD_REWARDS = [
    ("def bad(completions): return [None] * len(completions)", "", "None everywhere"),
    (
        "def bad(completions, answer):\n"
        "    return [a and (float(a in c) or 0.5) for c, a in zip(completions, answer)]",
        "",
        "gold 1, wrong 0.5",
    ),
    (
        "def bad(completions, answer): return [0.5 * (str(a) in c) for c, a in zip(completions, answer)]",
        "",
        "gold 0.5, wrong 0: `filter` and `evaluate` count 1.0 alone as right",
    ),
    (
        "def bad(prompts, completions):\n"
        "    return [c == min(d for q, d in zip(prompts, completions) if q == p)\n"
        "            for p, c in zip(prompts, completions)]",
        "",
        "ok      the order of the prompts does not matter",
    ),
    (
        "def bad(completion, state): return len(completion) / 1e6",
        ", per_sample=True",
        "it does not: right and wrong",
    ),
    (
        "def bad(completions):\n    if any('\\0' in c for c in completions): raise OSError\n"
        "    return [0.0] * len(completions)",
        ", on_error='none'",
        "1 calls failed, and were counted as None",
    ),
    (
        "async def bad(completions): return [c[0]['role'] and 0.5 for c in completions]",
        ", conversational=True",
        "",
    ),
]


@pytest.mark.parametrize(("code", "options", "remark"), GOOD_REWARDS)
def test_a_reward_may_do_what_no_law_forbids(
    code: str, options: str, remark: str, check: Callable[..., str]
) -> None:
    assert remark in check("rewards", code, options=options, exit_code=0)


def test_a_reward_that_needs_a_column_is_given_one(check: Callable[..., str]) -> None:
    code = "def bad(completions, level): return [level[0]['of'] / 4] * len(completions)"
    assert "'level'" in check("rewards", code, exit_code=1)
    check("rewards", code, "--set", "level={of: 2}", exit_code=0)
    Path("mine.jsonl").write_text(
        '{"id": "p1", "source": "s", "messages": [{"role": "user", "content": "?"}], "answer": "4",'
        ' "columns": {"level": {"of": 1}}}\n'
    )
    check("rewards", code, "--prompts", "mine.jsonl", exit_code=0)
    assert "--set 'level' has no value" in check("rewards", code, "--set", "level", exit_code=1)


SOURCE = """
def bad(*, split, n, seed, start: int = 0):
    for i in range({count}):
        yield cf.Prompt({id}, "s", {messages}, {answer}, {columns})
"""
GOOD_SOURCE = {
    "count": "start, start + n",
    "id": "f'{split}-{i}'",
    "messages": "({'role': 'user', 'content': f'{split} {i}?'},)",
    "answer": "'1'",
    "columns": "{'level': [1, None, 0.5]}",
}
BAD_SOURCES = {
    "gives whole prompts for both splits": [
        ({"count": "0"}, "gives no prompt for train"),
        ({"messages": "[{'role': 'user', 'content': f'{split} {i}?'}]"}, "messages is not a tuple"),
        ({"messages": "()"}, "field 'messages' is empty"),
        ({"messages": "({'role': 'user', 'content': 3},)"}, "message 1 of 1 must be"),
        ({"messages": "({'role': 'assistant', 'content': f'{split} {i}'},)"}, "does not end with the user"),
        ({"messages": "({'role': 'user', 'content': ' '},)"}, "asks nothing"),
        ({"messages": "({'role': 'user', 'content': chr(0xd800)},)"}, "cannot be written as JSON"),
        ({"answer": "42"}, "field 'answer' must be a string or null"),
        ({"columns": "{'when': object()}"}, "cannot be written as JSON"),
        ({"columns": "{'x': math.nan}"}, "cannot be written as JSON"),
        ({"columns": "{1: 'x'}"}, "another prompt when read again"),
        ({"columns": "{'x': (1, 2)}"}, "another prompt when read again"),
        ({"id": "''"}, "empty id"),
    ],
    "every prompt has an id of its own": [({"id": "split"}, "gives the id 'train' twice")],
    "training and evaluation share no prompt": [
        (
            {"messages": "({'role': 'user', 'content': f'How  MANY {i}?'},)", "id": "str(i)"},
            "is also training",
        )
    ],
    "the same seed gives the same prompts": [({"answer": "str(next(calls))"}, "other prompts")],
    "gives at most n prompts": [({"count": "n + 1"}, "asked for 1, gives 2")],
}


@pytest.mark.parametrize(
    ("law", "change", "complaint"), [(law, *case) for law, cases in BAD_SOURCES.items() for case in cases]
)
def test_a_prompt_source_that_breaks_a_law_is_told_so(
    law: str, change: dict[str, str], complaint: str, check: Callable[..., str]
) -> None:
    said = check("prompt_sources", SOURCE.format(**GOOD_SOURCE | change), exit_code=1)
    (line,) = [line for line in said.splitlines() if line[8:].startswith(law)]
    assert line.startswith(f"FAILED  {law}: ")
    assert complaint in line


def test_a_prompt_source_that_breaks_none_is_told_so_too(check: Callable[..., str]) -> None:
    assert "20 train, 20 eval" in check("prompt_sources", SOURCE.format(**GOOD_SOURCE), exit_code=0)
    check("prompt_sources", SOURCE.format(**GOOD_SOURCE), "--set", "start=7", exit_code=0)
    said = check("prompt_sources", SOURCE.format(**GOOD_SOURCE), "--set", "start=x", exit_code=1)
    assert "start is 'x'" in said
    assert "did you mean 'start'?" in check("prompt_sources", SOURCE.format(**GOOD_SOURCE), "--set", "strt=1")


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("def bad(*, split, n, seed): return 3", "gives int, not prompts"),
        ("def bad(*, split, n, seed): return [{}]", "gives dict, not cf.Prompt"),
        (
            "def bad(*, split, n, seed): raise cf.ChainForgeError('no file', 'bring it')",
            "no file -> bring it",
        ),
        ("def bad(*, split, n, seed): raise SystemExit", "raised SystemExit"),
        ("import torch\ndef bad(*, split, n, seed): return []", "imports torch"),
    ],
)
def test_a_source_that_gives_no_prompts_is_told_so(
    code: str, complaint: str, check: Callable[..., str]
) -> None:
    assert complaint in check("prompt_sources", code, exit_code=1)


TEACHER = """
class bad:
    def __init__(self, *, said: str = "Yes."):
        self.said = said

    def generate(self, prompts, *, n, seed):
        {body}
"""
GOOD_TEACHER = (
    "yield from (cf.Trace(p.id, 'So.', self.said, 'stop', 'bad') for p in prompts for _ in range(n))"
)
BAD_TEACHERS = {
    "gives n traces per prompt": [
        (
            "yield from (cf.Trace(p.id, 'So.', '4', 'stop', 'bad') for p in prompts)",
            "asked for 2 of 'sample-1'",
        ),
        (
            "yield from (cf.Trace('x', 'So.', '4', 'stop', 'bad') for p in prompts for _ in range(n))",
            "gives 0",
        ),
        (
            GOOD_TEACHER + "\n        yield cf.Trace('x', '', '', 'error', 'bad')",
            "answers ['x'], which nobody",
        ),
        (GOOD_TEACHER.replace("'stop'", "'done'"), "field 'finish' must be one of"),
        (GOOD_TEACHER.replace("self.said", "None"), "field 'content' must be a string"),
        ("return [p.id for p in prompts]", "gives str, not cf.Trace"),
        ("raise cf.ChainForgeError('no key', 'set KEY')", "no key -> set KEY"),
    ],
    "writes no tag of the response format": [
        (GOOD_TEACHER.replace("'So.'", "'<summary>So.'"), "contains the tag ['<summary>']")
    ],
    "the same seed gives the same traces": [
        (GOOD_TEACHER.replace("'So.'", "str(random.random())"), "other traces")
    ],
    "some prompts alone get the traces they get among others": [
        (
            "rng = random.Random(seed)\n        " + GOOD_TEACHER.replace("'So.'", "str(rng.random())"),
            "it says something else to 'sample-3'",
        ),
        (
            GOOD_TEACHER.replace("'So.'", "str(len(prompts))"),
            "draw from random.Random(f'{seed}:{prompt.id}')",
        ),
    ],
}


@pytest.mark.parametrize(
    ("law", "body", "complaint"), [(law, *case) for law, cases in BAD_TEACHERS.items() for case in cases]
)
def test_a_teacher_that_breaks_a_law_is_told_so(
    law: str, body: str, complaint: str, check: Callable[..., str]
) -> None:
    said = check("teachers", TEACHER.format(body=body), exit_code=1)
    (line,) = [line for line in said.splitlines() if line[8:].startswith(law)]
    assert line.startswith(f"FAILED  {law}: ")
    assert complaint in line


def test_a_teacher_that_breaks_none_is_told_so_too(check: Callable[..., str]) -> None:
    assert "3 prompts, 2 each" in check("teachers", TEACHER.format(body=GOOD_TEACHER), exit_code=0)
    tagged = check("teachers", TEACHER.format(body=GOOD_TEACHER), "--set", "said=</summary>", exit_code=1)
    assert tagged.count("FAILED") == 1
    errors = TEACHER.format(body=GOOD_TEACHER.replace("'stop'", "'error'"))
    assert "3 prompts, 2 each: {'error': 6}" in check("teachers", errors, exit_code=0)
    assert "has no `generate`" in check("teachers", "class bad: ...", exit_code=1)
    assert "imports torch" in check(
        "teachers", "import torch" + TEACHER.format(body=GOOD_TEACHER), exit_code=1
    )


STUDENT = """
class bad:
    def load(self, *, seed, texts):
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        tokenizer = AutoTokenizer.from_pretrained("tokenizer")
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2, bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        {body}
        return model, tokenizer
"""
BAD_STUDENTS = {
    "imports neither torch nor transformers": [("", "imports torch")],
    "loads in float32 on the CPU": [
        ("model = model.bfloat16()", "is torch.bfloat16, not torch.float32"),
        ("model = model.to('meta')", "is on meta, not on the CPU"),
        ("model = torch.nn.Linear(2, 2)", "Linear is no model of transformers"),
        ("return model", "load returns (model, tokenizer)"),
    ],
    "speaks with a chat template and stops with an EOS token": [
        ("tokenizer.chat_template = None", "no chat template"),
        ("tokenizer.chat_template = 'hello'", "leaves out what the user says"),
        ("tokenizer.eos_token = None", "no EOS token"),
        ("model.resize_token_embeddings(len(tokenizer) - 9)", "the model knows"),
        ("model.lm_head.weight.data[0, 0] = float('nan')", "logits are not finite"),
    ],
    "is sampled and trained as it computes itself": [
        (
            "config.rope_parameters = {'rope_type': 'dynamic', 'factor': 4.0, 'rope_theta': 1e4}; "
            "model = LlamaForCausalLM(config)",
            "(LlamaForCausalLM) would be computed wrongly: the sampler is off by",
        ),
    ],
    "tags are there after decoding": [
        ("tokenizer.add_special_tokens({'additional_special_tokens': ['<summary>']})", "is a special token"),
    ],
    "the same seed gives the same model": [
        ("torch.seed(); model = LlamaForCausalLM(config)", "gives another model"),
        ("tokenizer.add_tokens([f'<{next(calls)}>']); model.resize_token_embeddings(400)", "or tokenizer"),
    ],
}


@pytest.mark.parametrize(
    ("law", "body", "complaint"), [(law, *case) for law, cases in BAD_STUDENTS.items() for case in cases]
)
def test_a_student_model_that_breaks_a_law_is_told_so(
    law: str, body: str, complaint: str, check: Callable[..., str]
) -> None:
    tokenizer().save_pretrained("tokenizer")
    said = check("student_models", "import torch\n" * (body == "") + STUDENT.format(body=body), exit_code=1)
    (line,) = [line for line in said.splitlines() if line[8:].startswith(law)]
    assert line.startswith(f"FAILED  {law}: ")
    assert complaint in line


def test_a_student_model_that_breaks_none_is_told_so_too(check: Callable[..., str]) -> None:
    tokenizer().save_pretrained("tokenizer")
    assert "EOS '<|im_end|>', 290 tokens" in check("student_models", STUDENT.format(body="pass"), exit_code=0)
    assert "has no `load`" in check("student_models", "class bad: ...", exit_code=1)


def test_every_law_has_a_plugin_that_breaks_it() -> None:
    shared = {
        "imports neither torch nor transformers",
        "imports nothing of ChainForge but its public API",  # see below
    }
    for role, bad in {
        "rewards": BAD_REWARDS,
        "prompt_sources": BAD_SOURCES,
        "teachers": BAD_TEACHERS,
        "student_models": BAD_STUDENTS,
    }.items():
        assert {title for title, _ in LAWS[role]} == {*shared, *bad}, role
    assert set(LAWS) == set(CONTRACTS)


BEHIND_AN_API = {"openai_compatible": [], "anthropic": ["--set", "model=claude"]}
# jsonl and pretrained need files, reward_model and llm_judge a model; humaneval has no training problems.
OF_THEIR_OWN = ("jsonl", "llm_judge", "pretrained", "reward_model", "humaneval")
FILES = (
    "aime",
    "gsm8k",
    "hub",
    "math",
    "reasoning_gym",
    "verifiers",
)  # need data or an extra: tests of their own
SETTINGS = {"length": ["--set", "at_most=9"], "overlong": ["--set", "max_tokens=90", "--set", "cache=9"]}
COLUMNS: dict[str, dict[str, Any]] = {
    "code": {"tests": ["assert double(2) == 4"]},
    "instructions": {"instructions": [{"rule": "words", "at_most": 3}]},
}


def every_choice() -> Iterator[tuple[str, str]]:
    root = Path(__file__).resolve().parents[1]
    for role, name in load_plugins(root / "plugins").entries:
        if name not in (*OF_THEIR_OWN, *BEHIND_AN_API) and not (role == "prompt_sources" and name in FILES):
            yield role, name


@pytest.mark.parametrize(("role", "name"), sorted(every_choice()))
def test_every_bundled_plugin_keeps_its_contract(role: str, name: str, project: Path) -> None:
    more = SETTINGS.get(name, [])
    if name in COLUMNS:
        write_records(Path("prompts.jsonl"), sample_prompts(COLUMNS[name]))
        more = [*more, "--prompts", "prompts.jsonl"]
    result = CliRunner().invoke(cli, ["plugins", "check", name, "--role", role, *more])
    if "run in a sandbox, or not at all" in result.output or "needs the package" in result.output:
        pytest.skip(result.output)
    assert result.exit_code == 0, result.output
    assert result.output.count("\nok") == len(LAWS[role])


@pytest.mark.parametrize("name", BEHIND_AN_API)
def test_the_bundled_ones_behind_an_api_keep_theirs_unasked(name: str, project: Path) -> None:
    result = CliRunner().invoke(cli, ["plugins", "check", name, *BEHIND_AN_API[name]])
    assert result.exit_code == 0, result.output
    assert result.output.count("\nok") == len(API_LAWS)


def test_the_bundled_ones_that_read_files_keep_theirs(project: Path) -> None:
    rows = [f'{{"question": "{i}+1=?", "answer": "{i + 1}"}}\n' for i in range(8)]
    Path("train.jsonl").write_text("".join(rows[:4]))
    Path("eval.jsonl").write_text("".join(rows[4:]))
    arguments = ["--set", "train=train.jsonl", "--set", "eval=eval.jsonl"]
    assert CliRunner().invoke(cli, ["plugins", "check", "jsonl", *arguments]).exit_code == 0
    told = CliRunner().invoke(cli, ["plugins", "check", "jsonl"])
    assert told.exit_code == 1
    assert "needs the setting 'train'" in told.output
    assert "--set KEY=VALUE" in told.output
    entry = load_plugins(project / "plugins").pick("student_models", "tiny_qwen2")
    model, its = entry.component().load(seed=17, texts=["12+35=?"])
    model.save_pretrained("model")
    its.save_pretrained("model")
    assert CliRunner().invoke(cli, ["plugins", "check", "pretrained", "--set", "model=model"]).exit_code == 0


def test_a_name_with_two_roles_needs_to_be_told_apart(project: Path) -> None:
    told = CliRunner().invoke(cli, ["plugins", "check", "procedural_instructions"])
    assert told.exit_code == 1
    assert "is a prompt-source and a teacher\n  -> say which: --role " in told.output
    unknown = CliRunner().invoke(cli, ["plugins", "check", "corect"])
    assert unknown.exit_code == 1
    assert "there is no plugin called 'corect'\n  -> did you mean 'correct'?" in unknown.output


def test_a_plugin_that_does_not_load_is_named_where_it_is_asked_for(check: Callable[..., str]) -> None:
    said = check("rewards", "raise OSError('no licence key')", exit_code=1)
    assert "there is no plugin called 'bad'" in said
    assert "does not load: plugins/bad.py: OSError: no licence key" in said


def test_the_contract_takes_a_function_and_names_every_law_it_breaks() -> None:
    def one(completions: list[str], **_: Any) -> list[float]:
        return [1.0]

    with pytest.raises(AssertionError) as caught:
        keeps_contract("rewards", one, {})
    assert str(caught.value).startswith(f"one ({__name__}) breaks its contract:\nFAILED  one finite number")


def test_a_finding_is_a_line() -> None:
    assert str(Finding("a law", True)) == "ok      a law"
    assert str(Finding("a law", False, "why")) == "FAILED  a law: why"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("from chainforge.loops import filter", "chainforge.loops"),
        ("import chainforge.records", "chainforge.records"),
        ("from chainforge.providers.openai_chat import read_chat", "chainforge.providers.openai_chat"),
    ],
)
def test_an_import_beyond_the_public_api_is_told(line: str, named: str, check: Callable[..., str]) -> None:
    code = f"{line}\ndef bad(completions): return [0.0] * len(completions)"
    said = check("rewards", code, exit_code=1)
    assert "FAILED  imports nothing of ChainForge but its public API" in said
    assert f" imports {named}" in said


def test_a_reward_that_prints_is_a_good_one(check: Callable[..., str]) -> None:
    code = "print('torch')\ndef bad(completions):\n    print('hi')\n    return [0.0] * len(completions)"
    said = check("rewards", code, exit_code=0)
    assert "FAILED" not in said

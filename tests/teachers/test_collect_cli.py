"""`chainforge collect` on the command line: plans, refusals, status and verify. Nobody is asked here."""

import json
import os
import random
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_api import FakeTeacher, answer, ask, broken, lines, made, prompts, refusal

from chainforge.cli import cli
from chainforge.jsonl import write_records
from chainforge.outputs import sha256_of, write_json
from chainforge.plugins import load_plugins
from chainforge.project.profiles import compose
from chainforge.records import Prompt
from chainforge.teachers.account import account_of, calls_json
from chainforge.teachers.line import FIELDS, write_line
from chainforge.teachers.paid import read_paid
from chainforge.teachers.traces import traces_of

TOY = ["--teacher", "generic", "--model", "toy-1", "--base-url", "http://toy.test", "--max-tokens", "100"]
FILES = ["--problems", "hard.jsonl", "--out", "out"]
FAKE = """
import chainforge as cf
from fake_api import FakeTeacher, refusal

def fake(*, broke: int = 0) -> FakeTeacher:
    return FakeTeacher(steps={f"p{broke}": [refusal(402)] * 3} if broke else {})

@cf.hookimpl
def register_teachers(register):
    register("fake", fake)
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the bundled teachers and three problems, and an environment without keys."""
    for name in os.environ:
        if any(part in name for part in ("KEY", "TOKEN", "SECRET")):
            monkeypatch.delenv(name)
    (tmp_path / "plugins").mkdir()
    for path in (root / "plugins").glob("teacher_*.py"):
        (tmp_path / "plugins" / path.name).symlink_to(path)
    (tmp_path / "plugins/teacher_fake.py").write_text(FAKE)
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "hard.jsonl", prompts(3))
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    """What it says, without line breaks of a table."""
    result: Result = CliRunner().invoke(cli, ["collect", *arguments])
    assert result.exit_code == code, result.output
    if code and not isinstance(result.exception, SystemExit):
        raise AssertionError("a traceback") from result.exception
    return result.output


def teacher_of_the_options() -> FakeTeacher:
    """The fake, answering in the name of the teacher that TOY describes."""
    real = (
        load_plugins()
        .pick("teachers", "openai_compatible")
        .component(preset="generic", model="toy-1", base_url="http://toy.test", max_tokens=100)
    )
    return FakeTeacher(identity=real.identity)


@pytest.fixture
def collected(project: Path) -> Path:
    """A journal with traces, as the options TOY would have it."""
    teacher = teacher_of_the_options()
    teacher.steps = {"p2": [answer(reasoning="")] * 2}
    ask(teacher, 3, project / "out", samples=2, base_s=0.001)
    write_traces(teacher, project / "out")
    return project / "out"


def write_traces(teacher: FakeTeacher, folder: Path) -> None:
    asked = made(teacher, 3, 2)
    write_records(folder / "traces.jsonl", traces_of(teacher, asked, folder, read_paid(folder)))


def rewrite(journal: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change a journal's records by hand."""
    records = lines(journal)
    change(records)
    (journal / "journal.jsonl").write_bytes(b"".join(map(write_line, records)))


def test_a_dry_run_counts_and_needs_no_key() -> None:
    said = run(*FILES, "--samples", "4", "--max-tokens", "2000", "--dry-run")
    assert said.splitlines()[0] == "out: 12 questions, 12 not answered yet"
    assert re.search(r"output +12,000 to 24,000 tokens \(2,000 each at most\)", said)
    assert re.search(r"cost +0\.01 to 0\.03 USD, without asking again", said)
    assert not Path("out").exists()
    assert run(*FILES, "--samples", "4", "--max-problems", "2", "--dry-run").startswith(
        "out: 8 questions, 8 not"
    )


def test_a_dry_run_says_so_where_thinking_is_off() -> None:
    assert "not asked to think" in run(*FILES, "--set", "thinking=false", "--dry-run")
    assert "not asked to think" not in run(*FILES, "--dry-run")


@pytest.mark.slow
def test_a_dry_run_counts_what_is_left(collected: Path) -> None:
    said = run(*FILES, *TOY, "--samples", "3", "--dry-run")
    assert said.startswith("out: 9 questions, 3 not answered yet")
    assert "unknown: the teacher has no price; set teacher.usd_per_million" in said
    spent = re.search(r"already spent 0\.\d+ USD, possibly 0 more: out", said)
    assert spent
    with_price = ["--set", "usd_per_million={hit: 0, miss: 0, output: 1000}"]
    assert re.search(
        r"cost +0\.30 to 0\.30 USD", run(*FILES, *TOY, *with_price, "--samples", "3", "--dry-run")
    )


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_a_dry_run_after_a_trial_says_what_the_rest_will_take(project: Path) -> None:
    """Of 50 prompts, half take 10 tokens and half 30; 1,000 USD per million are 0.02 USD each, 0.01 off."""
    teacher = teacher_of_the_options()
    teacher.chance = lambda call: answer(output=10 + 20 * (int(call.label.split("/")[1][1:]) % 2))
    teacher.latency_s = lambda: 6.0
    write_records(project / "hard.jsonl", prompts(1050))
    ask(teacher, 9, project / "out")
    price = ["--set", "usd_per_million={hit: 0, miss: 0, output: 1000}", "--concurrency", "10"]
    assert "likely" not in run(*FILES, *TOY, *price, "--dry-run"), "9 answers say little"
    ask(teacher, 50, project / "out")
    said = run(*FILES, *TOY, *price, "--dry-run")
    found = re.search(r"likely +(\S+) to (\S+) USD off peak, 20,000 tokens of output, \S+ h at 10 at", said)
    assert found, said
    low, high = map(float, found.groups())
    assert low + high == pytest.approx(2 * 20.0, abs=0.02)
    assert high - low == pytest.approx(2 * 1.96 * 0.01 * (1000 + 1000**2 / 50) ** 0.5, rel=0.03)
    assert "by 50 answers so far" in said
    without = run(*FILES, *TOY, "--dry-run")
    assert re.search(r"likely +20,000 tokens of output", without)


@pytest.mark.slow
def test_a_dry_run_of_a_step_is_about_its_own_prompts(
    project: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    (project / "params.yaml").write_text(compose("tiny"))
    monkeypatch.chdir(project)
    (project / "dvc.yaml").symlink_to(root / "dvc.yaml")
    said = run("--dry-run", code=1)
    assert "teacher procedural runs here and costs nothing: there is nothing to collect" in said
    said = run("--dry-run", "--step", "collect_cto", code=1)
    assert "did you mean 'collect_cot'" in said
    params = (project / "params.yaml").read_text()
    own = re.sub(
        r"(?m)^    plugin: procedural\n    terse_fraction: .*\n    wrong_fraction: .*\n",
        "    plugin: fake\n",
        params,
    )
    (project / "params.yaml").write_text(own)
    (project / "data/prompts").mkdir(parents=True)
    write_records(project / "data/prompts/reasoning_train.jsonl", prompts(7))
    assert run("--dry-run", "--samples", "2").startswith("collect_cot: 14 questions, 14 not answered yet")
    assert run("--dry-run", "--max-problems", "5").startswith("collect_cot: 5 questions")
    assert "7 of 7 answered" in run("--budget-usd", "1")
    assert len(lines(project / "collected/collect_cot", "answer")) == 7


def test_a_missing_key_is_named_with_what_to_do() -> None:
    said = run(*FILES, "--budget-usd", "1", code=1)
    assert "the environment variable DEEPSEEK_API_KEY is not set" in said
    assert "export DEEPSEEK_API_KEY=" in said
    assert lines(Path("out"), "sent") == []


@pytest.mark.parametrize("half", [FILES[:2], FILES[2:]])
def test_problems_and_out_belong_together(half: list[str]) -> None:
    assert "--problems and --out belong together" in run(*half, code=1)


@pytest.mark.parametrize("option", ["--teacher", "--model", "--base-url", "--effort", "--set"])
def test_a_step_s_teacher_is_set_in_params(option: str) -> None:
    said = run(option, "effort=low" if option == "--set" else "low", "--dry-run", code=1)
    assert f"{option} is for --problems and --out" in said
    assert "the teacher of step collect_cot is set in params.yaml" in said


def test_a_retired_name_is_told_its_successor() -> None:
    said = run(*FILES, "--model", "deepseek-reasoner", "--dry-run", code=1)
    assert "retired the model name 'deepseek-reasoner'" in said
    assert "use deepseek-flash" in said


def test_a_teacher_that_costs_money_needs_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-not-a-key")
    assert "set collector.budget_usd (--budget-usd)" in run(*FILES, code=1)
    assert "set teacher.usd_per_million" in run(*FILES, *TOY, "--budget-usd", "1", code=1)
    said = CliRunner().invoke(cli, ["collect", *FILES, "--budget-usd", "much"])
    assert said.exit_code == 2
    assert "'much' is neither a number of USD nor none" in said.output


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--budget-usd", ["-1", "nan", "inf"]),
        ("--deadline", ["0", "-1", "inf"]),
        ("--max-tokens", ["0", "1.5"]),
        ("--seed", ["-1", str(2**63)]),
        ("--samples", ["0"]),
        ("--concurrency", ["0"]),
    ],
)
def test_an_odd_number_is_refused(option: str, values: list[str]) -> None:
    for value in values:
        result = CliRunner().invoke(cli, ["collect", *FILES, "--teacher", "fake", option, value])
        assert result.exit_code == 2, result.output
        assert option in result.output
    assert not Path("out").exists()


def test_an_unknown_teacher_is_told_its_neighbours() -> None:
    assert "did you mean 'fake'" in run(*FILES, "--teacher", "fakr", "--dry-run", code=1)
    assert "there is nothing to collect" in run(*FILES, "--teacher", "procedural", "--dry-run", code=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", "toy-2"], "model toy-1 -> toy-2"),
        (["--teacher", "vllm"], "provider generic -> vllm"),
        (["--set", "temperature=0.5"], "parameters.temperature"),
    ],
)
def test_a_folder_with_another_teacher_s_answers_is_refused(
    change: list[str], said: str, collected: Path
) -> None:
    refused = run(*FILES, *TOY, *change, "--dry-run", code=1)
    assert "out was collected with other settings" in refused
    assert said in refused
    for same in (["--base-url", "http://other.test:8080/v2"], ["--max-tokens", "50"], ["--concurrency", "3"]):
        assert "3 questions, 0 not answered" in run(*FILES, *TOY, *same, "--dry-run")


def test_it_collects_and_writes_traces_and_an_account() -> None:
    said = run(*FILES, "--teacher", "fake", "--samples", "2", "--budget-usd", "1")
    assert re.search(r"6 of 6 answered, 0\.\d+ USD: out/traces\.jsonl\n$", said)
    traces = [json.loads(line) for line in Path("out/traces.jsonl").read_text().splitlines()]
    assert [t["prompt_id"] for t in traces] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    calls = json.loads(Path("out/calls.json").read_text())
    assert (calls["teacher"], calls["requests"], calls["answers"]) == ("fake", 6, 6)
    before = Path("out/traces.jsonl").read_bytes(), Path("out/journal.jsonl").read_bytes()
    run(*FILES, "--teacher", "fake", "--samples", "2", "--budget-usd", "1")
    assert before == (Path("out/traces.jsonl").read_bytes(), Path("out/journal.jsonl").read_bytes())


def test_all_that_stdout_gets_can_be_json() -> None:
    for n in range(2):  # the second time, nothing is left to ask
        result = CliRunner().invoke(
            cli, ["collect", *FILES, "--teacher", "fake", "--budget-usd", "none", "--json"]
        )
        *progress, last = map(json.loads, result.stdout.splitlines())
        assert [line["done"] for line in progress[-1:]] == [3] * (1 - n)
        assert (last["answered"], last["questions"], last["result"]) == (3, 3, "out/traces.jsonl")
        assert float(last["spent_usd"]) > 0


@pytest.mark.slow
def test_a_stop_has_its_exit_code_and_says_how_to_go_on() -> None:
    said = run(*FILES, "--teacher", "fake", "--set", "broke=1", "--budget-usd", "1", code=4)
    assert "the provider says: 402" in said
    assert "top up the account, then run the same command again" in said
    assert "out: 3 of 3" not in said
    assert len(lines(Path("out"), "answer")) == 2
    assert "the budget of 0.0 USD is used up" in run(*FILES, "--teacher", "fake", "--budget-usd", "0", code=6)


@pytest.mark.usefixtures("clock")
def test_a_truncated_answer_is_asked_for_again_where_that_is_wanted(project: Path) -> None:
    code = FAKE.replace("refusal(402)", 'answer("", finish="length")').replace("refusal", "answer")
    (project / "plugins/teacher_fake.py").write_text(code)
    command = [*FILES, "--teacher", "fake", "--set", "broke=1", "--budget-usd", "1"]
    run(*command)
    assert len(lines(Path("out"), "sent")) == 3
    run(*command[:3], "again", *command[4:], "--retry-truncated")
    assert len(lines(Path("again"), "sent")) == 4


@pytest.mark.slow
def test_status_says_what_a_journal_holds(collected: Path) -> None:
    said = " ".join(run("status", "out").split())
    for row in (
        "questions answered 6",
        "calls 8",
        "how they ended answered 4, no_reasoning 4",
        "without an end 0",
        "tokens 80 in (32 cached), 160 out",
        "possibly paid 0 USD",
        "models served toy-1-0809 8",
        "reasoning found in reasoning_content 4, None 4",
        "prices toy 2026",
    ):
        assert row in said
    rewrite(collected, lambda records: records.pop())
    said = " ".join(run("status", "out").split())
    assert "questions answered 5" in said
    assert "without an end 1" in said
    assert "possibly paid 0.0" in said


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_folder_without_a_journal_is_an_error(command: str) -> None:
    assert "there is no journal.jsonl in nowhere" in run(command, "nowhere", code=1)
    assert "there is no journal.jsonl in collected/collect_cot" in run(command, code=1)
    assert not Path("nowhere").exists()


@pytest.mark.slow
def test_a_journal_that_is_whole_has_nothing_wrong(collected: Path) -> None:
    assert run("verify", "out") == "out and out/traces.jsonl: nothing wrong\n"
    assert run("verify", "out", "--traces", "out/traces.jsonl").endswith("nothing wrong\n")
    (collected / "traces.jsonl").unlink()
    assert run("verify", "out") == "out: nothing wrong\n"


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_damaged_line_is_named(command: str, collected: Path) -> None:
    journal = collected / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"kind":"sent"', '"kind:"sent"', 1))
    assert "journal.jsonl, line 2: damaged" in run(command, "out", code=1)


def drop_the_first_sent(records: list[dict[str, Any]]) -> None:
    records.remove(next(r for r in records if r["kind"] == "sent"))


def repeat_the_first_sent(records: list[dict[str, Any]]) -> None:
    records.append(next(r for r in records if r["kind"] == "sent"))


def repeat_the_last(records: list[dict[str, Any]]) -> None:
    records.append(records[-1])


def change_an_answer(records: list[dict[str, Any]]) -> None:
    first = next(r for r in records if r["kind"] == "answer" and r["prompt_id"] == "p1")
    first["raw"]["choices"][0]["message"]["content"] = "43"


@pytest.mark.dear
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_the_first_sent, "prompt 'p0', sample 0, attempt 0: ended, but was never sent"),
        (repeat_the_first_sent, "prompt 'p0', sample 0, attempt 0: sent twice"),
        (repeat_the_last, "answered twice"),
        (change_an_answer, "out/traces.jsonl: the trace of 'p1' is in no answer of the journal"),
    ],
)
def test_verify_finds_what_does_not_fit(change: Callable[[Any], None], said: str, collected: Path) -> None:
    rewrite(collected, change)
    assert said in run("verify", "out", code=1)


@pytest.mark.slow
def test_verify_finds_a_trace_that_is_there_twice(collected: Path) -> None:
    path = collected / "traces.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[0])
    assert "the trace of 'p0' is in no answer of the journal" in run("verify", "out", code=1)


@pytest.mark.slow
def test_verify_passes_over_traces_of_questions_without_an_answer(collected: Path) -> None:
    rewrite(collected, lambda records: records.pop())
    write_traces(teacher_of_the_options(), collected)
    assert '"error"' in (collected / "traces.jsonl").read_text()
    run("verify", "out")


@pytest.mark.slow
def test_verify_finds_a_key_in_any_file(collected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-2718281828459045")
    run("verify", "out")
    (collected / "more").mkdir()
    (collected / "more/notes.txt").write_text("x" * 99999 + "sk-2718281828459045")
    said = run("verify", "out", code=1)
    assert "wrong: out/more/notes.txt holds the value of DEEPSEEK_API_KEY" in said
    assert "sk-2718281828459045" not in said


@pytest.mark.parametrize("key", [None, "", "a\nb", "schlüssel"], ids=repr)
def test_without_a_key_that_can_be_one_nothing_is_written(
    key: str | None, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("DEEPSEEK_API_KEY", key)
    before = sorted(project.rglob("*"))
    assert "DEEPSEEK_API_KEY" in run(*FILES, "--budget-usd", "1", code=1)
    assert sorted(path for path in project.rglob("*") if "__pycache__" not in path.parts) == [
        path for path in before if "__pycache__" not in path.parts
    ]


def healthy(folder: Path, seed: int, twin: bool = True) -> Path:
    """A folder as some history leaves it: faults, a second run, more samples, prompts with the same text."""
    dice = random.Random(seed)
    odd: list[Any] = [refusal(500), broken("cut", choices=[]), answer("", finish="length")]
    teacher = teacher_of_the_options()
    asked = [*prompts(dice.randint(1, 6)), Prompt("twin", "toy", prompts(1)[0].messages)][
        : None if twin else -1
    ]
    teacher.steps = {prompt.id: dice.choices(odd, k=dice.randint(0, 3)) for prompt in asked[1:]}
    teacher.steps["twin"] = [answer(reasoning="")]
    teacher.chance = lambda call: answer(dice.choice(["42", f"to {call.label}"]), output=dice.randint(1, 99))
    samples = dice.randint(1, 3)
    if dice.random() < 0.5:
        ask(teacher, asked[:1], folder, base_s=0.001)
    if dice.random() < 0.3:
        teacher.steps |= {"p0": [refusal(422)]}
    paid = ask(teacher, asked, folder, samples=samples, base_s=0.001)
    path = folder / "traces.jsonl"
    write_records(path, traces_of(teacher, made(teacher, asked, samples), folder, paid))
    account = calls_json(account_of(folder), "openai_compatible", {})
    write_json(folder / "calls.json", account | {"traces_sha256": sha256_of(path)})
    return folder


def cut_traces(folder: Path, dice: random.Random) -> None:
    path = folder / "traces.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    rows.pop(dice.randrange(len(rows)))
    path.write_bytes(b"".join(rows))


def cut_a_trace_short(folder: Path, dice: random.Random) -> None:
    path = folder / "traces.jsonl"
    path.write_bytes(path.read_bytes()[: -dice.randint(2, 20)])


def change_a_trace(folder: Path, dice: random.Random, **changes: str) -> None:
    path = folder / "traces.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    row = dice.choice([row for row in rows if row["content"] or row["reasoning"]])
    row |= changes or {"content": row["content"] + "!"}
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def blank_a_trace(folder: Path, dice: random.Random) -> None:
    change_a_trace(folder, dice, reasoning="", content="", finish="error")


def flip_a_bit(folder: Path, dice: random.Random) -> None:
    path = folder / dice.choice(["journal.jsonl", "traces.jsonl"])
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def change_a_cost(folder: Path, dice: random.Random) -> None:
    def dearer(records: list[dict[str, Any]]) -> None:
        record = dice.choice([r for r in records if r["kind"] == "answer"])
        record["cost_usd"] = str(Decimal(record["cost_usd"]) + Decimal("0.0000001"))

    rewrite(folder, dearer)


def drop_a_field(folder: Path, dice: random.Random) -> None:
    def lack(records: list[dict[str, Any]]) -> None:
        record = dice.choice(records)
        del record[dice.choice([name for name in FIELDS[record["kind"]]])]

    rewrite(folder, lack)


DAMAGE = [
    cut_traces,
    cut_a_trace_short,
    change_a_trace,
    blank_a_trace,
    flip_a_bit,
    change_a_cost,
    drop_a_field,
]


@pytest.mark.dear
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("seed", range(20))
def test_verify_is_silent_on_a_healthy_folder_and_finds_whatever_is_done_to_it(
    seed: int, project: Path
) -> None:
    folder = healthy(project / "out", seed)
    assert run("verify", "out") == "out and out/traces.jsonl: nothing wrong\n"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for number, damage in enumerate(DAMAGE):
        damage(folder, random.Random(f"{seed}/{number}"))
        assert "wrong: " in run("verify", "out", code=1), damage
        for path, data in before.items():
            path.write_bytes(data)


@pytest.mark.dear
@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("damage", DAMAGE)
def test_verify_finds_it_without_the_account_as_well(damage: Callable[..., None], project: Path) -> None:
    folder = healthy(project / "out", 4, twin=False)
    (folder / "calls.json").unlink()
    assert run("verify", "out").endswith("nothing wrong\n")
    damage(folder, random.Random(5))
    assert "wrong: " in run("verify", "out", code=1)


@pytest.mark.slow
def test_verify_says_how_many_lines_have_no_checksum(collected: Path) -> None:
    records = [r | {"schema": 1} if r["kind"] == "run" else r for r in lines(collected)]
    path = collected / "journal.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert f"{len(records)} lines have no checksum" in run("verify", "out")
    path.write_text(path.read_text().replace('"cost_usd": "0.0', '"cost_usd": "0.1', 1))
    assert "it costs 0.1" in run("verify", "out", code=1)


@pytest.mark.slow
def test_what_was_possibly_paid_can_be_written_off(project: Path) -> None:
    teacher = teacher_of_the_options()
    teacher.steps = {"p0": [broken("cut")]}
    paid = ask(teacher, 3, project / "out", base_s=0.001)
    most, spent = paid.possibly, paid.spent
    assert most > 0
    assert "is more than" in run("write-off", "out", "--billed-usd", "1", code=1)
    said = run("write-off", "out", "--billed-usd", "0.0001")
    assert said == f"out: {most - Decimal('0.0001')} USD written off, {spent + Decimal('0.0001')} USD spent\n"
    after = read_paid(project / "out")
    assert (after.possibly, after.broken, after.spent) == (0, 0, spent + Decimal("0.0001"))
    assert "nothing to write off" in run("write-off", "out")
    assert f"written off {most - Decimal('0.0001')} USD" in " ".join(run("status", "out").split())
    assert run("verify", "out").endswith("nothing wrong\n")
    teacher.steps = {"p9": [broken("cut")]}
    assert ask(teacher, prompts(1, first=9), project / "out", base_s=0.001).possibly > 0, (
        "only what was before"
    )


def test_an_unfinished_journal_has_traces(project: Path) -> None:
    teacher = teacher_of_the_options()
    teacher.steps = {"p1": [answer("half")], "p2": [refusal(422)]}
    ask(teacher, 3, project / "out", samples=2, base_s=0.001)
    assert run("traces", "out") == "4 traces: out/traces.jsonl; 2 questions have no answer yet\n"
    traces = [json.loads(line) for line in Path("out/traces.jsonl").read_text().splitlines()]
    assert [t["prompt_id"] for t in traces] == ["p0", "p0", "p1", "p1"]
    assert traces[2]["content"] == "half"
    assert run("verify", "out") == "out and out/traces.jsonl: nothing wrong\n"
    run("traces", "out", "--output", "else/where.jsonl")
    assert Path("else/where.jsonl").read_bytes() == Path("out/traces.jsonl").read_bytes()
    assert [path.name for path in Path("else").iterdir()] == ["where.jsonl"]


def test_the_traces_of_a_finished_journal_are_those_that_collect_writes(project: Path) -> None:
    run(*FILES, "--teacher", "fake", "--samples", "2", "--budget-usd", "1")
    before = Path("out/traces.jsonl").read_bytes(), Path("out/calls.json").read_bytes()
    assert run("verify", "out").endswith("nothing wrong\n")
    run("traces", "out")
    assert (Path("out/traces.jsonl").read_bytes(), Path("out/calls.json").read_bytes()) == before


@pytest.mark.slow
def test_status_says_why_calls_failed(project: Path) -> None:
    teacher = teacher_of_the_options()
    teacher.steps = {
        f"p{n}": [refusal(429, f"slow down [/red], request req-{n}9{n} of 7")] * (n + 1) for n in range(3)
    }
    teacher.steps |= {"p3": [refusal(422, "[/x] no \x1b[31mtools")]}
    ask(teacher, 4, project / "out", base_s=0.001)
    said = run("status", "out")
    assert "6 x busy: 429: slow down [/red], request req-292 of 7" in said
    assert "1 x refused: 422: [/x] no ␛[31mtools" in said
    assert re.search(r"refused +1: p3 ", said)


def test_names_of_models_and_folders_are_no_markup(project: Path) -> None:
    teacher = teacher_of_the_options()
    teacher.steps = {"p0": [answer() | {"model": "a[/x][bold]b"}]}
    ask(teacher, 2, project / "[/x]")
    said = run("status", "[/x]")
    assert "a[/x][bold]b 1" in said
    assert "[/x]" in said.splitlines()[0]
    assert run("verify", "[/x]").endswith("nothing wrong\n")

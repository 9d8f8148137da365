"""Prompt source and reward `verifiers`, on environments that are written here as anybody would write one."""

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import ROOT, SUPERCOT, completion
from loading import load_plugin, registered

import chainforge as cf
from chainforge.plugins import load_plugins
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

PLUGIN = load_plugin("prompts_verifiers")
installed = pytest.mark.skipif(PLUGIN.find_spec("verifiers") is None, reason="needs verifiers")
ENVIRONMENT = """
import verifiers as vf
from datasets import Dataset

def load_environment(rows=20, kind="single", apart=True):
    data = Dataset.from_list([{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(rows)])
    later = Dataset.from_list([{"question": f"What is {n} + 2?", "answer": str(n + 2)} for n in range(5)])
    parser = vf.Parser()

    def right(completion, answer, parser):
        return float(parser.parse_answer(completion) == answer)

    async def short(completion, state):
        return 1.0 if len(completion[-1]["content"]) < 4 else 0.0

    def best(completions, answers):
        longest = max(len(c[-1]["content"]) for c in completions)
        return [float(len(c[-1]["content"]) == longest) for c in completions]

    def broken(completion):
        raise ValueError("no such luck")

    funcs = {"broken": [broken], "group": [best]}.get(kind, [right, short])
    rubric = vf.Rubric(funcs=funcs, weights=[1.0, 0.25][: len(funcs)], parser=parser)
    many = {"system_prompt": "Be brief.", "rubric": rubric, "parser": parser}
    if kind == "tools":
        return vf.ToolEnv(dataset=data, tools=[], **many)
    return vf.SingleTurnEnv(dataset=data, eval_dataset=later if apart else None, **many)
"""


@pytest.fixture(autouse=True)
def toy_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "toy_sums.py").write_text(ENVIRONMENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    PLUGIN.load.cache_clear()
    yield
    sys.modules.pop("toy_sums", None)


def prompts(split: str = "train", n: int = 4, **arguments: Any) -> list[cf.Prompt]:
    source = registered("prompts_verifiers", "register_prompt_sources")["verifiers"]
    return list(source(split=split, n=n, seed=17, environment="toy-sums", arguments=arguments))


def values(
    asked: list[cf.Prompt], summaries: list[list[str]], **settings: object
) -> list[list[float | None]]:
    entry = load_plugins(ROOT / "plugins").pick("rewards", "verifiers")
    reward = make_reward(entry, 1.0, settings)
    here = replace(reward, options=replace(reward.options, isolation="inline", prepare=None))
    made = [
        [completion(p, SUPERCOT.render("So.", text)) for text in texts]
        for p, texts in zip(asked, summaries, strict=True)
    ]
    with Scorer((here,), SUPERCOT, 60.0) as scorer:
        return [[score.parts["verifiers"] for score in g.scores] for g in scorer.score(asked, made)]


@installed
def test_rows_become_prompts_and_the_splits_are_the_environment_s_own() -> None:
    train, later = prompts(n=100), prompts("eval", n=100)
    assert (len(train), len(later)) == (20, 5)
    assert [m["content"] for m in train[0].messages] == ["Be brief.", "What is 0 + 1?"]
    assert train[0].answer == "1"
    assert len({p.id for p in (*train, *later)}) == 25
    assert prompts(n=3) == prompts(n=3) != prompts(n=4)[:3]


@installed
def test_ctrl_c_and_sigterm_stay_whose_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    prompts()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@installed
def test_without_evaluation_rows_some_training_rows_are_kept_for_it() -> None:
    train, later = prompts(n=100, apart=False, rows=60), prompts("eval", n=100, apart=False, rows=60)
    texts = [{p.messages[-1]["content"] for p in split} for split in (train, later)]
    assert texts[0].isdisjoint(texts[1])
    assert len(texts[0]) + len(texts[1]) == 60
    assert 0 < len(later) < len(train)


@installed
def test_the_rubric_decides_with_its_own_weights() -> None:
    asked = prompts(n=20)[:2]
    assert values(asked, [["1", "7", "0001"], ["2", "1 and more", "1"]]) == [
        [1.25, 0.25, 0.0],
        [1.25, 0.0, 0.25],
    ]


@installed
def test_a_rubric_may_compare_a_group() -> None:
    asked = prompts(n=20, kind="group")[:2]
    assert values(asked, [["a", "bcd"], ["ef", "g"]]) == [[0.0, 1.0], [1.0, 0.0]]


@installed
def test_it_sees_the_summary_or_the_whole_response() -> None:
    asked = prompts(n=20, kind="group")[:1]
    whole = values(asked, [["a", "bcd"]], part="response")
    assert whole == [[0.0, 1.0]]
    assert values(prompts(n=20)[:1], [["1"]], part="response") == [[0.0]], "the tags are not the answer"


@installed
def test_a_function_that_fails_is_no_wrong_answer() -> None:
    with pytest.raises(cf.ChainForgeError, match="broken: no such luck"):
        values(prompts(n=1, kind="broken"), [["1"]])


@installed
def test_a_prompt_of_another_source_is_left_out() -> None:
    other = cf.Prompt("p", "toy", ({"role": "user", "content": "?"},), "1")
    assert values([*prompts(n=20)[:1], other], [["1"], ["1"]]) == [[1.25], [None]]


@installed
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("toy-sums", {"kind": "tools"}, "is a ToolEnv: it has several turns, or tools"),
        ("nowhere", {}, "environment nowhere: .*\n.*install its package"),
        ("toy-sums", {"colour": 1}, "environment toy-sums: .*colour"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(name: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(cf.ChainForgeError, match=told):
        PLUGIN.problems(split="train", n=1, seed=0, environment=name, arguments=arguments)


def test_without_the_package_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLUGIN, "find_spec", lambda _: None)
    with pytest.raises(cf.ChainForgeError, match=r"chainforge-r1\[verifiers\]"):
        prompts()

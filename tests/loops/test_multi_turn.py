"""A conversation of three turns through every verb: what the assistant thought before reaches nobody."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import ROOT, SUPERCOT, MadeUp, learner_of, make_step, policy, response, tokenizer
from grpo_cases import mix
from grpo_cases import settings_of as grpo_settings

from chainforge.config.filter import FilterSettings
from chainforge.config.sample import SampleSettings
from chainforge.config.sft import SftSettings
from chainforge.filtering.contamination import Benchmarks
from chainforge.jsonl import read_records, write_records
from chainforge.loops.collect import collect
from chainforge.loops.evaluate import outcome
from chainforge.loops.filter import select_traces
from chainforge.loops.grpo.train import train
from chainforge.loops.prompts import materialise
from chainforge.loops.rejection import accept
from chainforge.loops.scored_batches import sample_and_score
from chainforge.loops.sft import tokenize
from chainforge.plugins import load_plugins, prompts_from
from chainforge.records import Example, Group, Message, Prompt, Trace
from chainforge.reward_options import RewardOptions
from chainforge.rollout.complete import complete
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward

SAID = [
    ("system", "Be brief."),
    ("user", "6*7=?"),
    ("assistant", SUPERCOT.render("HIDDEN six sevens", "42")),
    ("user", "And 6*8?"),
    ("assistant", "<think>HIDDEN again</think>48"),
    ("user", "Do I write <think>? And 6*9?"),
]
SEEN = [*SAID[:2], ("assistant", "42"), SAID[3], ("assistant", "48"), SAID[5]]
ROWS = [{"role": role, "content": content} for role, content in SAID]
RENDERED = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in SEEN)
RENDERED += "<|im_start|>assistant\n"


def turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    """As a step reads them from a file that a user brought along, whole thoughts in it."""
    row = {"id": "p1", "source": "chat", "messages": ROWS, "answer": "54", "columns": {}}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return read_records(tmp_path / "own.jsonl", Prompt)


class Watching:
    """A reward for conversations, which keeps the prompts that it was given."""

    def __init__(self) -> None:
        self.prompts: list[list[Message]] = []

    def __call__(self, *, prompts: list[list[Message]], completions: list[Any]) -> list[float]:
        self.prompts += prompts
        return [float(i % 2) for i, _ in enumerate(completions)]

    @property
    def scorer(self) -> Scorer:
        options = RewardOptions(conversational=True)
        return Scorer((WeightedReward("correct", 1.0, self, "toy", options),), SUPERCOT, 10.0)


def test_prompts(tmp_path: Path) -> None:
    for split, last in (("train", ""), ("eval", " Well?")):
        row = {"messages": [*ROWS[:-1], {"role": "user", "content": SAID[-1][1] + last}], "answer": "54"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    source = load_plugins(ROOT / "plugins").pick("prompt_sources", "jsonl")
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "eval")}
    given = {split: prompts_from(source, files, split=split, n=5, seed=17) for split in files}
    found = materialise("prompts.chat", given, {"train": 5, "eval": 5})
    assert turns(found["train"][0].messages) == SEEN
    write_records(tmp_path / "written.jsonl", found["train"])
    assert "HIDDEN" not in (tmp_path / "written.jsonl").read_text()


def test_collect(prompts: list[Prompt]) -> None:
    asked: list[Prompt] = []

    class Teacher:
        def generate(self, prompts: Sequence[Prompt], *, n: int, seed: int) -> Iterator[Trace]:
            asked.extend(prompts)
            return (Trace(p.id, "6*9=54", "54", "stop", "toy") for p in prompts)

    collect(Teacher(), prompts, 1, make_step("collect_cot"), Work())
    assert [turns(prompt.messages) for prompt in asked] == [SEEN]


def test_filter(prompts: list[Prompt]) -> None:
    paths = dict.fromkeys(("output", "card", "prompts", "traces", "calls"), "file")
    trace = Trace("p1", "6*9=54", "54", "stop", "toy")
    settings = FilterSettings(**paths, min_reward=0.0)
    watching = Watching()
    by_id = {prompt.id: prompt for prompt in prompts}
    (example,), _ = select_traces([trace], by_id, watching.scorer, settings, Benchmarks())
    assert turns(example.messages) == turns(watching.prompts[0]) == SEEN


def test_sft(tmp_path: Path) -> None:
    example = Example("p1", tuple(ROWS), response("6*9=54", "54"), "toy")  # type: ignore[arg-type]
    write_records(tmp_path / "examples.jsonl", [example])
    settings = SftSettings(output="out", examples="in", start_from="s", num_epochs=1.0, batch_size=1)  # type: ignore[arg-type]
    examples = read_records(tmp_path / "examples.jsonl", Example)
    (tokens,), too_long = tokenize(tokenizer(), examples, settings, "")
    assert tokenizer().decode(list(tokens.prompt)) == RENDERED
    assert tokenizer().decode(list(tokens.completion)) == f"{example.response}<|im_end|>"
    assert too_long == 0


def test_grpo(prompts: list[Prompt]) -> None:
    engine, watching, settings = MadeUp(), Watching(), grpo_settings(prompts_per_step=1, num_rl_steps=1)
    step = make_step()
    train(learner_of(policy(), settings, step), engine, watching.scorer, mix(prompts), settings, step, Work())
    assert {tokenizer().decode(list(request.prompt_ids)) for request in engine.asked} == {RENDERED}
    assert [turns(prompt) for prompt in watching.prompts] == [SEEN] * settings.group_size


def sampled(prompts: list[Prompt], watching: Watching) -> list[Group]:
    """As the stage scripts of `sample` and `evaluate` do it."""
    paths = {"output": "out", "start_from": "in", "prompts": "in", "rewards": {"correct": 1.0}}
    settings, step, engine = SampleSettings(**paths), make_step("rejection_sampling"), MadeUp()

    def sample(batch: Sequence[Prompt]) -> Any:
        return complete(engine, tokenizer(), batch, 4, settings, step, seed=lambda place, number: number)

    groups = sample_and_score(prompts, sample, 4, watching.scorer, Work().journal("sampled"), Work(), "title")
    assert [tokenizer().decode(list(request.prompt_ids)) for request in engine.asked] == [RENDERED]
    assert accept(groups, settings)[0][0].messages == groups[0].prompt.messages
    return groups


def test_sample_and_evaluate(prompts: list[Prompt]) -> None:
    watching = Watching()
    (group,) = sampled(prompts, watching)
    assert turns(group.prompt.messages) == SEEN
    assert [turns(prompt) for prompt in watching.prompts] == [SEEN] * 4
    row = outcome(group, None)
    assert turns(row["messages"]) == SEEN
    assert row["question"] == SAID[-1][1]

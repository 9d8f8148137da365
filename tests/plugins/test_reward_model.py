"""Reward `reward_model`: a tiny classifier, held against the model itself, here and on a server."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_classifier import DROP, Classifier, serving
from fakes import ROOT, SUPERCOT, completion, prompt, tokenizer
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from chainforge.errors import ChainForgeError
from chainforge.plugins import load_plugins
from chainforge.providers import classify
from chainforge.records import Prompt
from chainforge.scoring import Scorer
from chainforge.wiring import make_reward

ENTRY = load_plugins(ROOT / "plugins").pick("rewards", "reward_model")
TEXTS = [SUPERCOT.render("so", "5"), SUPERCOT.render("other", "5"), "5", SUPERCOT.render("so", "6")]


def classifier(folder: Path, labels: int) -> Qwen2ForSequenceClassification:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer()), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, num_labels=labels,
    )  # fmt: skip
    model = Qwen2ForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def values(asked: Prompt, texts: list[str], **settings: object) -> list[float | None]:
    reward = make_reward(ENTRY, 1.0, settings)
    here = replace(reward, options=replace(reward.options, isolation="inline"))  # torch is imported already
    with Scorer((here,), SUPERCOT, 60.0) as scorer:
        (group,) = scorer.score([asked], [[completion(asked, text) for text in texts]])
    return [score.parts["reward_model"] for score in group.scores]


def test_it_is_the_model_s_score_of_the_part(tmp_path: Path) -> None:
    model, asked = classifier(tmp_path, 1), prompt()

    def expected(answer: str) -> float:
        turns = [*map(dict, asked.messages), {"role": "assistant", "content": answer}]
        text = str(tokenizer().apply_chat_template(turns, tokenize=False))
        ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([ids])).logits[0, 0])

    summaries = values(asked, TEXTS, model=str(tmp_path))
    assert summaries == pytest.approx([expected(answer) for answer in ("5", "5", "", "6")], abs=1e-5)
    whole = values(asked, TEXTS, model=str(tmp_path), part="response")
    assert whole == pytest.approx([expected(text) for text in TEXTS], abs=1e-5)


def test_of_several_labels_one_must_be_named(tmp_path: Path) -> None:
    classifier(tmp_path, 3)
    found = [values(prompt(), TEXTS, model=str(tmp_path), label=f"LABEL_{i}") for i in range(3)]
    for shares in zip(*found, strict=True):
        assert sum(shares) == pytest.approx(1.0)  # type: ignore[arg-type]
    with pytest.raises(ChainForgeError, match="has several labels\n  -> set `label` to one of: LABEL_0"):
        values(prompt(), TEXTS, model=str(tmp_path))


KEY = "house-key-31415926"
Start = Callable[..., Classifier]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A server with a classifier of so many labels, which is also in `tmp_path`. Nobody waits for long."""
    monkeypatch.setattr(classify, "FIRST_S", 0.01)
    monkeypatch.setattr(classify, "PATIENCE_S", 0.3)
    with ExitStack() as stack:

        def go(labels: int = 1, **settings: Any) -> Classifier:
            model = classifier(tmp_path, labels)
            return stack.enter_context(serving(Classifier(model, tokenizer(), **settings)))

        yield go


@pytest.mark.slow
def test_a_server_gives_the_same_scores_in_order(start: Start, tmp_path: Path) -> None:
    server = start()
    texts = [SUPERCOT.render("so", f"{n} and {n * n}") for n in range(40)]
    for settings in ({}, {"part": "response", "max_tokens": 9}):
        here = values(prompt(), texts, model=str(tmp_path), **settings)
        assert len({round(value or 0.0, 6) for value in here}) > 20
        for url in (server.url, f"{server.url}/v1", f"{server.url}/v1/"):
            there = values(prompt(), texts, model="rm", url=url, **settings)
            assert there == pytest.approx(here, abs=1e-5)


@pytest.mark.slow
def test_a_server_gives_the_same_probabilities(start: Start, tmp_path: Path) -> None:
    server = start(3)
    for label in ("LABEL_0", "LABEL_2"):
        here = values(prompt(), TEXTS, model=str(tmp_path), label=label)
        assert values(prompt(), TEXTS, model="rm", url=server.url, label=label) == pytest.approx(
            here, abs=1e-5
        )


@pytest.mark.slow
def test_no_more_is_asked_for_than_the_server_reads(start: Start, tmp_path: Path) -> None:
    server = start(longest=12)
    here = values(prompt(), TEXTS, model=str(tmp_path), max_tokens=12)
    assert values(prompt(), TEXTS, model="rm", url=server.url) == pytest.approx(here, abs=1e-5)


@pytest.mark.slow
def test_a_server_that_is_busy_or_drops_a_call_is_asked_again(start: Start, tmp_path: Path) -> None:
    server = start(faults=[503, DROP, 429, 500, DROP])
    here = values(prompt(), TEXTS, model=str(tmp_path))
    assert values(prompt(), TEXTS, model="rm", url=server.url) == pytest.approx(here, abs=1e-5)
    assert len(server.asked) == len(TEXTS) + 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "served", "settings", "complaint"),
    [
        (1, {}, {"model": "gpt"}, "serves no model called 'gpt'\n  -> set `model` to one of: rm"),
        (1, {"owner": "sglang"}, {}, "is SGLang, which gives no raw scores"),
        (
            1,
            {"version": "0.11.2"},
            {},
            "has version 0.11, which classifies in another way\n  -> install 0.28",
        ),
        (1, {"key": KEY}, {}, "401.*\n  -> export .* name that variable in `api_key_env`"),
        (1, {}, {"label": "LABEL_0"}, "has no label 'LABEL_0'\n  -> take `label` out"),
        (3, {}, {}, "rm has several labels\n  -> set `label` by its place .* LABEL_0 to LABEL_2"),
        (
            3,
            {},
            {"label": "good"},
            "does not say which label of rm is 'good'\n.*LABEL_0 to LABEL_2; .* is 'LABEL_",
        ),
        (1, {"faults": [404]}, {}, "does not classify by 'rm': it answers 404.*\n  -> .*--convert classify"),
        (1, {"faults": [503] * 999}, {}, "/classify gives no answer, tried for 0.3 s: 503"),
        (1, {"faults": [DROP] * 999}, {}, "/classify gives no answer, tried for 0.3 s: .*disconnected"),
    ],
)
def test_what_a_server_cannot_do_is_said(
    start: Start, labels: int, served: dict[str, Any], settings: dict[str, Any], complaint: str
) -> None:
    server = start(labels, **served)
    with pytest.raises(ChainForgeError, match=complaint) as caught:
        values(prompt(), TEXTS, **{"model": "rm", "url": server.url, **settings})
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.dear
@pytest.mark.parametrize(
    "item",
    [
        {"index": 0, "probs": [float("nan")], "num_classes": 1},
        {"index": 0, "probs": [None], "num_classes": 1},
        {"index": 0, "probs": ["0.5"], "num_classes": 1},
        {"index": 0, "probs": [10**400], "num_classes": 1},
        {"index": 0, "probs": [], "num_classes": 0},
        {"index": 0, "probs": [0.5], "num_classes": 2},
        {"index": 0, "label": "LABEL_0"},
        "LABEL_0",
    ],
)
def test_an_answer_without_numbers_stops_the_run(start: Start, item: object) -> None:
    server = start(faults=[{"data": [item]}])
    with pytest.raises(ChainForgeError, match="the answer has no finite score for each class"):
        values(prompt(), TEXTS, model="rm", url=server.url)


@pytest.mark.dear
@pytest.mark.parametrize("said", [{"data": []}, {"data": None}, {"embedding": [0.1]}])
def test_so_does_one_of_another_shape(start: Start, said: dict[str, Any]) -> None:
    server = start(faults=[said])
    with pytest.raises(ChainForgeError, match="the answer has no finite score for each class"):
        values(prompt(), TEXTS, model="rm", url=server.url)


@pytest.mark.slow
def test_nobody_listens(start: Start) -> None:
    server = start()
    with serving(Classifier(server.model, server.tokenizer)) as gone:
        pass
    with pytest.raises(
        ChainForgeError, match=r"/v1/models gives no answer, tried for 0.3 s: .*\n  -> see that"
    ):
        values(prompt(), TEXTS, model="rm", url=gone.url)


@pytest.mark.slow
def test_the_key_reaches_the_server_and_no_message(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as in a run, which gets no other key."""
    server = start(key=KEY)
    settings = {"model": "rm", "url": server.url, "api_key_env": "HOUSE_API_KEY"}
    reward = make_reward(ENTRY, 1.0, settings)
    asked, made = [prompt()], [[completion(prompt(), text) for text in TEXTS]]

    def score() -> list[float]:
        with Scorer((reward,), SUPERCOT, 60.0, keys=frozenset({"HOUSE_API_KEY"})) as scorer:
            return [score.total for score in scorer.score(asked, made)[0].scores]

    with pytest.raises(ChainForgeError, match="HOUSE_API_KEY is not set"):
        score()
    monkeypatch.setenv("HOUSE_API_KEY", KEY)
    assert len(score()) == len(TEXTS)
    server.faults = [400] * 99
    with pytest.raises(ChainForgeError, match=r"400: .*it is broken, Bearer \[key\]") as caught:
        score()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"url": "localhost:8000"}, "url is 'localhost:8000'"),
        ({"url": "http://localhost:80x/"}, "url is 'http://localhost:80x/'"),
        ({"url": "http://h:1", "revision": "main"}, "both url and revision are set"),
        ({"url": "http://h:1", "device": "cuda"}, "both url and device are set"),
        ({"url": f"http://user:{KEY}@h:1"}, "reward_settings.reward_model.url holds a key"),
        ({"url": "http://h:1", "api_key_env": f"sk-{KEY}"}, "api_key_env holds a key: .*"),
        ({"api_key_env": "HOUSE_API_KEY"}, "api_key_env is for a server"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ChainForgeError, match=complaint) as caught:
        make_reward(ENTRY, 1.0, {"model": "rm", **settings})
    assert KEY not in str(caught.value)

"""Laws of supervised fine-tuning: loss on the response only, and nothing that depends on the machine."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import learner_of, make_step, policy, tokenizer
from sft_cases import EXAMPLES, STEP, backward, publish, run, settings_of, tokens_of
from torch.nn.functional import cross_entropy

from chainforge.errors import ChainForgeError
from chainforge.learner.optimizer import NotFinite
from chainforge.loops.sft import evaluation_loss, tokenize, train
from chainforge.loops.sft_batches import batches, split
from chainforge.models.chat import encode_prompt, encode_response
from chainforge.models.checkpoint import Policy
from chainforge.response import tag_format
from chainforge.run.work import Work


def test_the_loss_is_the_mean_cross_entropy_of_response_tokens_and_of_no_other() -> None:
    toy, batch = policy(), EXAMPLES[:5]
    loss, found = backward(toy, None, tokens_of(toy, batch), settings_of())
    total, count = torch.zeros(()), 0
    for e in batch:
        prompt, response = encode_prompt(tokenizer(), e.messages), encode_response(tokenizer(), e.response)
        logits_SV = toy.model(torch.tensor([[*prompt, *response]])).logits[0]
        total = total + cross_entropy(
            logits_SV[len(prompt) - 1 : -1], torch.tensor(response), reduction="sum"
        )
        count += len(response)
    wanted = torch.autograd.grad(total / count, list(toy.model.parameters()))
    assert loss == pytest.approx(total.item() / count, rel=1e-5)
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in wanted]), atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_loss_and_gradient_do_not_depend_on_the_size_of_a_micro_batch(weight: float) -> None:
    toy, teacher = policy(), policy(seed=1)
    settings = settings_of(logit_kd_weight=weight, teacher="t")
    found = []
    for most in (10**6, 1, 150, 300):
        step = make_step("sft", micro_batch_tokens=most)
        found.append(backward(toy, teacher, tokens_of(toy), settings, step))
    for loss, grad in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(grad, found[0][1], atol=1e-6, rtol=1e-4)


def test_training_twice_gives_the_same_bytes() -> None:
    found = []
    for name in ("a", "b"):
        toy = policy()
        settings = settings_of(muon_learning_rate=1e-3)
        learner = learner_of(toy, settings, STEP)
        publish(*train(learner, None, EXAMPLES, settings, STEP, Work()))
        learner.save(Path(name))
        found.append([path.read_bytes() for path in sorted(Path(name).iterdir())])
        found[-1] += [
            Path(f).read_bytes() for f in ("plots/sft_cold_start.csv", "metrics/sft_cold_start.json")
        ]
    assert found[0] == found[1]


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_its_figures() -> None:
    toy = policy()
    settings = settings_of(num_epochs=20.0, learning_rate=1e-2, eval_every=7, batch_size=5)
    publish(*run(toy, settings))
    rows = list(csv.DictReader(Path("plots/sft_cold_start.csv").read_text().splitlines()))
    summary = json.loads(Path("metrics/sft_cold_start.json").read_text())
    assert summary["examples"] + summary["held_out"] == len(EXAMPLES)
    assert summary["held_out"] == 2
    assert summary["steps"] == len(rows) == 40
    assert summary["parameters"] == sum(p.numel() for p in toy.model.parameters())
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert [row["step"] for row in rows if row["eval_loss"]] == ["7", "14", "21", "28", "35", "40"]
    assert summary["eval_loss"] == pytest.approx(float(rows[-1]["eval_loss"]), rel=1e-4)


def test_the_evaluation_loss_is_the_training_loss_without_a_gradient() -> None:
    toy = policy()
    batch = tokens_of(toy)
    learner = learner_of(toy, settings_of(), make_step(micro_batch_tokens=100))
    loss = evaluation_loss(learner, batch)
    assert all(p.grad is None for p in toy.model.parameters())
    assert loss == pytest.approx(backward(toy, None, batch, settings_of())[0], rel=1e-5)
    assert evaluation_loss(learner, []) is None


def test_examples_that_are_too_long_are_left_out_and_counted() -> None:
    toy = policy()
    lengths = [len(t) for t in tokens_of(toy)]
    limit = sorted(lengths)[6]
    fitting, too_long = tokenize(toy.tokenizer, EXAMPLES, settings_of(max_tokens=limit), "")
    assert [len(t) for t in fitting] == [n for n in lengths if n <= limit]
    assert too_long == sum(n > limit for n in lengths) > 0
    publish(*run(toy, settings_of(max_tokens=limit)))
    assert json.loads(Path("metrics/sft_cold_start.json").read_text())["too_long"] == too_long
    with pytest.raises(
        ChainForgeError, match=r"none of 12 examples fits into 5 tokens\n  -> raise sft\.max_tokens"
    ):
        tokenize(toy.tokenizer, EXAMPLES, settings_of(max_tokens=5), "")


def test_a_prefilled_tag_belongs_to_the_prompt_and_gets_no_loss() -> None:
    form = tag_format("r1-prefilled")
    toy = Policy(policy().model, tokenizer(form.tags))
    e = replace(EXAMPLES[3], response=form.render("xxx", "21"))
    (tokens,), _ = tokenize(toy.tokenizer, [e], settings_of(), form.prefill)
    assert toy.tokenizer.decode(list(tokens.prompt)).endswith("<|im_start|>assistant\n<think>")
    assert toy.tokenizer.decode(list(tokens.completion)) == "xxx</think><answer>21</answer><|im_end|>"


def test_held_out_examples_are_never_trained_on_and_the_split_is_stable() -> None:
    tokens = tokens_of(policy())
    training, held_out = split(tokens, settings_of(), STEP)
    assert sorted(map(id, [*training, *held_out])) == sorted(map(id, tokens))
    assert split(tokens, settings_of(), STEP) == (training, held_out)
    assert split(tokens, settings_of(), make_step("sft_refine"))[1] != held_out
    assert split(tokens, settings_of(eval_fraction=0.0), STEP)[1] == []
    assert len(split(tokens[:1], settings_of(eval_fraction=0.9), STEP)[0]) == 1  # something is left to train


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_every_example_comes_once_per_pass(batch_size: int) -> None:
    tokens = tokens_of(policy())
    per_pass = -(-len(tokens) // batch_size)
    found = list(batches(tokens, batch_size, 3 * per_pass, STEP))
    passes = [found[i : i + per_pass] for i in range(0, len(found), per_pass)]
    for one in passes:
        assert sorted(id(t) for batch in one for t in batch) == sorted(map(id, tokens))
        assert all(len(batch) <= batch_size for batch in one)
    assert list(batches(tokens, batch_size, 3 * per_pass, STEP)) == found
    if batch_size == 1:
        assert passes[0] != passes[1]


def test_a_loss_that_is_not_a_number_stops() -> None:
    toy = policy()
    with torch.no_grad():
        toy.model.get_output_embeddings().weight[0, 0] = torch.nan
    with pytest.raises(NotFinite, match="the loss is nan\n  -> lower the learning rate"):
        run(toy, settings_of())
    assert not Path("metrics").exists()

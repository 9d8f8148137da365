"""Two processes train as one does: with all the weights in each, and with the weights split by FSDP2."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fakes import SUPERCOT, MadeUp, make_step, policy, prompt, scorer_of, tokenizer
from torch import Tensor
from two_processes import SHARINGS, by_two
from zoo import RIGHT, make

from chainforge.algorithms.losses import LOSSES
from chainforge.config.adapter import AdapterSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.sft import SftSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.loops import sft
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.train import train
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy, load_policy, place
from chainforge.records import Example
from chainforge.run.work import Work

Trained = tuple[Path, list[dict[tuple[str, str], Any]]]
PROMPTS = [prompt(n) for n in range(1, 9)]
EXAMPLES = [Example(p.id, p.messages, SUPERCOT.render("7" * n, str(n)), "toy") for n, p in enumerate(PROMPTS)]
SFT = SftSettings(
    output=Path("out"), examples=Path("in"), start_from=Path("model"), batch_size=5, num_epochs=3.5,
    eval_fraction=0.2, eval_every=2, learning_rate=5e-4, warmup_fraction=0.0, weight_decay=0.1,
)  # fmt: skip
CASES = ["sft", *LOSSES, "sft, adapter", "grpo, adapter", "sft, experts"]
MORE: dict[str, dict[str, Any]] = {
    "adapter": {"adapter": AdapterSettings(kind="lora", rank=4), "learning_rate": 5e-3},
    "experts": {"router_aux_loss_coef": 0.1},
}


def grpo_settings(loss_type: str) -> GrpoSettings:
    """Six optimizer steps, on three prompts: an odd number of groups for two processes."""
    return GrpoSettings(
        output=Path("out"), start_from=Path("model"), prompts=Path("in"), rewards={"correct": 1.0},
        group_size=3, prompts_per_step=3, num_rl_steps=3, num_iterations=2, max_new_tokens=8, kl_coeff=0.05,
        learning_rate=5e-4, loss_type=loss_type, clip_ratio_high=0.3, mask_truncated=True,
    )  # fmt: skip


def made_for(case: str) -> Policy:
    """The policy before it is trained."""
    if not case.endswith("experts"):
        return policy(tie_word_embeddings=True)
    config, sizes = RIGHT["mixtral"]
    toy = tokenizer()
    model = make(config, sizes | {"vocab_size": len(toy)}, loud=True)
    return Policy(place(model, torch.device("cpu")), toy)


def train_once(case: str, sharing: str, *, precision: str = "float32") -> dict[str, Any]:
    """Weights and figures, by name."""
    step = make_step("step", micro_batch_tokens=64, sharding=sharing)  # many micro-batches, of unequal number
    made, (verb, _, variant) = made_for(case), case.partition(", ")
    more = MORE.get(variant, {})
    if verb == "sft":
        settings = SFT.model_copy(update=more)
        learner = LocalLearner(made, settings, step)
        table, _ = sft.train(learner, None, EXAMPLES, settings, step, Work())
    else:
        settings = grpo_settings(verb).model_copy(update=more)
        reference = None if variant else partial(policy, tie_word_embeddings=True)
        learner = LocalLearner(made, settings, step, reference=reference)
        scorer, mix = scorer_of(lambda ids: float(ids[0] % 3)), PromptMix(PROMPTS, [], 0.0, 3)
        table, _ = train(learner, MadeUp(), scorer, mix, settings, step, Work())
    sequences = [Tokens([1, 2], [3, 4]), Tokens([5], [6, 7, 8]), Tokens([1, 2], [9])]
    learner.save(Path("saved") / f"{case}-{sharing}")
    return {
        "weights": {name: weight.clone() for name, weight in learner.weights()},
        "table": table.state_dict()["rows"],
        "logprobs": learner.logprobs(sequences),
    }


def train_all(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """In one of the processes, whose working folder is its own."""
    own = folder / str(dist.get_rank())
    own.mkdir()
    os.chdir(own)
    return {(case, sharing): train_once(case, sharing) for case in CASES for sharing in SHARINGS}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The folder that they worked in, and what each process found."""
    folder = tmp_path_factory.mktemp("processes")
    return folder, by_two(train_all, folder)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(
    case: str, sharing: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = train_once(case, sharing)
    before = made_for(case).model.state_dict()
    one, other = (found[case, sharing] for found in trained[1])
    assert same(one["weights"], other["weights"])
    assert not same(one["weights"], before)
    for name, weight in wanted["weights"].items():
        torch.testing.assert_close(one["weights"][name], weight, atol=1e-5, rtol=0)
    for found in (one, other):
        assert found["logprobs"] == [pytest.approx(logp, abs=1e-4) for logp in wanted["logprobs"]]
    rows = [each["table"].splitlines() for each in (one, wanted)]
    for found, right in zip(*(",".join(each).split(",") for each in rows), strict=True):
        assert found == right or float(found) == pytest.approx(float(right), rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_first_process_writes_a_plain_folder(sharing: str, trained: Trained) -> None:
    folder = trained[0] / "0" / "saved" / f"sft-{sharing}"
    saved = load_policy(folder, torch.device("cpu")).model.state_dict()
    assert same(saved, trained[1][0]["sft", sharing]["weights"])
    assert not (trained[0] / "1" / "saved" / folder.name).exists()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

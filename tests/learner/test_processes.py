"""Two processes train as one does: with all the weights in each, and with the weights split by FSDP2."""

import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fakes import SUPERCOT, MadeUp, make_step, policy, prompt, scorer_of, tokenizer
from torch import Tensor
from torch.multiprocessing import spawn
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

PROCESSES = 2
SHARINGS = ("data-parallel", "fully-sharded")
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


def train_in_process(rank: int, folder: Path, port: int) -> None:
    """One of the processes: its working folder is its own, and what it found is left there."""
    own = folder / str(rank)
    own.mkdir()
    os.chdir(own)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=PROCESSES)
    try:
        found = {(case, sharing): train_once(case, sharing) for case in CASES for sharing in SHARINGS}
        torch.save(found, own / "found.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes found, each in its own."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(train_in_process, args=(folder, port), nprocs=PROCESSES)
    return folder


def found_by(folder: Path, case: str, sharing: str) -> Iterator[dict[str, Any]]:
    for rank in range(PROCESSES):
        found = torch.load(folder / str(rank) / "found.pt", weights_only=True)
        yield found[case, sharing]


@pytest.mark.slow
@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one(
    case: str, sharing: str, by_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = train_once(case, sharing)
    before = made_for(case).model.state_dict()
    one, other = found_by(by_two, case, sharing)
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
def test_the_first_process_writes_a_plain_folder(sharing: str, by_two: Path) -> None:
    folder = by_two / "0" / "saved" / f"sft-{sharing}"
    saved = load_policy(folder, torch.device("cpu")).model.state_dict()
    found, _ = found_by(by_two, "sft", sharing)
    assert same(saved, found["weights"])
    assert not (by_two / "1" / "saved" / folder.name).exists()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

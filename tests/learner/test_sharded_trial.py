"""The seam holds more than one device: FSDP2 around the policy model and an adapter inside it train alike."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fakes import SUPERCOT, MadeUp, make_step, policy, prompt, scorer_of
from peft import LoraConfig
from torch import Tensor
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.multiprocessing import spawn

from chainforge.config.grpo import GrpoSettings
from chainforge.config.sft import SftSettings
from chainforge.learner.learner import Loss, Sums, Update
from chainforge.learner.local_learner import LocalLearner
from chainforge.loops import sft
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.train import train
from chainforge.models.batch import Batch, Tokens
from chainforge.models.checkpoint import Policy
from chainforge.models.policy_model import LogProbs
from chainforge.records import Example
from chainforge.run.work import Work

PROCESSES = 2
PROMPTS = [prompt(n) for n in range(1, 9)]
EXAMPLES = [Example(p.id, p.messages, SUPERCOT.render("7" * n, str(n)), "toy") for n, p in enumerate(PROMPTS)]
SFT = SftSettings(
    output=Path("out"), examples=Path("in"), start_from=Path("model"), batch_size=8, num_epochs=1.0,
    eval_fraction=0.0, learning_rate=1e-2, warmup_fraction=0.0,
)  # fmt: skip
GRPO = GrpoSettings(
    output=Path("out"), start_from=Path("model"), prompts=Path("in"), rewards={"correct": 1.0}, group_size=4,
    prompts_per_step=2, num_rl_steps=1, max_new_tokens=8, kl_coeff=0.0, learning_rate=1e-2,
)  # fmt: skip


class Sharded(LocalLearner):
    """Each process has a share of the weights, and computes a share of the sequences."""

    def __init__(self, of: Policy, *rest: Any) -> None:
        super().__init__(of, *rest)
        for layer in of.model.get_decoder().layers:
            fully_shard(layer)
        fully_shard(self._model)
        register_fsdp_forward_method(self._model, "read_prompts")

    def step(self, sequences: Sequence[Tokens], loss: Loss, *rest: Any, **options: Any) -> Update:
        rank, size = dist.get_rank(), dist.get_world_size()
        mine = range(rank, len(sequences), size)

        def of_all(indices: Sequence[int], found: LogProbs, batch: Batch) -> tuple[Tensor, Sums]:
            value, sums = loss([mine[i] for i in indices], found, batch)
            return value * size, sums  # gradients are averaged over the processes

        done = super().step([sequences[i] for i in mine], of_all, *rest, **options)
        total = torch.tensor(done.loss / size)
        for value in (total, *done.sums.values()):
            dist.all_reduce(value)
        return done._replace(loss=float(total))

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in super().weights():
            yield name, weight.full_tensor() if isinstance(weight, DTensor) else weight


def start(*, adapter: bool) -> Policy:
    """A toy policy, and an adapter in it whose weights are not zero."""
    made = policy()
    if adapter:
        torch.manual_seed(0)
        made.model.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
        for name, weight in made.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    return made


def train_once(learner_of: Callable[..., LocalLearner], adapter: bool) -> dict[str, Any]:
    """Weights and figures of an SFT step, and of a GRPO step."""
    found: dict[str, Any] = {}
    step = make_step("step", micro_batch_tokens=10**6)
    learner = learner_of(start(adapter=adapter), SFT, step)
    table, _ = sft.train(learner, None, EXAMPLES, SFT, step, Work())
    found["sft"] = dict(learner.weights()), table.state_dict()
    learner = learner_of(start(adapter=adapter), GRPO, step)
    scorer, mix = scorer_of(lambda ids: float(ids[0] % 3)), PromptMix(PROMPTS, [], 0.0, 3)
    table, _ = train(learner, MadeUp(), scorer, mix, GRPO, step, Work())
    found["grpo"] = dict(learner.weights()), table.state_dict()
    return found


def train_in_process(rank: int, folder: Path, adapter: bool) -> None:
    """One of the processes: its working folder is its own, and what it found is left there."""
    own = folder / str(rank)
    own.mkdir()
    os.chdir(own)
    store = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=PROCESSES)
    try:
        torch.save(train_once(Sharded, adapter), own / "found.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True], ids=["all weights", "adapter"])
def test_two_processes_train_as_one(adapter: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spawn(train_in_process, args=(tmp_path, adapter), nprocs=PROCESSES)
    wanted = train_once(LocalLearner, adapter)
    before = dict(LocalLearner(start(adapter=adapter), SFT, make_step()).weights())
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / str(rank) / "found.pt", weights_only=True)
        for verb in ("sft", "grpo"):
            for name, weight in wanted[verb][0].items():
                torch.testing.assert_close(found[verb][0][name], weight, atol=2e-4, rtol=0)
            moved = {name for name, weight in wanted[verb][0].items() if not weight.equal(before[name])}
            assert moved == {name for name in before if "lora" in name or not adapter}
            figures = [each[verb][1]["rows"].splitlines()[-1].split(",") for each in (found, wanted)]
            for one, other in zip(*figures, strict=True):
                assert one == other or float(one) == pytest.approx(float(other), rel=1e-4, abs=1e-6)

"""What only a GPU can show: the numbers of a CPU, and failures of its own. `make check-gpu` runs it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fakes import llama, make_step, policy, qwen2, qwen3
from torch import Tensor

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.learner.footprint import Training, sizes
from chainforge.learner.learner import Sums
from chainforge.learner.local_learner import LocalLearner
from chainforge.models.batch import Batch, Tokens
from chainforge.models.checkpoint import Policy, place
from chainforge.models.policy_model import LogProbs
from chainforge.rollout import block_decode, cuda_graph
from chainforge.rollout.check_engine import check_engine
from chainforge.rollout.engine import Request, Sampled
from chainforge.rollout.sampler import sample
from chainforge.run.step import Step

pytestmark = pytest.mark.gpu
if torch.cuda.is_available():
    # cuBLAS reads it once, before its first product; without it torch cannot be strict, as below.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
CUDA = "cuda"
MODELS = {"qwen2": qwen2, "llama": llama, "qwen3": qwen3}
REQUESTS = [Request(list(range(1, 2 + n)), [10 * n + i for i in range(6)]) for n in range(9)]
SEQUENCES = [Tokens(p, c) for p in ([3, 1, 4], [5, 8]) for c in ([1, 5, 9], [2], [6, 5, 3, 5])]
SETTINGS = OptimizerSettings(learning_rate=1e-2, weight_decay=0.1)


def sampled(model: Any, **changes: Any) -> list[Sampled]:
    settings = SamplingSettings(**{"max_new_tokens": 70} | changes)
    return [s for each in sample(model, REQUESTS, settings, eos_ids=[0], max_rows=20) for s in each]


def squares(indices: Any, said: LogProbs, batch: Batch) -> tuple[Tensor, Sums]:
    weight_B1 = torch.tensor(indices, device=said.logp_BT.device).add(1.0)[:, None]
    return (weight_B1 * said.logp_BT.square()).sum() / 50, {"tokens": batch.mask_BT.sum()}


def learner_on(device: str, precision: str = "float32", **changes: Any) -> tuple[LocalLearner, Policy]:
    runtime = {name: changes.pop(name) for name in list(changes) if name in RuntimeSettings.model_fields}
    made = policy(**changes)
    place(made.model, torch.device(device))
    usual = make_step(device=device, **runtime)
    step = Step(usual.name, RunSettings(precision=precision), usual.runtime)  # type: ignore[arg-type]
    learner = LocalLearner(made, SETTINGS, step)
    learner.begin(5)
    return learner, made


def trained(device: str, precision: str = "float32", steps: int = 3, **runtime: Any) -> list[Tensor]:
    learner, made = learner_on(device, precision, **runtime)
    for _ in range(steps):
        learner.step(SEQUENCES, squares)
    return [weight.detach().cpu() for weight in made.model.parameters()]


@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.7, "top_p": 0.9, "top_k": 7}, {"temperature": 0.0}]
)
@pytest.mark.parametrize("kind", MODELS)
def test_a_gpu_samples_what_a_cpu_does(kind: str, changes: dict[str, Any]) -> None:
    here, there = sampled(MODELS[kind](), **changes), sampled(MODELS[kind]().to(CUDA), **changes)
    same = [(a, b) for a, b in zip(here, there, strict=True) if a.token_ids == b.token_ids]
    assert len(same) >= 0.9 * len(here)  # a draw may fall between two roundings
    for a, b in same:
        assert a.finish == b.finish
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", MODELS)
def test_a_graph_gives_what_the_same_step_gives_without(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(cuda_graph, "say", said.append)
    model = MODELS[kind]().to(CUDA, dtype)
    graph = sampled(model)
    assert said == []  # it could be captured
    monkeypatch.setattr(block_decode, "captured", lambda step, device: step)
    assert [s.token_ids for s in graph] == [s.token_ids for s in sampled(model)]


def test_a_step_that_waits_goes_on_without_a_graph_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(cuda_graph, "say", said.append)
    x = torch.zeros(3, device=CUDA)
    run = cuda_graph.captured(lambda: x.add_(x.sum().item() + 1), x.device)
    (line,) = said
    assert line.startswith("decoding without a CUDA graph")
    before = x.tolist()
    run()
    assert x.tolist() != before
    graph = cuda_graph.captured(lambda: x.add_(1), x.device)  # and the next capture is a good one
    before = x.tolist()
    graph()
    assert x.tolist() == [each + 1 for each in before]
    assert len(said) == 1


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_tried_on_a_gpu(kind: str) -> None:
    check_engine(MODELS[kind]().to(CUDA))


@pytest.mark.parametrize("runtime", [{}, {"micro_batch_tokens": 12}, {"gradient_checkpointing": True}])
def test_a_learner_gets_the_weights_that_it_gets_on_a_cpu(runtime: dict[str, Any]) -> None:
    for one, other in zip(trained("cpu", **runtime), trained(CUDA, **runtime), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_in_bfloat16_it_is_close() -> None:
    for one, other in zip(trained("cpu"), trained(CUDA, "bfloat16"), strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0)


def test_float16_scales_its_loss_and_is_close() -> None:
    for one, other in zip(trained("cpu"), trained(CUDA, "float16"), strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0)


def test_a_learner_goes_on_in_the_same_bytes(tmp_path: Path) -> None:
    torch.use_deterministic_algorithms(True)  # a run only warns: its attention may add in another order
    try:
        whole = trained(CUDA, steps=4)
        first, _ = learner_on(CUDA)
        for _ in range(2):
            first.step(SEQUENCES, squares)
        torch.save(first.state_dict(), tmp_path / "state.pt")
        second, made = learner_on(CUDA)
        second.load_state_dict(torch.load(tmp_path / "state.pt", map_location=CUDA))
        for _ in range(2):
            second.step(SEQUENCES, squares)
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(whole, made.model.parameters(), strict=True):
        assert torch.equal(one, other.detach().cpu())


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group(
        "nccl",
        init_method=f"file://{tmp_path / 'store'}",
        rank=0,
        world_size=1,
        device_id=torch.device(CUDA, 0),
    )
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_nccl_adds_up_and_fsdp2_trains_in_one_process() -> None:
    from torch.distributed.fsdp import fully_shard

    x = torch.ones(3, device=CUDA)
    dist.all_reduce(x)
    assert x.tolist() == [1, 1, 1]
    model = qwen2().to(CUDA)
    ids = torch.tensor([[1, 2, 3, 4]], device=CUDA)
    wanted = model(ids).logits
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    found = model(ids).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    found.square().mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_no_memory_is_left_behind_by_sampling() -> None:
    model = qwen2().to(CUDA)
    for _ in range(2):
        sampled(model)
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        sampled(model)
    assert torch.cuda.memory_allocated() <= before + 2**20


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_takes_the_memory_that_is_predicted(precision: str) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    learner, made = learner_on(
        CUDA,
        precision,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
    )
    for _ in range(2):
        learner.step(SEQUENCES, squares)
    peak = torch.cuda.max_memory_allocated() - before
    training = Training(sizes(made.model), precision, SETTINGS)
    assert peak == pytest.approx(sum(training.held(checkpointing=False).values()), rel=0.15)

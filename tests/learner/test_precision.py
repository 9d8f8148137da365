"""Precisions and optimizers that save memory: what they keep, how they learn, and who may use them."""

import io
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fakes import llama

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.forward_passes import mixed_precision
from chainforge.learner.optimizer import NotFinite, ScheduledOptimizer
from chainforge.models import precision
from chainforge.models.checkpoint import start_torch
from chainforge.models.precision import round_weights
from chainforge.preflight.estimate import Estimate
from chainforge.preflight.judge import judge

KINDS = [("float32", "adamw-8bit"), ("bfloat16-weights", "adamw"), ("bfloat16-weights", "adamw-8bit")]
WIDE = {
    "hidden_size": 64,
    "intermediate_size": 96,
}  # matrices of 4,096 weights and more are those kept in 8 bits


COMMON, RARE = 2, 3  # tokens; their rows share a block


def made(
    precision: str, optimizer: str, rate: float = 1e-2, model: Any = None, **changes: Any
) -> tuple[Any, ScheduledOptimizer]:
    model = model or llama(sharpness=0.1, **WIDE)
    if precision == "bfloat16-weights":
        round_weights(model)
    settings = OptimizerSettings(learning_rate=rate, optimizer=optimizer, **changes)
    return model, ScheduledOptimizer(model, settings, steps=100, precision=precision, seed=3)


def step(model: Any, optimizer: ScheduledOptimizer, factor: float = 1.0) -> float:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0]])
    optimizer.scaled(factor * model(ids, labels=ids).loss.float()).backward()
    return optimizer.step()


def loss(model: Any) -> float:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0]])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "optimizer"), KINDS)
def test_goes_on_from_a_save_to_the_same_bytes(precision: str, optimizer: str) -> None:
    """Whatever else is drawn from the global generator."""
    pytest.importorskip("torchao")
    model, whole = made(precision, optimizer)
    step(model, whole)
    step(model, whole)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": whole.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    step(model, whole)
    torch.rand(1)
    again, other = made(precision, optimizer)
    again.load_state_dict(state["model"])
    other.load_state_dict(state["optimizer"])
    step(again, other)
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert whole.learning_rate == other.learning_rate


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "optimizer"), KINDS)
def test_learns_as_adamw_does(precision: str, optimizer: str) -> None:
    pytest.importorskip("torchao")
    (model, ours), (twin, usual) = made(precision, optimizer), made("float32", "adamw")
    start = loss(twin)
    for _ in range(20):
        step(model, ours)
        step(twin, usual)
    assert loss(twin) < 0.1 * start
    assert loss(model) < 2 * loss(twin) + 0.01


@pytest.mark.slow
def test_updates_below_the_spacing_of_bfloat16_add_up() -> None:
    """At this rate no update reaches half of the distance to the next number: rounded to the nearest, no
    weight would ever move."""
    pytest.importorskip("torchao")
    model, optimizer = made("bfloat16-weights", "adamw", rate=2e-5)
    table = model.model.layers[0].mlp.gate_proj.weight
    before = table.detach().float().clone()
    large = before.abs() > 0.05  # its neighbours are 2e-4 away, ten times the rate
    gradient = torch.ones_like(table)
    for _ in range(50):
        table.grad = gradient.clone()
        optimizer.step()
    moved = (table.detach().float() - before)[large].mean()
    assert float(moved) == pytest.approx(-50 * 2e-5, rel=0.15)


def test_moments_take_a_quarter_of_the_bytes() -> None:
    pytest.importorskip("torchao")
    sizes = {}
    for kind in ("adamw", "adamw-8bit"):
        model, optimizer = made("float32", kind)
        step(model, optimizer)
        weight = model.model.layers[0].mlp.gate_proj.weight
        (moments,) = (o.state[weight] for o in optimizer._optimizers if weight in o.state)
        parts = [moments[name] for name in ("exp_avg", "exp_avg_sq")]
        flat = [[getattr(p, n) for n in ("codes", "scale")] if hasattr(p, "codes") else [p] for p in parts]
        sizes[kind] = sum(t.numel() * t.element_size() for each in flat for t in each)
    assert sizes["adamw-8bit"] <= 0.26 * sizes["adamw"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16-weights"])
@pytest.mark.parametrize("tied", [True, False])
def test_no_weight_of_a_rare_token_leaps(tied: bool, precision: str) -> None:
    """Beside the moments of a common token, those of a rare one would be 0 in 8 bits."""
    pytest.importorskip("torchao")
    rate = 1e-2
    model, optimizer = made(precision, "adamw-8bit", rate, model=llama(256, **WIDE, tie_word_embeddings=tied))
    tables = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    before = [table.detach().clone() for table in tables]
    for _ in range(4):
        for table in tables:
            table.grad = torch.zeros_like(table)
            table.grad[COMMON], table.grad[RARE] = 1.0, 1e-5
        optimizer.step()
    for table, old in zip(tables, before, strict=True):
        moved = (table - old).detach().float().abs()
        assert 0 < moved[RARE].max() < 5 * rate


def test_rounded_weights_are_bfloat16_and_buffers_stay() -> None:
    model = llama()
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    round_weights(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert buffers


def test_what_is_trained_beside_frozen_weights_stays_float32() -> None:
    model = llama()
    for name, weight in model.named_parameters():
        weight.requires_grad_("norm" in name)
    round_weights(model)
    for name, weight in model.named_parameters():
        assert weight.dtype == (torch.float32 if "norm" in name else torch.bfloat16)


@pytest.mark.parametrize(("precision", "optimizer"), KINDS)
def test_without_torchao_it_is_said_which_setting_needs_it(
    precision: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainforge.config.optimizer.find_spec", lambda _: None)
    name = "optimizer adamw-8bit" if optimizer == "adamw-8bit" else "run.precision bfloat16-weights"
    with pytest.raises(
        ChainForgeError, match=rf"{name} needs the package torchao\n  -> pip install .*memory"
    ):
        made(precision, optimizer)


def test_float16_needs_a_gpu() -> None:
    with pytest.raises(ChainForgeError, match=r"run\.precision float16 needs a GPU.*\n  -> set .* bfloat16"):
        start_torch(RunSettings(precision="float16"), RuntimeSettings(device="cpu"))


def pretend(monkeypatch: pytest.MonkeyPatch, times: float) -> None:
    monkeypatch.setattr(precision, "_bfloat16_over_float32", lambda: times)


@pytest.fixture
def torch_is_left_alone() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.usefixtures("torch_is_left_alone")
@pytest.mark.parametrize("wanted", ["bfloat16", "bfloat16-weights"])
def test_a_processor_that_emulates_the_precision_is_told_before_hours_are_spent(
    wanted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, device = RunSettings(precision=wanted), RuntimeSettings(device="cpu")
    pretend(monkeypatch, 12.4)
    start_torch(settings, device)
    said = capsys.readouterr().err
    assert f"run.precision {wanted}: this processor has no instructions for it, and takes 12 times" in said
    assert "-> set run.precision to float32" in said
    estimate = Estimate("sft_cold_start")
    judge(estimate, settings, on_cpu=True)
    (finding,) = estimate.findings
    assert finding.problem == f"this processor emulates {wanted}: 12 times as long as in float32"
    start_torch(RunSettings(), device)
    pretend(monkeypatch, 1.5)
    start_torch(settings, device)
    assert capsys.readouterr().err == ""


def test_how_slow_a_precision_is_is_measured() -> None:
    assert precision.slowness("bfloat16", "cpu") >= 1.0
    assert precision.slowness("bfloat16", "cuda") == precision.slowness("float32", "cpu") == 1.0


def test_a_scaled_loss_gives_the_same_step_and_one_that_overflows_none() -> None:
    """float16 on the CPU: slow there, but the same code."""
    (model, scaled), (twin, usual) = made("float16", "adamw"), made("float32", "adamw")
    before = [p.detach().clone() for p in model.parameters()]
    assert not math.isfinite(step(model, scaled, factor=torch.inf))
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    scale = scaled.state_dict()["scaler"]["scale"]
    assert scale == 2**15
    _, goes_on = made("float16", "adamw")
    goes_on.load_state_dict(scaled.state_dict())
    assert goes_on.state_dict()["scaler"]["scale"] == scale
    norms = step(model, scaled), step(twin, usual)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert not any(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_loss_that_overflows_at_every_scale_ends_the_run() -> None:
    model, optimizer = made("float16", "adamw")
    for _ in range(16):
        step(model, optimizer, factor=torch.inf)
    with pytest.raises(NotFinite):
        step(model, optimizer, factor=torch.inf)


@pytest.mark.parametrize(("precision", "wanted"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_products_are_in_the_precision_asked_for(precision: str, wanted: torch.dtype) -> None:
    one = torch.ones(2, 2)
    with mixed_precision(precision, torch.device("cpu")):
        assert (one @ one).dtype == wanted
    with mixed_precision("bfloat16-weights", torch.device("cpu")):
        assert (one.bfloat16() @ one.bfloat16()).dtype == torch.bfloat16

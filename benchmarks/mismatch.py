"""GRPO with a sampler that is not quite the policy: what that does, and what the correction gives back.

    python benchmarks/mismatch.py --model FOLDER [--engine int4] [--correction both] [--seeds 17 18 19]
    python benchmarks/mismatch.py --picture docs/mismatch.png RUN [RUN …]

The task is "What is a + b?", a and b from 1 to 12, for a small instruct model as it is, SmolLM2-135M-Instruct
here: no SFT, no tags, no KL. Engine `local` is ChainForge's own sampler, `vllm` a server; `int8` to `int3`
sample from weights rounded to so many bits, with a scale per row. A run is a folder of .bench/mismatch/ with
its figures per step, and how often the policy is right on sums that it never trains on. That is measured
by our own sampler in float32, whichever engine samples for training. A step takes half a minute on one core.
"""

import json
import re
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from chainforge.algorithms.statistics import mean_interval
from chainforge.config.engine import EngineSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.config.vllm import VllmSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.loops.grpo.prompt_mix import PromptMix
from chainforge.loops.grpo.train import train
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy, load_policy, start_torch
from chainforge.records import Message, Prompt
from chainforge.report.figures import BLUE, GREEN, INK, ORANGE, plain_style
from chainforge.response import tag_format
from chainforge.rollout.complete import complete
from chainforge.rollout.engine import Engine, Request, Sampled, Source
from chainforge.rollout.local_engine import LocalEngine
from chainforge.rollout.open_engine import open_engine
from chainforge.run.step import Step
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward

RUNS = Path(".bench/mismatch")
HELD_OUT, SPLIT_SEED = 48, 5
CORRECTIONS: dict[str, dict[str, Any]] = {
    "auto": {},
    "none": {"when": "always", "token_cap": None, "sequence_band": None},  # the figures alone
    "token": {"when": "always"},
    "sequence": {"when": "always", "token_cap": None, "sequence_band": [0.99, 1.01]},
    "both": {"when": "always", "sequence_band": [0.99, 1.01]},
}


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("runs", nargs="*", type=Path, help="finished runs, for --picture")
    arguments.add_argument("--picture", type=Path, help="draw these runs")
    arguments.add_argument("--model", type=Path, help="folder of SmolLM2-135M-Instruct or alike")
    arguments.add_argument("--engine", default="local", help="local, vllm, or int8 to int3")
    arguments.add_argument("--correction", default="auto", choices=CORRECTIONS)
    arguments.add_argument("--band", type=float, nargs=2, help="another sequence_band")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[17])
    arguments.add_argument("--steps", type=int, default=11)
    arguments.add_argument("--every", type=int, default=3, help="steps between evaluations")
    arguments.add_argument("--learning-rate", type=float, default=1e-5)
    arguments.add_argument("--mini-batches", type=int, default=1)
    arguments.add_argument("--loss", default="dapo")
    arguments.add_argument("--precision", default="float32")
    arguments.add_argument("--vllm", default="vllm", help="the program that serves, for --engine vllm")
    given = arguments.parse_args()
    if given.picture:
        picture(given.picture, given.runs)
        return
    for seed in given.seeds:
        run(given, seed)


def run(given: Namespace, seed: int) -> None:
    """One training run; its rows and evaluations go to a folder of its own."""
    correction = CORRECTIONS[given.correction] | ({"sequence_band": given.band} if given.band else {})
    settings = GrpoSettings(
        output=Path("unused"),
        start_from=given.model,
        prompts=Path("unused"),
        rewards={"sum": 1.0},
        num_rl_steps=given.steps,
        prompts_per_step=8,
        group_size=8,
        max_new_tokens=24,
        learning_rate=given.learning_rate,
        mini_batches=given.mini_batches,
        loss_type=given.loss,
        kl_coeff=0.0,
        engine=EngineSettings(kind="vllm" if given.engine == "vllm" else "local"),
        sampling_correction=correction,
    )
    runtime = RuntimeSettings(device="auto", vllm=VllmSettings(command=given.vllm))
    name = f"{given.engine}-{given.precision}-{given.correction}-lr{given.learning_rate:g}-seed{seed}"
    step = Step(f"mismatch_{name}", RunSettings(seed=seed, precision=given.precision), runtime)
    device = start_torch(step.settings, runtime)
    policy = load_policy(given.model, device)
    training, held_out = problems()
    evaluations: list[dict[str, Any]] = []
    held_out_accuracy = partial(accuracy, policy, held_out, step)
    engine = open_sampler(given.engine, settings, policy, step)
    watched = Watched(engine, lambda version: evaluations.append(held_out_accuracy(version - 1)), given.every)
    learner = LocalLearner(policy, settings, step)
    started = time.perf_counter()
    with closing(watched):
        mix = PromptMix(training, [], 0.0, step.seed("prompts"))
        table, _ = train(learner, watched, scorer(), mix, settings, step, Work())
    evaluations.append(held_out_accuracy(given.steps))
    folder = RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    table.publish(folder / "steps.csv")
    described = {key: str(value) for key, value in vars(given).items()} | {"seed": seed}
    taken = round(time.perf_counter() - started)
    (folder / "run.json").write_text(
        json.dumps({"settings": described, "seconds": taken, "evaluations": evaluations}, indent=1) + "\n"
    )
    print(name, *(f"{row['step']}: {row['accuracy']:.3f}" for row in evaluations), f"{taken} s", flush=True)


def problems() -> tuple[list[Prompt], list[Prompt]]:
    """Sums to train on, and sums that are held out, the same for every seed."""
    pairs = [(a, b) for a in range(1, 13) for b in range(1, 13)]
    Random(SPLIT_SEED).shuffle(pairs)
    prompts = [
        Prompt(f"{a}+{b}", "sums", (Message(role="user", content=f"What is {a} + {b}?"),), str(a + b))
        for a, b in pairs
    ]
    return prompts[HELD_OUT:], prompts[:HELD_OUT]


def is_sum(completions: Sequence[str], answer: Sequence[str], **_: object) -> list[float]:
    """1.0 where the last number of a text is the sum."""
    said = [re.findall(r"\d+", text) for text in completions]
    return [
        float(bool(numbers) and numbers[-1] == right) for numbers, right in zip(said, answer, strict=True)
    ]


def scorer() -> Scorer:
    """The one reward."""
    return Scorer((WeightedReward("sum", 1.0, is_sum, "benchmark"),), tag_format("supercot"), 60.0)


def accuracy(policy: Policy, prompts: Sequence[Prompt], step: Step, number: int) -> dict[str, Any]:
    """The share of right completions after `number` steps, two per problem at temperature 1."""
    settings = SamplingSettings(max_new_tokens=24)
    engine = LocalEngine(policy, Step("evaluation", RunSettings(seed=step.settings.seed), step.runtime))
    given = complete(
        engine, policy.tokenizer, prompts, 2, settings, step, seed=lambda *at: step.seed("evaluation", *at)
    )
    right = [
        fmean(is_sum([c.text for c in each], [str(p.answer)] * 2))
        for p, each in zip(prompts, given, strict=True)
    ]
    mean, low, high = mean_interval(right)
    return {"step": number, "accuracy": mean, "ci95_lo": low, "ci95_hi": high}


def open_sampler(name: str, settings: GrpoSettings, policy: Policy, step: Step) -> Engine:
    """The engine of that name."""
    if bits := re.fullmatch(r"int([3-8])", name):
        return RoundedEngine(LocalEngine(policy, step, apart=True), int(bits[1]))
    return open_engine(settings.engine, policy, step)


@dataclass
class RoundedEngine:
    """An engine whose weights are rounded, as a fast server's may be; its log-probabilities are its own."""

    engine: LocalEngine
    bits: int

    @property
    def rows(self) -> int:
        return self.engine.rows

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        return self.engine.generate(requests, settings)

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        return self.engine.begin(requests, settings)

    def update(self, source: Source, version: int) -> None:
        self.engine.update(RoundedSource(source, self.bits), version)

    def close(self) -> None:
        self.engine.close()


@dataclass
class RoundedSource:
    """A policy whose matrices are rounded to so many bits."""

    source: Source
    bits: int

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self.source.weights():
            yield name, rounded(weight, self.bits) if weight.ndim == 2 else weight

    def adapter(self) -> Mapping[str, Tensor] | None:
        return self.source.adapter()

    def logprobs(self, sequences: Sequence[Tokens], temperature: float = 1.0) -> list[list[float]]:
        return self.source.logprobs(sequences, temperature)


def rounded(weight_RC: Tensor, bits: int) -> Tensor:
    """To the nearest of 2^bits − 1 values, symmetric around 0, with a scale per row."""
    scale_R1 = weight_RC.abs().amax(-1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return (weight_RC / scale_R1).round() * scale_R1


@dataclass
class Watched:
    """An engine that has the policy evaluated before every so many rollouts."""

    engine: Engine
    evaluate: Callable[[int], None]
    every: int

    @property
    def rows(self) -> int:
        return self.engine.rows

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        return self.engine.generate(requests, settings)

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        return self.engine.begin(requests, settings)

    def update(self, source: Source, version: int) -> None:
        if (version - 1) % self.every == 0:
            self.evaluate(version)
        self.engine.update(source, version)

    def close(self) -> None:
        self.engine.close()


def picture(path: Path, folders: Sequence[Path]) -> None:
    """Held-out accuracy over steps, a panel per learning rate: a thin line per run with its 95% interval, and
    a thick one for the mean over seeds."""
    panels: dict[float, dict[str, list[Any]]] = {}
    for folder in folders:
        found = json.loads((folder / "run.json").read_text())
        given = found["settings"]
        panel = panels.setdefault(float(given["learning_rate"]), {})
        panel.setdefault(label(given), []).append(found["evaluations"])
    labels = sorted({name for panel in panels.values() for name in panel})
    colours = dict(zip(labels, (BLUE, ORANGE, GREEN, INK), strict=False))
    with plain_style():
        figure = Figure(figsize=(4.6 * len(panels), 4), facecolor="white")
        for ax, (rate, panel) in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0],
            sorted(panels.items()),
            strict=True,
        ):
            for name, runs in sorted(panel.items()):
                draw(ax, runs, name, colours[name])
            ax.set(title=f"learning rate {rate:g}", xlabel="RL step", ylim=(0, 100))
            ax.legend(loc="lower right")
        figure.axes[0].set_ylabel("held-out sums that are right, %")
        figure.savefig(path, dpi=140)


def label(given: Mapping[str, str]) -> str:
    """What a run is called in the picture."""
    bits = re.fullmatch(r"int(\d)", given["engine"])
    sampler = f"rounded to {bits[1]} bits" if bits else f"{given['engine']}, {given['precision']}"
    corrected = {"auto": "", "none": ", not corrected", "token": ", token_cap", "sequence": ", sequence_band"}
    return sampler + corrected.get(given["correction"], ", corrected")


def draw(ax: Axes, runs: Sequence[Sequence[Mapping[str, float]]], name: str, colour: str) -> None:
    """The runs of one kind."""
    steps = [row["step"] for row in runs[0]]
    for rows in runs:
        ax.plot(steps, [100 * row["accuracy"] for row in rows], color=colour, linewidth=0.8, alpha=0.6)
        low, high = ([100 * row[key] for row in rows] for key in ("ci95_lo", "ci95_hi"))
        ax.fill_between(steps, low, high, color=colour, alpha=0.12 / len(runs), linewidth=0)
    means = [100 * fmean(row["accuracy"] for row in at) for at in zip(*runs, strict=True)]
    ax.plot(steps, means, color=colour, label=f"{name} ({len(runs)} seeds)" if len(runs) > 1 else name)


if __name__ == "__main__":
    sys.exit(main())

"""ChainForge's side of the GRPO benchmark: whole steps by its own functions, timed from outside.

    python benchmarks/grpo_chainforge.py a bfloat16 --profile

Without --profile it takes turns: `benchmarks/grpo.py` starts it.
"""

import random
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from grpo_work import (
    BETA2,
    CLIP_RATIO,
    GROUP,
    LEARNING_RATE,
    PROMPTS,
    SEED,
    WORKS,
    Clock,
    Turns,
    Work,
    load_model,
    make_tokenizer,
    prompt_texts,
)
from torch import Tensor

from chainforge.config.adapter import AdapterSettings
from chainforge.config.grpo import GrpoSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.optimizer import ScheduledOptimizer
from chainforge.loops.grpo.rows import make_rows
from chainforge.loops.grpo.update import add_logprobs, update
from chainforge.models.checkpoint import Policy, place, start_torch
from chainforge.records import Group, Prompt, Score
from chainforge.rollout import completions
from chainforge.rollout.complete import complete
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.step import Step


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("work", choices=WORKS)
    arguments.add_argument("precision", choices=("float32", "bfloat16"))
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    arguments.add_argument("--lora", type=int, metavar="RANK", help="train an adapter of all linear layers")
    arguments.add_argument("--without", help="take this technique away (see grpo_without.py)")
    arguments.add_argument("--only-rollout", action="store_true")
    arguments.add_argument("--profile", action="store_true", help="print where one step spends its time")
    given = arguments.parse_args()
    if given.without:
        from grpo_without import TECHNIQUES  # it changes this module

        TECHNIQUES[given.without]()
    step = Step(
        "grpo_bench",
        RunSettings(seed=SEED, threads=given.threads, precision=given.precision),
        RuntimeSettings(
            device="cpu",
            rollout_rows=WORKS[given.work].rows,
            gradient_checkpointing=given.checkpointing,
        ),
    )
    start_torch(step.settings, step.runtime)
    side = ChainForge(
        WORKS[given.work], given.smollm2, step, lora=given.lora, only_rollout=given.only_rollout
    )
    if given.profile:
        profile(side)
        return
    turns = Turns()
    while True:
        turns.wait()
        turns.tell(side.step())


class ChainForge:
    """One policy and its optimizer; `step` is a turn of the loop of chainforge/loops/grpo/train.py."""

    def __init__(
        self, work: Work, folder: str | None, step: Step, *, lora: int | None, only_rollout: bool = False
    ) -> None:
        model = load_model(work, folder)
        vocab = model.config.vocab_size
        self.run, self.number, self.only_rollout = step, 0, only_rollout
        self.policy = Policy(place(model, torch.device(step.runtime.device)), make_tokenizer(work, vocab))
        self.prompts = [
            Prompt(f"p{i}", "bench", ({"role": "user", "content": text},))
            for i, text in enumerate(prompt_texts(work, vocab))
        ]
        self.settings = GrpoSettings(
            output="unused",
            start_from="unused",
            prompts="unused",
            rewards={"random": 1.0},
            prompts_per_step=PROMPTS,
            group_size=GROUP,
            max_new_tokens=work.tokens,
            learning_rate=LEARNING_RATE,
            beta2=BETA2,
            clip_ratio=CLIP_RATIO,
            kl_coeff=0.0,
            loss_type="grpo",
            adapter=AdapterSettings(kind="lora", rank=lora, alpha=lora) if lora else None,
        )
        self.engine = LocalEngine(self.policy, step, apart=lora is not None)
        self.learner = LocalLearner(self.policy, self.settings, step)
        self.learner.begin(self.settings.num_rl_steps)
        if work.uneven:
            force_lengths(work.lengths, self.policy.tokenizer.eos_token_id)
        self.clock = Clock()
        self.clock.wrap(ScheduledOptimizer, "step", "optimizer")

    def step(self) -> dict[str, Any]:
        """Sample, score at random, update."""
        self.number += 1
        clock, draw = self.clock, random.Random(self.number)
        clock.start()
        with clock.phase("rollout"):
            self.engine.update(self.learner, self.number)
            completions = complete(
                self.engine,
                self.policy.tokenizer,
                self.prompts,
                GROUP,
                self.settings,
                self.run,
                seed=lambda place, index: self.run.seed(self.number, place, index),
            )
        generated = sum(len(c.token_ids) for group in completions for c in group)
        if self.only_rollout:
            return clock.stop(generated=generated, trained=0)
        groups = [
            Group(prompt, group, tuple(Score(draw.gauss(), {}) for _ in group))
            for prompt, group in zip(self.prompts, completions, strict=True)
        ]
        rows = make_rows(self.policy.tokenizer, groups, self.settings, self.run)
        with clock.phase("log-probabilities"):
            add_logprobs(self.learner, rows, self.settings, self.run)
        with clock.phase("forward + backward"):
            update(self.learner, rows, self.settings, self.run)
        trained = sum(len(row.tokens.completion) for row in rows if row.learns)
        return clock.stop(generated=generated, trained=trained)


def force_lengths(lengths: Sequence[int], eos: int) -> None:
    """Each completion draws EOS as its last token and nowhere else: a uniform number of 2 means "now"."""
    uniform_table, draw = completions.uniform_table, completions.draw

    def table_with_ends(seeds: Sequence[int], count: int, device: torch.device) -> Tensor:
        uniform_BT = uniform_table(seeds, count, device)
        uniform_BT[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = 2.0
        return uniform_BT

    def draw_or_end(logits_BV: Tensor, uniform_B: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
        never_BV = logits_BV.clone()
        never_BV[:, eos] = -torch.inf
        token_B, logp_B = draw(never_BV, uniform_B.clamp(max=0.999), **how)
        return token_B.masked_fill(uniform_B > 1, eos), logp_B

    completions.uniform_table, completions.draw = table_with_ends, draw_or_end


def profile(side: ChainForge) -> None:
    """Operators by their own time in each phase of one step, after a step to warm up."""
    side.step()
    seen: dict[str, torch.profiler.profile] = {}

    def watched(phase: str) -> AbstractContextManager[object]:
        if phase == "optimizer":  # inside of another
            return nullcontext()
        seen[phase] = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        return seen[phase]

    side.clock.phase = watched
    side.step()
    for phase, counted in seen.items():
        print(f"\n{phase}")
        print(
            counted.key_averages().table(
                sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=50
            )
        )


if __name__ == "__main__":
    sys.modules["grpo_chainforge"] = sys.modules["__main__"]
    main()

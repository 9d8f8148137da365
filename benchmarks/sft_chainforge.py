"""ChainForge's side of the SFT benchmark: the steps of chainforge/loops/sft.py, timed from outside.

`benchmarks/sft.py` starts it.
"""

from argparse import ArgumentParser
from itertools import islice
from typing import Any

import torch
from grpo_work import SEED, Clock, Turns, load_model, make_tokenizer
from sft_work import BETA2, LEARNING_RATE, MAX_GRAD_NORM, SFT_WORKS, SftWork, examples

from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sft import SftSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.learner.optimizer import ScheduledOptimizer
from chainforge.loops.sft import update
from chainforge.loops.sft_batches import batches
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy, place, start_torch
from chainforge.run.step import Step

MANY = 10**6  # steps: more than there are turns for


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("work", choices=SFT_WORKS)
    arguments.add_argument("precision", choices=("float32", "bfloat16"))
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--whole", action="store_true", help="all examples in one optimizer step")
    given = arguments.parse_args()
    step = Step(
        "sft_bench",
        RunSettings(seed=SEED, threads=given.threads, precision=given.precision),
        RuntimeSettings(device="cpu"),
    )
    start_torch(step.settings, step.runtime)
    side = ChainForge(SFT_WORKS[given.work], given.smollm2, step, whole=given.whole)
    turns = Turns()
    while True:
        turns.wait()
        turns.tell(side.turn())


class ChainForge:
    """One policy and its optimizer; `turn` is an epoch of the loop of chainforge/loops/sft.py."""

    def __init__(self, work: SftWork, folder: str | None, step: Step, *, whole: bool) -> None:
        model = load_model(work.model, folder)
        vocab, count = model.config.vocab_size, work.batch * work.steps
        self.run, self.steps = step, 1 if whole else work.steps
        self.policy = Policy(
            place(model, torch.device(step.runtime.device)), make_tokenizer(work.model, vocab)
        )
        self.settings = SftSettings(
            output="unused",
            examples="unused",
            start_from="unused",
            batch_size=count // self.steps,
            learning_rate=LEARNING_RATE,
            beta2=BETA2,
            schedule="constant",
            warmup_fraction=0.0,
            max_grad_norm=MAX_GRAD_NORM,
        )
        tokens = [Tokens(*example) for example in examples(count, vocab)]
        self.batches = batches(tokens, self.settings.batch_size, MANY, step)
        self.learner = LocalLearner(self.policy, self.settings, step)
        self.learner.begin(MANY)
        self.clock = Clock()
        self.clock.wrap(ScheduledOptimizer, "step", "optimizer")

    def turn(self) -> dict[str, Any]:
        """Every example once."""
        self.clock.start()
        real = trained = 0
        loss_sum = 0.0
        for batch in islice(self.batches, self.steps):
            with self.clock.phase("forward + backward"):
                loss = update(self.learner, None, batch, self.settings).loss
            responses = sum(len(t.completion) for t in batch)
            loss_sum += loss * responses
            trained += responses
            real += sum(map(len, batch))
        row = self.clock.stop(real=real, trained=trained, steps=self.steps)
        return row | {"loss": loss_sum / trained}


if __name__ == "__main__":
    main()

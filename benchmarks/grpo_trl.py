"""TRL's side of the GRPO benchmark: a real GRPOTrainer whose steps wait for their turn.

`benchmarks/grpo.py` starts it. Imports nothing of ChainForge: it may run in an environment of its own.
"""

import random
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from grpo_work import (
    BETA2,
    CLIP_RATIO,
    GROUP,
    LEARNING_RATE,
    PROMPTS,
    WORKS,
    Clock,
    Turns,
    Work,
    load_model,
    make_tokenizer,
    prompt_texts,
)
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

ROWS = PROMPTS * GROUP


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("work", choices=WORKS)
    arguments.add_argument("precision", choices=("float32", "amp", "bf16"))
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--micro-batch", type=int, help="completions per forward and backward pass")
    arguments.add_argument("--lora", type=int, metavar="RANK", help="train an adapter of all linear layers")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    work, turns = WORKS[given.work], Turns()
    dtype = torch.bfloat16 if given.precision == "bf16" else torch.float32
    model = load_model(work, given.smollm2, dtype)
    tokenizer = make_tokenizer(work, model.config.vocab_size)
    if work.uneven:
        force_lengths(model, work.lengths, tokenizer.eos_token_id)
    micro_batch = given.micro_batch or work.trl_micro_batch[given.precision]
    watch = Watch(turns)
    trainer = GRPOTrainer(
        model,
        random_reward,
        config(work, given.precision, micro_batch),
        Dataset.from_list(
            [
                {"prompt": [{"role": "user", "content": text}]}
                for text in prompt_texts(work, model.config.vocab_size)
            ]
        ),
        processing_class=tokenizer,
        callbacks=[watch],
        peft_config=adapter(given.lora) if given.lora else None,
    )
    watch.wrap(trainer)
    turns.wait()
    watch.clock.start()
    trainer.train()


def adapter(rank: int) -> Any:
    from peft import LoraConfig  # only needed here

    return LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")


def config(work: Work, precision: str, micro_batch: int) -> GRPOConfig:
    """The settings that make it fast on a CPU, and the same work: checkpointing off, β = 0, nothing saved."""
    return GRPOConfig(
        output_dir=".bench/unused",
        use_cpu=True,
        bf16=precision == "amp",
        gradient_checkpointing=False,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=ROWS // micro_batch,
        num_generations=GROUP,
        max_completion_length=work.tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        loss_type="grpo",
        epsilon=CLIP_RATIO,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta2=BETA2,
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_steps=10_000,
        shuffle_dataset=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def random_reward(completions: Sequence[Any], **_: Any) -> list[float]:
    return [random.gauss(0, 1) for _ in completions]


class Watch(TrainerCallback):
    """Times the phases of a step, reports it, and waits for the next turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.clock = turns, Clock()
        self.generated = self.trained = 0

    def wrap(self, trainer: GRPOTrainer) -> None:
        """Count generation, log-probabilities without a gradient, and the loss with its gradient."""
        self.clock.wrap(trainer, "_generate", "rollout")
        self.clock.wrap(
            trainer,
            "_get_per_token_logps_and_entropies",
            lambda: "forward + backward" if torch.is_grad_enabled() else "log-probabilities",
        )
        self.clock.wrap(trainer, "compute_loss", "forward + backward")
        self.clock.wrap(trainer.accelerator, "backward", "forward + backward")
        self.clock.wrap(trainer.accelerator, "clip_grad_norm_", "optimizer")
        single_turn, compute_loss = trainer._generate_single_turn, trainer._compute_loss

        def generate(*args: Any, **kwargs: Any) -> Any:
            completion_ids, logprobs = single_turn(*args, **kwargs)
            self.generated += sum(map(len, completion_ids))
            return completion_ids, logprobs

        def loss(model: Any, inputs: Any) -> Any:
            self.trained += int(inputs["completion_mask"].sum())
            return compute_loss(model, inputs)

        trainer._generate_single_turn, trainer._compute_loss = generate, loss

    def on_train_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        """The optimizer exists only now."""
        self.clock.wrap(optimizer, "step", "optimizer")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Report, and wait."""
        self.turns.tell(self.clock.stop(generated=self.generated, trained=self.trained))
        self.generated = self.trained = 0
        sys.stdout.flush()
        self.turns.wait()
        self.clock.start()


class ForceLengths(LogitsProcessor):
    """EOS is each row's last token, and no other."""

    def __init__(self, lengths: Sequence[int], eos: int) -> None:
        self.length_B, self.eos, self.step = torch.tensor(lengths), eos, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores with EOS forbidden, or forced where a row's length is reached."""
        self.step += 1
        scores[:, self.eos] = -torch.inf
        ends_B = self.length_B == self.step
        if ends_B.any():
            scores[ends_B] = -torch.inf
            scores[ends_B, self.eos] = 0.0
        return scores


def force_lengths(model: PreTrainedModel, lengths: Sequence[int], eos: int) -> None:
    generate = model.generate

    def forced(*args: Any, **kwargs: Any) -> Any:
        return generate(*args, **kwargs, logits_processor=LogitsProcessorList([ForceLengths(lengths, eos)]))

    model.generate = forced


if __name__ == "__main__":
    main()

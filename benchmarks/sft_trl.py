"""TRL's side of the SFT benchmark: a real SFTTrainer whose epochs wait for their turn.

`benchmarks/sft.py` starts it. Imports nothing of ChainForge: it may run in an environment of its own.
"""

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

import torch
from datasets import Dataset
from grpo_work import Clock, Turns, load_model, make_tokenizer
from sft_work import BETA2, LEARNING_RATE, MAX_GRAD_NORM, SFT_WORKS, SftWork, examples
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.data_utils import pack_dataset

# padding-free makes one long row of a micro-batch, packed one of as many examples as a length holds. TRL
# recommends flash attention for both, which no CPU has; transformers then masks the other examples of the
# row, and `benchmarks/sft.py --check` shows that the loss is the same.
WAYS = ("padded", "packed", "padding-free")


def main() -> None:
    arguments = ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("work", choices=SFT_WORKS)
    arguments.add_argument("precision", choices=("float32", "amp", "bf16"))
    arguments.add_argument("way", choices=WAYS)
    arguments.add_argument("size", type=int, help="examples per micro-batch; packed: tokens per row")
    arguments.add_argument("--smollm2", help="the model folder of work b")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--whole", action="store_true", help="all examples in one optimizer step")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    work, turns = SFT_WORKS[given.work], Turns()
    dtype = torch.bfloat16 if given.precision == "bf16" else torch.float32
    model = load_model(work.model, given.smollm2, dtype)
    vocab = model.config.vocab_size
    data = dataset(work, vocab)
    watch = Watch(turns)
    trainer = SFTTrainer(
        model,
        config(work, given, data),
        train_dataset=data,
        processing_class=make_tokenizer(work.model, vocab),
        callbacks=[watch],
    )
    watch.wrap(trainer)
    turns.wait()
    watch.clock.start()
    trainer.train()


def dataset(work: SftWork, vocab: int) -> Dataset:
    """Tokenized, and with labels on the response only."""
    return Dataset.from_list(
        [
            {"input_ids": [*prompt, *response], "labels": [*[-100] * len(prompt), *response]}
            for prompt, response in examples(work.batch * work.steps, vocab)
        ]
    )


def config(work: SftWork, given: Namespace, data: Dataset) -> SFTConfig:
    """The settings that make it fast on a CPU, and the same work: checkpointing off, nothing saved."""
    packed = given.way == "packed"
    rows = len(pack_dataset(data, given.size, "bfd")) if packed else len(data)
    per_step = max(1, round(rows / (1 if given.whole else work.steps)))
    micro_batch = 1 if packed else given.size
    return SFTConfig(
        output_dir=".bench/unused",
        use_cpu=True,
        bf16=given.precision == "amp",
        gradient_checkpointing=False,
        packing=packed,
        packing_strategy="bfd",
        padding_free=given.way == "padding-free",
        max_length=given.size if packed else None,
        train_sampling_strategy="group_by_length" if given.way == "padded" else "random",
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=-(-per_step // micro_batch),
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta2=BETA2,
        weight_decay=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        num_train_epochs=10_000,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


class Watch(TrainerCallback):
    """Times the phases of an epoch, reports it, and waits for the next turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.clock = turns, Clock()
        self.clear()

    def clear(self) -> None:
        """Nothing counted yet."""
        self.real = self.trained = self.steps = 0
        self.loss_sum = 0.0

    def wrap(self, trainer: SFTTrainer) -> None:
        """Count the loss with its gradient, and the tokens."""
        compute_loss = trainer.compute_loss

        def loss(model: Any, inputs: Any, num_items_in_batch: Any = None, **how: Any) -> Any:
            given = compute_loss(model, inputs, num_items_in_batch=num_items_in_batch, **how)
            mask = inputs.get("attention_mask")  # there is none where nothing is padded
            self.real += inputs["input_ids"].numel() if mask is None else int(mask.sum())
            self.trained += int((inputs["labels"] != -100).sum())
            self.loss_sum += float(given.detach()) * float(num_items_in_batch)
            return given

        trainer.compute_loss = loss
        self.clock.wrap(trainer, "compute_loss", "forward + backward")
        self.clock.wrap(trainer.accelerator, "backward", "forward + backward")
        self.clock.wrap(trainer.accelerator, "clip_grad_norm_", "optimizer")

    def on_train_begin(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        """The optimizer exists only now."""
        self.clock.wrap(optimizer, "step", "optimizer")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Packed rows do not always divide into as many steps."""
        self.steps += 1

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Report, and wait."""
        row = self.clock.stop(real=self.real, trained=self.trained, steps=self.steps)
        self.turns.tell(row | {"loss": self.loss_sum / self.trained})
        self.clear()
        sys.stdout.flush()
        self.turns.wait()
        self.clock.start()


if __name__ == "__main__":
    main()

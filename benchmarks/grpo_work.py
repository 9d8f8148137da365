"""What both sides of the GRPO benchmark share: the work, its models, a clock of phases, and taking turns.

Imports torch and transformers only, so that each side runs in an environment of its own.
"""

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

PHASES = ("rollout", "log-probabilities", "forward + backward", "optimizer", "everything else")
PROMPTS, GROUP, PROMPT_TOKENS = 8, 8, 32
LEARNING_RATE, BETA2, CLIP_RATIO = 1e-6, 0.95, 0.2
SEED = 17


@dataclass(frozen=True)
class Work:
    """One model with its completions; every prompt has 32 tokens."""

    title: str
    tokens: int  # per completion; the most of them where lengths are uneven
    sizes: dict[str, int] = field(default_factory=dict)  # of a random Qwen2; empty: a folder
    uneven: bool = False
    rows: int = 512  # that ChainForge decodes at once: runtime.rollout_rows
    # completions per micro-batch that serve TRL best, by how it computes
    trl_micro_batch: dict[str, int] = field(default_factory=dict)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion, the end-of-sequence token included where there is one."""
        if not self.uneven:
            return [self.tokens] * (PROMPTS * GROUP)
        return uneven_lengths(PROMPTS * GROUP, self.tokens)


def uneven_lengths(count: int, most: int) -> list[int]:
    """Log-normal, as those of sampled completions are."""
    draw = random.Random(SEED)
    mu = 4.16 - 0.7**2 / 2  # of a mean of 64
    return [min(most, max(2, round(draw.lognormvariate(mu, 0.7)))) for _ in range(count)]


def sizes(hidden: int, mlp: int, vocab: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "vocab_size": vocab,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
    }


ROWS_AT_ONCE = 16  # where there is a queue
TINY = sizes(256, 768, 1024)
TINY_BEST = {"float32": 8, "amp": 16, "bf16": 8}
WORKS = {
    "a": Work("tiny Qwen2 (hidden 256, vocabulary 1,024)", 128, TINY, trl_micro_batch=TINY_BEST),
    "b": Work("SmolLM2-135M", 128, trl_micro_batch={"float32": 8, "amp": 8, "bf16": 8}),
    "c": Work(
        "large vocabulary (hidden 128, vocabulary 151,936)",
        64,
        sizes(128, 384, 151_936),
        trl_micro_batch={"float32": 8, "amp": 8, "bf16": 16},
    ),
    "d": Work("tiny Qwen2, uneven lengths", 256, TINY, uneven=True, trl_micro_batch=TINY_BEST),
    "e": Work(
        f"tiny Qwen2, uneven lengths, ChainForge {ROWS_AT_ONCE} at once",
        256,
        TINY,
        uneven=True,
        rows=ROWS_AT_ONCE,
        trl_micro_batch=TINY_BEST,
    ),
}


def load_model(work: Work, folder: str | None, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The same weights on both sides: from the folder, or random from a fixed seed."""
    if work.sizes:
        torch.manual_seed(SEED)
        config = Qwen2Config(**work.sizes, tie_word_embeddings=True, eos_token_id=None, bos_token_id=None)
        model = Qwen2ForCausalLM(config).to(dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.config.eos_token_id = model.generation_config.eos_token_id = None  # only the tokenizer knows one
    return model.eval()


def make_tokenizer(work: Work, vocab: int) -> PreTrainedTokenizerBase:
    """A token per word "t0 t1 …". Its EOS lies outside of the model's vocabulary, so that no completion ends
    by itself; where lengths are uneven it is the last word, which the benchmark forbids and forces."""
    words = vocab - 2 if work.uneven else vocab
    ids = {f"t{i}": i for i in range(words)} | {"<eos>": words, "<pad>": words + 1}
    fast = Tokenizer(models.WordLevel(ids, unk_token="t0"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<eos>", pad_token="<pad>")
    made.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return made


def prompt_texts(work: Work, vocab: int) -> list[str]:
    """Eight prompts of 32 tokens."""
    draw = random.Random(SEED)
    return [
        " ".join(f"t{draw.randrange(vocab - 2)}" for _ in range(PROMPT_TOKENS - 1)) + f" t{number}"
        for number in range(PROMPTS)
    ]


class Clock:
    """Seconds and CPU seconds per phase, each without the phases inside of it."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.start()

    def start(self) -> None:
        """Begin a step."""
        self.spent = {phase: [0.0, 0.0] for phase in PHASES}
        self.mark = (time.perf_counter(), time.process_time())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside as this phase."""
        self._count()
        self.inside.append(name)
        try:
            yield
        finally:
            self._count()
            self.inside.pop()

    def wrap(self, owner: Any, name: str, phase: str | Callable[[], str]) -> None:
        """Count every call of `owner.name` as this phase."""
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase if isinstance(phase, str) else phase()):
                return original(*args, **kwargs)

        setattr(owner, name, counted)

    def stop(self, **counts: int) -> dict[str, Any]:
        """The step as a row of the result."""
        self._count()
        return {
            "wall_s": {phase: round(wall, 4) for phase, (wall, _) in self.spent.items()},
            "cpu_s": {phase: round(cpu, 4) for phase, (_, cpu) in self.spent.items()},
            "peak_mb": peak_mb(),
            **counts,
        }

    def _count(self) -> None:
        now = (time.perf_counter(), time.process_time())
        spent = self.spent[self.inside[-1] if self.inside else PHASES[-1]]
        spent[0] += now[0] - self.mark[0]
        spent[1] += now[1] - self.mark[1]
        self.mark = now


def peak_mb() -> int:
    """Of this process alone: on Linux, `ru_maxrss` begins at the peak of the process that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


class Turns:
    """The worker's side of taking turns: a line on stdin is a step, its figures are a line of JSON."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no figure

    def wait(self) -> None:
        """Until it is this side's turn; leaves when there is none any more."""
        if not sys.stdin.readline():
            sys.exit()

    def tell(self, row: dict[str, Any]) -> None:
        """The figures of a step."""
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()


@dataclass(frozen=True)
class Machine:
    """What this machine reaches: products at a model's shapes, and copying memory."""

    flops_per_s: float
    bytes_per_s: float


def measure_machine(model: PreTrainedModel, dtype: torch.dtype, *, rows: int = 2048) -> Machine:
    """The best of several tries, in CPU seconds per thread: others may use the machine meanwhile."""
    shapes = [p.shape for p in model.parameters() if p.ndim == 2]
    flops = seconds = 0.0
    for shape in sorted(set(shapes)):
        times = shapes.count(shape)
        few = rows if shape.numel() < 2**23 else rows // 4
        x, weight = torch.randn(few, shape[1]).to(dtype), torch.randn(shape).to(dtype)
        flops += times * 2 * few * shape.numel()
        seconds += times * best_of(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight))
    source = torch.zeros(2**28 // 4)
    target = torch.ones_like(source)
    copy_s = best_of(lambda: target.copy_(source))
    return Machine(flops / seconds, 2 * 2**28 / copy_s)


def best_of(run: Callable[[], object], tries: int = 5) -> float:
    """CPU seconds per thread of one call."""
    run()
    taken = []
    for _ in range(tries):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken) / torch.get_num_threads()


def floor_s(model: PreTrainedModel, lengths: Sequence[int], machine: Machine, width: int) -> dict[str, float]:
    """The least seconds per phase. Attention is free.

    Products of the weights with what has to be computed, each prompt once per group, at the measured rate;
    the weights once per decoded token at the measured bandwidth.
    """
    head = model.get_output_embeddings().weight.numel()
    embedding = model.get_input_embeddings().weight.numel()
    total = sum(p.numel() for p in model.parameters())
    hidden = total - embedding - (0 if model.config.tie_word_embeddings else head)
    prompt = PROMPTS * PROMPT_TOKENS
    flop, byte = 1 / machine.flops_per_s, 1 / machine.bytes_per_s
    rollout = 2 * (hidden * prompt + head * PROMPTS) * flop
    for step in range(1, max(lengths)):
        rows = sum(length > step for length in lengths)
        rollout += max(2 * (hidden + head) * rows * flop, (hidden + head) * width * byte)
    training = 6 * (hidden * (prompt + sum(lengths)) + head * sum(lengths)) * flop
    adamw = total * 28 * byte  # weight, gradient and two moments read, all but the gradient written
    return {"rollout": rollout, "forward + backward": training, "optimizer": adamw}

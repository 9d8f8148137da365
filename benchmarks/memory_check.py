"""Whether `chainforge memory` tells the truth: its arithmetic next to the measured peak of small models.

    python benchmarks/memory_check.py [SHAPE …]

Each model trains two optimizer steps on the CPU in a process of its own. Measured is the most resident memory
above that of the process with its libraries. Every tensor gets pages of its own (mmap_threshold), so that
this is what training holds: malloc as it usually is keeps up to a third more.
"""

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
    }
    | {
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    "wide vocabulary": {
        "model_type": "qwen2",
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
    }
    | {
        "num_key_value_heads": 2,
        "intermediate_size": 1024,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "untied": {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8}
    | {"num_key_value_heads": 4, "intermediate_size": 2048, "vocab_size": 8000, "tie_word_embeddings": False},
}
TOKENS, LENGTH = 512, 128


def main(names: list[str]) -> None:
    env = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536", "THP_MEM_ALLOC_ENABLE": "0"}
    print("| model | precision | checkpointing | trained | predicted, MB | measured, MB | ratio |")
    print("|---|---|---|---|---:|---:|---:|", flush=True)
    for name in names or SHAPES:
        for precision in ("float32", "bfloat16"):
            for checkpointing in (False, True):
                for adapter in (False, True):
                    case = json.dumps([name, precision, checkpointing, adapter])
                    command = [sys.executable, __file__, "--one", case]
                    said = subprocess.run(
                        command, env=env, check=True, stdout=subprocess.PIPE, text=True
                    ).stdout
                    predicted, measured = json.loads(said.splitlines()[-1])
                    trained = "LoRA" if adapter else "all"
                    what = f"{name} | {precision} | {'yes' if checkpointing else 'no'} | {trained}"
                    row = f"{predicted / 1e6:,.0f} | {measured / 1e6:,.0f} | {predicted / measured:.2f}"
                    print(f"| {what} | {row} |", flush=True)


def one(name: str, precision: str, checkpointing: bool, adapter: bool) -> tuple[float, float]:  # noqa: PLR0915
    """(predicted, measured) bytes."""
    import psutil
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from chainforge.config.adapter import AdapterSettings
    from chainforge.config.optimizer import OptimizerSettings
    from chainforge.config.run import RunSettings, RuntimeSettings
    from chainforge.learner.footprint import Activations, Training, sizes, total
    from chainforge.learner.kept_bytes import kept_bytes_per_token
    from chainforge.learner.local_learner import LocalLearner
    from chainforge.learner.micro_batch_size import logits_bytes
    from chainforge.models.batch import Tokens
    from chainforge.models.checkpoint import Policy, place
    from chainforge.models.policy_model import PolicyModel
    from chainforge.run.step import Step

    torch.manual_seed(0)
    torch.set_num_threads(2)
    one_A = torch.ones(64, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (one_A @ one_A).sum().backward()  # what libraries take at their first call is not the model's
    process, ended, most = psutil.Process(), threading.Event(), [0]
    if adapter:
        import peft  # noqa: F401
    before = process.memory_info().rss

    def watch() -> None:
        while not ended.is_set():
            most[0] = max(most[0], process.memory_info().rss)
            time.sleep(0.002)

    shape = dict(SHAPES[name])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    model = place(AutoModelForCausalLM.from_config(config), torch.device("cpu"))
    settings = OptimizerSettings(
        learning_rate=1e-4, adapter=AdapterSettings(kind="lora") if adapter else None
    )
    runtime = RuntimeSettings(device="cpu", micro_batch_tokens=TOKENS, gradient_checkpointing=checkpointing)
    step = Step("memory", RunSettings(precision=precision), runtime)
    learner = LocalLearner(Policy(model, None), settings, step)  # type: ignore[arg-type]
    learner.begin(2)

    def loss(_: Any, said: Any, __: Any) -> Any:
        return -said.logp_BT.sum() / TOKENS, {}

    sequences = [Tokens([n], range(1, LENGTH)) for n in range(2 * TOKENS // LENGTH)]
    learner.step(sequences[:1], loss)  # makes the moments
    thread = threading.Thread(target=watch)
    thread.start()
    learner.step(sequences, loss)
    ended.set()
    thread.join()
    lengths = (LENGTH // 2, LENGTH)
    training = Training(sizes(model), precision, settings)
    plain = kept_bytes_per_token(PolicyModel(model), precision, lengths=lengths)
    saving = PolicyModel(model, gradient_checkpointing=checkpointing)
    kept = kept_bytes_per_token(saving, precision, lengths=lengths)
    token = Activations(kept, plain / training.model.layers).at_peak(checkpointing=checkpointing)
    held = training.held(checkpointing=checkpointing)
    return total(held, TOKENS * token, logits_bytes("cpu")), most[0] - before


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*json.loads(sys.argv[2]))))
    else:
        main(sys.argv[1:])

"""Handing weights over to vLLM servers: as an adapter where that is what is trained, else as a folder.

A folder has all weights in the type that the servers compute in, and an LM head of its own: a server that was
started on tied embeddings may go on with its old head, whatever it loads (vLLM 0.32 on a CPU does).
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.errors import ChainForgeError
from chainforge.memory import enough_memory
from chainforge.models.adapters import save_adapter
from chainforge.models.checkpoint import Policy, settle_generation
from chainforge.outputs import maker_runs, whole_folder
from chainforge.rollout.vllm.client import ServerFailed, call
from chainforge.run.progress import progress, say

ADAPTER = "chainforge"  # its name at the servers
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
OLD_S = 3600.0
SOON_S = 5.0  # a hand-over that takes longer gets a bar
FOLDER = (
    "start it with VLLM_SERVER_DEV_MODE=1, and set runtime.vllm.folder to a place that this machine and the "
    "server's both have"
)


class Handover:
    """How servers get weights. In the first process, which alone talks to them."""

    def __init__(
        self, policy: Policy, folder: Path, urls: Sequence[str], *, name: str, within_s: float
    ) -> None:
        """`name` is the step's; `within_s` what each server may take."""
        self._policy, self._folder, self._urls = policy, folder, urls
        self._name, self._within_s = name, within_s
        self.way, self.digest = "", list[int]()  # of the last hand-over
        self._served: Path | None = None  # the folder of the adapter that servers have

    def adapter(self, adapter: Mapping[str, Tensor], version: int, what: str) -> bool:
        """Swap it while servers run. False where the first is refused: then weights have to be merged."""
        self.digest = digest(adapter)
        path = self._folder / f"adapter-{version}"  # another each time: prompts are cached by it
        with whole_folder(path) as partial:
            save_adapter(self._policy.model, partial, adapter)
        try:
            # without load_inplace, a server says yes to a name that it knows, and goes on with what it has
            body = {"lora_name": ADAPTER, "lora_path": str(path), "load_inplace": True}
            self._ask_all("/v1/load_lora_adapter", body, what)
        except ServerFailed as error:
            shutil.rmtree(path)
            if error.status is None or self.way == "an adapter":
                raise
            say(f"{self._name}: no adapter can be swapped, so weights are merged ({error.problem})")
            return False
        if self._served:
            shutil.rmtree(self._served)
        self._served = path  # stays: with load_inplace, vLLM reads it again for later requests
        self._tell("an adapter", "which is swapped while servers run")
        return True

    def weights(self, weights: Mapping[str, Tensor], version: int, what: str) -> None:
        """Write them to a folder that is loaded, and then removed."""
        self.digest = digest(weights)
        path = self._folder / f"weights-{version}"  # another each time: a path that is known may be stale
        write_weights(self._policy, weights, path)
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(path)}}
        try:
            self._ask_all("/collective_rpc", body, what)
        except ServerFailed as error:
            raise error if error.status is None else ServerFailed(error.problem, FOLDER) from error
        finally:
            shutil.rmtree(path)
        self._tell("a folder", f"in {self._folder}, which is loaded anew")

    def _ask_all(self, path: str, body: Any, what: str) -> None:
        """Ask all servers at once, then have them forget the keys and values of prompts."""

        def ask(url: str) -> None:
            call(url, path, body=body, doing=f"loading {what}", within_s=self._within_s)
            forget = call(url, "/reset_prefix_cache", doing="forgetting prompts", within_s=self._within_s)
            if not (forget or {}).get("success"):
                raise ServerFailed(
                    f"{url} keeps keys and values of prompts that old weights computed",
                    "give it no other work while a step uses it",
                )

        with ThreadPoolExecutor(len(self._urls)) as pool:
            done, title = pool.map(ask, self._urls), f"{self._name}: loading {what}"
            for _ in progress(done, title, total=len(self._urls), unit="server", delay_s=SOON_S):
                pass

    def _tell(self, way: str, more: str) -> None:
        if way != self.way:
            say(f"{self._name}: vLLM gets weights as {way}, {more}")
        self.way = way


@enough_memory("the weights to hand over", "lower runtime.micro_batch_tokens, or choose a smaller model")
def gather(
    weights: Iterator[tuple[str, Tensor]], dtype: torch.dtype, *, keep: bool = True
) -> dict[str, Tensor]:
    """A copy on the CPU, of each name its own. All processes iterate; without `keep` nothing is left."""
    own = {}
    for name, weight in weights:
        if keep:
            kind = dtype if weight.is_floating_point() else weight.dtype
            own[name] = weight.detach().to("cpu", kind, copy=True)
    return own


def digest(weights: Mapping[str, Tensor]) -> list[int]:
    """A number for each tensor, which another value in it changes but for a rare chance."""
    return [
        int(weight.detach().view(INTEGERS[weight.element_size()]).sum(dtype=torch.int64))
        for weight in weights.values()
    ]


def zero_head(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of an LM head after which all tokens are equally likely."""
    head = model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is head)
    return {f"{name}.{part}": torch.zeros_like(weight) for part, weight in head.state_dict().items()}


def write_weights(
    policy: Policy, weights: Mapping[str, Tensor], folder: Path, *, whole: bool = False
) -> None:
    """A folder that a server loads: weights under the names of the hub, and a config without tied embeddings.
    With `whole`, the tokenizer too: one to start a server on."""
    settle_generation(policy)
    try:
        with whole_folder(folder) as partial:
            policy.model.save_pretrained(partial, state_dict=dict(weights))
            config = json.loads((partial / "config.json").read_text(encoding="utf-8"))
            for part in (config, config.get("text_config", {})):
                part["tie_word_embeddings"] = False
            (partial / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
            if whole:
                policy.tokenizer.save_pretrained(partial)
    except OSError as error:
        raise ChainForgeError(
            f"weights for vLLM cannot be written to {folder}: {error}",
            "make room there, or set runtime.vllm.folder to another place",
        ) from error


@contextmanager
def place_for_weights(chosen: Path | None, otherwise: Path, size: int) -> Iterator[Path]:
    """An empty folder for `size` bytes: below `chosen`, or in memory (/dev/shm) where there is room, or below
    `otherwise`. It goes at the end; what a killed process left in these places goes now."""
    memory = Path("/dev/shm")
    fits = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1.2 * size
    root = chosen or (memory if fits else otherwise)
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob("chainforge-weights-*-*"):
        # of a container that shares this memory, the processes are not seen here
        is_old = left.stat().st_mtime < time.time() - OLD_S
        if is_old and not maker_runs(int(left.name.split("-")[2]), left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(mkdtemp(prefix=f"chainforge-weights-{os.getpid()}-", dir=root)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

"""What the first process of a step does with vLLM servers: all of HTTP, and the folder for weights."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager

import torch
from torch import Tensor

from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.models.adapters import plain_weights
from chainforge.models.chat import eos_ids
from chainforge.models.checkpoint import Policy
from chainforge.rollout.engine import Request, Sampled
from chainforge.rollout.vllm.check_sync import check_head, probes
from chainforge.rollout.vllm.client import ServerFailed, scores
from chainforge.rollout.vllm.completion import completion_request, read_completion
from chainforge.rollout.vllm.sampling import Sampling
from chainforge.rollout.vllm.server import join_servers, start_servers
from chainforge.rollout.vllm.sync import (
    ADAPTER,
    Handover,
    gather,
    place_for_weights,
    write_weights,
    zero_head,
)
from chainforge.run.step import Step
from chainforge.run.work import work_root

DYING_S = 5.0  # that a server may take from breaking its connections to its end


class FirstProcess:
    """Servers for the policy as it was loaded, started here or joined. `close` ends what was started."""

    def __init__(
        self,
        policy: Policy,
        step: Step,
        dtype: torch.dtype,
        *,
        max_len: int | None,
        frozen: bool,
        adapter_rank: int | None,
    ) -> None:
        """`adapter_rank`: of an adapter that will be swapped; None where all weights will be handed over."""
        self._step, self._runtime = step, step.runtime.vllm
        self._eos_ids = eos_ids(policy.model, policy.tokenizer)
        self._sampling: Sampling | None = None
        with ExitStack() as opened:
            size = 2 * dtype.itemsize * policy.num_parameters
            place = place_for_weights(self._runtime.folder, work_root() / "vllm", size)
            folder = opened.enter_context(place)
            as_loaded = gather(plain_weights(policy.model), dtype)
            if self._runtime.urls:
                servers = join_servers(step, policy, max_len=max_len, swaps=True)
            else:
                start = folder / "start"
                write_weights(policy, as_loaded, start, whole=True)
                servers = start_servers(
                    start, step, policy, max_len=max_len, adapter_rank=adapter_rank, frozen=frozen
                )
            self.servers = opened.enter_context(closing(servers))
            self.model = servers.model
            self.handover = Handover(
                policy, folder, servers.urls, name=step.name, within_s=self._runtime.sync_timeout_s
            )
            if self._runtime.urls:
                self._check_heads(policy)
                if frozen or adapter_rank is not None:  # else the first update does it
                    self.take_weights(as_loaded, 0, "the checkpoint")
            else:
                shutil.rmtree(folder / "start", ignore_errors=True)
            self._opened = opened.pop_all()

    def take_weights(self, weights: Mapping[str, Tensor], version: int, what: str) -> None:
        """Have the servers load all weights. Raises ChainForgeError."""
        with self._watching(f"loading {what}"):
            self.handover.weights(weights, version, what)
        self.model = self.servers.model

    def take_adapter(self, adapter: Mapping[str, Tensor], version: int, what: str) -> bool:
        """Have them swap it. False where they refuse it at the first time."""
        with self._watching(f"loading {what}"):
            is_taken = self.handover.adapter(adapter, version, what)
        self.model = ADAPTER if is_taken else self.servers.model
        return is_taken

    def _check_heads(self, policy: Policy) -> None:
        """Whether servers that were started by others load an LM head: see `check_head`."""
        what = "an LM head of zeros"
        self.take_weights(zero_head(policy.model), 0, what)
        found = self.scores(probes(policy.tokenizer, self.servers.max_len), what)
        for url, theirs in zip(self.servers.urls, found, strict=True):
            check_head(url, theirs, policy.model.get_output_embeddings().weight.shape[0])

    def scores(self, sequences: Sequence[Sequence[int]], what: str) -> list[list[list[float]]]:
        """What each server says of these sequences: see `client.scores`."""
        doing = f"scoring a few sequences, to see whether it serves {what}"
        with self._watching(doing):
            within_s = self._runtime.sync_timeout_s
            return [
                scores(url, self.model, sequences, doing=doing, within_s=within_s)
                for url in self.servers.urls
            ]

    def begin(self, requests: Sequence[Request], settings: SamplingSettings) -> Sampling:
        """Ask for completions. Raises ChainForgeError where one might be longer than a server takes."""
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        if longest + settings.max_new_tokens > self.servers.max_len:
            raise ChainForgeError(
                f"a prompt of {longest} tokens and max_new_tokens {settings.max_new_tokens} are more than "
                f"the {self.servers.max_len} tokens that the server takes (max_model_len)",
                "lower max_new_tokens of this step, or start the server with a larger --max-model-len",
            )
        model, ends = self.model, self._eos_ids
        self._sampling = Sampling(
            self.servers.urls,
            requests,
            lambda request, seed: completion_request(model, request.prompt_ids, seed, settings, ends),
            lambda url, answer: read_completion(url, answer, ends),
            at_once=self._step.runtime.rollout_rows,
            stall_s=self._runtime.answer_timeout_s,
            doing=f"sampling for {self._step.name}",
        )
        return self._sampling

    def finish(self, sampling: Sampling) -> list[list[Sampled]]:
        """Wait for them."""
        with self._watching("sampling"):
            return sampling.wait()

    def close(self) -> None:
        """Cancel what is under way, end servers that were started here, remove the folder."""
        if self._sampling:
            self._sampling.cancel()
        self._opened.close()

    @contextmanager
    def _watching(self, doing: str) -> Iterator[None]:
        """Where a server of ours has ended, this is the reason: its connections break some moments before."""
        try:
            yield
        except ServerFailed:
            until = time.monotonic() + DYING_S
            while time.monotonic() < until:
                self.servers.check_alive(doing)
                time.sleep(0.1)
            raise

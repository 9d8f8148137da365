"""vLLM servers as an engine: the same in all processes of a step, the first of which talks to them."""

from collections.abc import Callable, Sequence

import torch

from chainforge.config.adapter import AdapterSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.learner.forward_passes import CASTS
from chainforge.models.checkpoint import Policy
from chainforge.models.precision import settle_precision
from chainforge.rollout.checkpoint_source import CheckpointSource
from chainforge.rollout.engine import Request, Sampled, Source
from chainforge.rollout.vllm.check_sync import SyncCheck, as_tokens, probes
from chainforge.rollout.vllm.first_process import FirstProcess
from chainforge.rollout.vllm.sync import gather
from chainforge.run.step import Step


class VllmEngine:
    """See `Engine`. All processes call each method alike, with the same requests.

    `frozen`: the weights never change; they are handed over and checked now. `adapter`: what a learner will
    train in place of all weights. The policy is as it was loaded.
    """

    def __init__(
        self,
        policy: Policy,
        step: Step,
        *,
        max_len: int | None = None,
        frozen: bool = False,
        adapter: AdapterSettings | None = None,
    ) -> None:
        """`max_len`: tokens of the longest prompt with its completion; None for what the model can read."""
        precision = step.settings.precision
        settle_precision(precision, policy.model)
        self._world, self._check = step.world, SyncCheck(precision)
        self._dtype = CASTS.get(precision, policy.model.dtype)
        # That of qlora belongs to weights of 4 bits, which servers do not have: they get merged ones.
        rank = adapter.rank if adapter and adapter.kind == "lora" else None
        self._swaps = rank is not None
        self._first: FirstProcess | None = None
        try:
            found = (0, 0, False)
            if self._world.is_first:
                self._first = FirstProcess(
                    policy, step, self._dtype, max_len=max_len, frozen=frozen, adapter_rank=rank
                )
                servers = self._first.servers
                found = (len(servers.urls), servers.max_len, servers.sleeps)
            count, most, self._sleeps = self._world.hand_out(found)
            self.rows = step.runtime.rollout_rows * count
            self._probes = probes(policy.tokenizer, most)
            if frozen:
                self._compare(CheckpointSource(policy, precision), "the checkpoint")
            if self._first:  # the learner, which comes next, makes its moments on the same GPU
                self._first.servers.sleep()
        except BaseException:
            self.close()
            raise

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        """See `Engine`."""
        return self.begin(requests, settings)()

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        """See `Engine`. A completion depends on its prompt, its seed and the weights; and, by rounding, on
        what else its server computes at the time, unless the server is batch-invariant."""
        sampling = self._first.begin(requests, settings) if self._first and not self._sleeps else None

        def wait() -> list[list[Sampled]]:
            self._wake()
            found: list[list[Sampled]] = []
            if self._first:
                found = self._first.finish(sampling or self._first.begin(requests, settings))
                self._first.servers.sleep()
            self._world.share(None)  # may take hours, which torch.distributed would not wait
            return self._world.gather(found)[0]

        return wait

    def update(self, source: Source, version: int) -> None:
        """See `Engine`. Raises ChainForgeError where a server does not serve what it was given."""
        self._wake()
        what = f"the weights of step {version}"
        if not (self._swaps and self._swap_adapter(source, version, what)):
            weights = gather(source.weights(), self._dtype, keep=self._first is not None)
            if self._first:
                self._first.take_weights(weights, version, what)
        self._compare(source, what)

    def _swap_adapter(self, source: Source, version: int, what: str) -> bool:
        adapter = source.adapter()
        assert adapter is not None
        is_taken = self._first.take_adapter(adapter, version, what) if self._first else False
        self._swaps = self._world.hand_out(is_taken)
        return self._swaps

    def _compare(self, source: Source, what: str) -> None:
        """Raise ChainForgeError unless each server says of a few sequences what the policy says."""
        ours = source.logprobs(as_tokens(self._probes))
        if self._first:
            urls = self._first.servers.urls
            for url, theirs in zip(urls, self._first.scores(self._probes, what), strict=True):
                handover = self._first.handover
                served = f"{what} (as {handover.way})" if handover.way else what
                self._check.compare(url, theirs, ours, served, handover.digest)

    def _wake(self) -> None:
        """Where servers share the learner's GPU: the memory that PyTorch keeps for later is theirs now."""
        if self._sleeps:
            torch.cuda.empty_cache()
            self._world.share(None)
            if self._first:
                self._first.servers.wake()

    def close(self) -> None:
        """See `Engine`."""
        if self._first:
            self._first.close()

"""The vLLM servers of a step: those that it starts, or those that run already."""

from collections.abc import Sequence
from pathlib import Path

from chainforge.errors import ChainForgeError
from chainforge.models.checkpoint import Policy, choose_device
from chainforge.providers.secrets import environment_without_keys
from chainforge.rollout.vllm.await_servers import HEALTH_S, await_servers
from chainforge.rollout.vllm.check_server import check_server
from chainforge.rollout.vllm.client import ServerFailed, call
from chainforge.rollout.vllm.command import MODEL, Plan, serve_arguments, serve_environment
from chainforge.rollout.vllm.gpus import place_servers, visible_gpus
from chainforge.rollout.vllm.process import ServerProcess, close_all, find_program, free_port
from chainforge.rollout.vllm.room import context_len, memory_for
from chainforge.run.launch import count_gpus, count_processes
from chainforge.run.step import LOGS, Step

DTYPES = {"bfloat16-weights": "bfloat16"}  # the others have vLLM's names
ENDING_S = 5.0
AGAIN = "run the same command again: the step goes on from its last save"


class Servers:
    """Servers that serve `model`, up to `max_len` tokens of prompt and completion. Close it.

    `sleeps`: they share the GPUs of a learner.
    """

    def __init__(
        self,
        step: Step,
        urls: Sequence[str],
        model: str,
        max_len: int,
        processes: Sequence[ServerProcess] = (),
        *,
        sleeps: bool = False,
    ) -> None:
        self.urls, self.model, self.max_len = list(urls), model, max_len
        self.sleeps = sleeps
        self._step, self._processes = step, list(processes)
        self._asleep = False

    def check_alive(self, doing: str) -> None:
        """Raise ChainForgeError where a server has ended, or gives no sign of life. `doing`: "sampling"."""
        own = dict(zip(self.urls, self._processes, strict=False))
        for url, process in own.items():
            process.check_runs(f"vLLM at {url} has ended while {doing}", AGAIN)
        from httpx2 import TimeoutException

        for url in self.urls:
            try:
                call(url, "/health", doing="asking whether it lives", within_s=HEALTH_S, method="GET")
            except ServerFailed as error:
                if isinstance(error.__cause__, TimeoutException):
                    continue  # who is too busy to answer lives
                if url in own:  # its sockets close a moment before it has ended
                    own[url].check_runs(f"vLLM at {url} has ended while {doing}", AGAIN, ENDING_S)
                log = f"; its log: {own[url].log}" if url in own else ""
                raise ChainForgeError(
                    f"vLLM at {url} does not serve any more, while {doing}: {error.problem}{log}", AGAIN
                ) from error

    def sleep(self) -> None:
        """Give the GPU to the learner: weights go to the CPU, keys and values are dropped.

        Nothing to do where the servers share no GPU with it.
        """
        if self.sleeps and not self._asleep:
            self._ask_all("/sleep", {"level": "1"}, "going to sleep")
            self._asleep = True

    def wake(self, tags: Sequence[str] | None = None) -> None:
        """Take it back, or only what is tagged: "weights", then "kv_cache".

        Each process of the learner calls `torch.cuda.empty_cache` before.
        """
        if self.sleeps and self._asleep:
            self._ask_all("/wake_up", {"tags": list(tags)} if tags else None, "waking up")
            self._asleep = bool(tags) and "kv_cache" not in (tags or ())

    def _ask_all(self, path: str, params: object, doing: str) -> None:
        for url in self.urls:
            within_s = self._step.runtime.vllm.sync_timeout_s
            call(url, path, params=params, doing=f"{self._step.name}: {doing}", within_s=within_s)

    def close(self) -> None:
        """End the servers that the step has started."""
        close_all(self._processes)
        self._processes = []


def count_sharing(step: Step, *, frozen: bool) -> int:
    """Processes of this machine whose GPUs servers share. A step that trains nothing is one process, and its
    servers have the GPUs of all that it might have been."""
    if step.runtime.vllm.gpus or not frozen:
        return step.world.local_size
    return max(step.world.local_size, count_processes(step.runtime))


def start_servers(
    folder: Path,
    step: Step,
    policy: Policy,
    *,
    max_len: int | None = None,
    adapter_rank: int | None = None,
    frozen: bool = False,
) -> Servers:
    """Start `vllm serve FOLDER` on each group of GPUs that the settings give it, and wait until all serve.

    `max_len`: tokens of the longest prompt with its completion; None for what the model can do. `frozen`: the
    step trains nothing. Raises ChainForgeError where one does not start, or does not serve what it should.
    """
    settings = step.runtime.vllm
    program = find_program(settings.command)
    length = context_len(policy, max_len)
    device = choose_device(step.runtime.device)
    visible = visible_gpus(count_gpus(step.runtime)) if device.type == "cuda" else ()
    places = place_servers(visible, settings, count_sharing(step, frozen=frozen))
    sleeps = bool(visible) and settings.gpus == 0 and not frozen
    trains_all = not frozen and adapter_rank is None
    memory = memory_for(policy, step, length, device, len(places[0]), trains_all=trains_all)
    environment = environment_without_keys()
    processes, urls = [], []
    try:
        for number, gpus in enumerate(places):
            plan = Plan(
                folder,
                DTYPES.get(step.settings.precision, step.settings.precision),
                step.runtime.rollout_rows,
                length,
                step.settings.seed % 2**31,
                free_port(),
                gpus,
                memory,
                adapter_rank,
                sleeps=sleeps,
            )
            name = f"{step.file_name}.vllm.log" if not number else f"{step.file_name}.vllm-{number + 1}.log"
            command = [program, *serve_arguments(plan, settings)]
            processes.append(ServerProcess(command, serve_environment(plan, environment), LOGS / name))
            urls.append(f"http://127.0.0.1:{plan.port}")
        await_servers(step, folder, urls, processes)
        for url in urls:
            check_server(url, policy, length, swaps=True)
    except BaseException:
        close_all(processes)
        raise
    return Servers(step, urls, MODEL, length, processes, sleeps=sleeps)


def join_servers(step: Step, policy: Policy, *, max_len: int | None = None, swaps: bool = True) -> Servers:
    """The servers of runtime.vllm.urls. `swaps`: they are to take new weights.

    Raises ChainForgeError where one does not answer, or does not serve what the step needs.
    """
    length = context_len(policy, max_len)
    urls = [url.rstrip("/").removesuffix("/v1") for url in step.runtime.vllm.urls]
    if twice := {url for url in urls if urls.count(url) > 1}:
        raise ChainForgeError(f"runtime.vllm.urls names {twice.pop()} twice", "name each server once")
    names = [check_server(url, policy, length, swaps=swaps) for url in urls]
    if other := next((name for name in names if name != names[0]), None):
        raise ChainForgeError(
            f"the servers of runtime.vllm.urls serve models of two names: {names[0]} and {other}",
            "start all with the same --served-model-name",
        )
    return Servers(step, urls, names[0], length)

"""vLLM as an engine, on a stand-in for its server: completions, hand-overs, and what goes wrong."""

import os
from asyncio import CancelledError
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any, cast

import pytest
from fake_vllm import Fake, Faults, serving
from fakes import learner_of, make_step, policy
from hypothesis import given
from hypothesis import strategies as st

from chainforge.config.adapter import AdapterSettings
from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.errors import ChainForgeError
from chainforge.learner.local_learner import LocalLearner
from chainforge.models.batch import Tokens
from chainforge.models.checkpoint import Policy, save_policy
from chainforge.rollout.checkpoint_source import CheckpointSource
from chainforge.rollout.engine import Request, Sampled
from chainforge.rollout.local_engine import LocalEngine
from chainforge.rollout.vllm import first_process, server
from chainforge.rollout.vllm.completion import completion_request, read_completion
from chainforge.rollout.vllm.engine import VllmEngine
from chainforge.rollout.vllm.sampling import deal
from chainforge.rollout.vllm.server import Servers
from chainforge.run.step import Step
from chainforge.run.world import World

pytestmark = pytest.mark.slow

SETTINGS = SamplingSettings(max_new_tokens=6)
REQUESTS = [Request([1, 2, 3], [5, 6]), Request([4], [7]), Request([9, 8], [10, 11, 12])]
SEQUENCES = [Tokens([1, 2, 3], [4, 5, 6, 7]), Tokens([9], [8, 7])]
LORA = AdapterSettings(kind="lora", rank=4)


@pytest.fixture(autouse=True)
def _no_other_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server is refused for when it is joined has tests of its own."""
    monkeypatch.setattr(server, "check_server", lambda *_, **__: "policy")


def step_with(
    urls: list[str], folder: Path, *, precision: Any = "float32", rows: int = 512, **vllm: Any
) -> Step:
    step = make_step(rollout_rows=rows, vllm={"urls": urls, "folder": folder / "handed over", **vllm})
    return Step(step.name, RunSettings(precision=precision), step.runtime)


@contextmanager
def served(
    folder: Path, count: int = 1, *, tied: bool = False, as_loaded: bool = False, **fake: Any
) -> Iterator[tuple[list[str], list[Fake]]]:
    """Servers on another policy than the one that tests hand over."""
    save_policy(policy(seed=0 if as_loaded else 9, tie_word_embeddings=tied), folder / "model")
    with ExitStack() as stack:
        pairs = [stack.enter_context(serving(folder / "model", **fake)) for _ in range(count)]
        yield [url for url, _ in pairs], [fake for _, fake in pairs]


@contextmanager
def closing(engine: VllmEngine) -> Iterator[VllmEngine]:
    try:
        yield engine
    finally:
        engine.close()


def go_wrong(fake: Fake, **faults: Any) -> None:
    """From now on; counts begin anew."""
    fake.served.faults, fake.completions, fake.syncs = Faults(**faults), 0, 0


def train(learner: LocalLearner, steps: int = 1) -> None:
    for _ in range(steps):
        learner.step(SEQUENCES, lambda indices, found, batch: (-found.logp_BT.sum(), {}))


def learning(made: Policy, step: Step, rate: float, adapter: AdapterSettings | None = None) -> LocalLearner:
    learner = learner_of(made, OptimizerSettings(learning_rate=rate, adapter=adapter), step)
    learner.begin(100)
    return learner


def alike(found: list[list[Sampled]], wanted: list[list[Sampled]]) -> bool:
    """The same tokens and ends, and log-probabilities up to float32's rounding."""
    pairs = [pair for a, b in zip(found, wanted, strict=True) for pair in zip(a, b, strict=True)]
    return all(
        (a.token_ids, a.finish) == (b.token_ids, b.finish)
        and a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        for a, b in pairs
    )


def test_servers_on_the_learner_s_gpu_sleep_until_they_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner is made next, with its moments and a reference, and may go on in the middle of a step."""
    usual = first_process.join_servers

    def shared(*arguments: Any, **options: Any) -> Servers:
        servers = usual(*arguments, **options)
        servers.sleeps = True
        return servers

    monkeypatch.setattr(first_process, "join_servers", shared)
    made = policy()
    with served(tmp_path) as (urls, (fake,)):
        step = step_with(urls, tmp_path)
        learner = learning(made, step, 1e-3)
        with closing(VllmEngine(made, step)) as engine:
            assert fake.asleep == {"weights", "kv_cache"}
            engine.update(learner, 1)
            assert not fake.asleep
            assert [len(each) for each in engine.generate(REQUESTS, SETTINGS)] == [2, 1, 3]
            assert fake.asleep == {"weights", "kv_cache"}


@pytest.mark.dearest
@pytest.mark.parametrize(("servers", "rows"), [(1, 512), (2, 1), (3, 2)])
def test_it_answers_as_our_own_sampler_does(servers: int, rows: int, tmp_path: Path) -> None:
    made = policy()
    with served(tmp_path, servers) as (urls, fakes):
        step = step_with(urls, tmp_path, rows=rows)
        with closing(VllmEngine(made, step, frozen=True)) as engine:
            assert engine.rows == rows * servers
            for settings in (SETTINGS, SETTINGS.model_copy(update={"temperature": 0.0})):
                wanted = LocalEngine(made, step).generate(REQUESTS, settings)
                assert alike(engine.generate(REQUESTS, settings), wanted)
            assert engine.generate([], SETTINGS) == []
        asked = [
            [body["prompt"] for path, body in fake.calls if "return_token_ids" in body] for fake in fakes
        ]
    assert all(asked), "each server has work"
    assert sum(map(len, asked)) == 2 * 6, "one request for each completion"
    homes = [{tuple(prompt) for prompt in prompts} for prompts in asked]
    assert sum(map(len, homes)) == len(REQUESTS), "the completions of a prompt are all at one server"
    assert not list((tmp_path / "handed over").iterdir())


@given(sizes=st.lists(st.integers(1, 9), max_size=12), servers=st.integers(1, 4))
def test_work_is_dealt_out_whole_and_evenly(sizes: list[int], servers: int) -> None:
    parts = deal(sizes, servers)
    assert sorted(place for part in parts for place in part) == list(range(len(sizes)))
    loads = [sum(sizes[place] for place in part) for part in parts]
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_completions_come_while_the_step_does_other_things(tmp_path: Path) -> None:
    made = policy()
    with (
        served(tmp_path) as (urls, _),
        closing(VllmEngine(made, step_with(urls, tmp_path), frozen=True)) as engine,
    ):
        wait = engine.begin(REQUESTS, SETTINGS)
        assert wait() == wait() == engine.generate(REQUESTS, SETTINGS)


def test_what_is_under_way_ends_with_the_engine(tmp_path: Path) -> None:
    with served(tmp_path) as (urls, (fake,)):
        engine = VllmEngine(policy(), step_with(urls, tmp_path), frozen=True)
        go_wrong(fake, hang_after=0)
        wait = engine.begin(REQUESTS, SETTINGS)
        engine.close()
        with pytest.raises(CancelledError):
            wait()


@pytest.mark.dearest
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_after_each_update_it_samples_from_what_the_learner_is(precision: str, tmp_path: Path) -> None:
    made = policy(tie_word_embeddings=True)
    with served(tmp_path, 2, dtype=precision) as (urls, fakes):
        step = step_with(urls, tmp_path, precision=precision)
        learner = learning(made, step, 0.01)
        with closing(VllmEngine(made, step)) as engine:
            for version in (1, 2):
                train(learner)
                engine.update(learner, version)
                found, wanted = engine.generate(REQUESTS, SETTINGS), LocalEngine(made, step)
                if precision == "float32":
                    assert alike(found, wanted.generate(REQUESTS, SETTINGS))
    for fake in fakes:
        paths = [path for path, _ in fake.calls]
        reloads = [place for place, path in enumerate(paths) if path == "/collective_rpc"]
        assert len(reloads) == 1 + 2, "a head of zeros, then each version"
        assert all(paths[place + 1] == "/reset_prefix_cache" for place in reloads)
        loaded = [body["kwargs"]["weights_path"] for path, body in fake.calls if path == "/collective_rpc"]
        assert len(set(loaded)) == 3, "no path comes twice"


def test_an_adapter_is_swapped_and_nothing_else(tmp_path: Path) -> None:
    made = policy()
    with served(tmp_path) as (urls, (fake,)):
        step = step_with(urls, tmp_path)
        with closing(VllmEngine(made, step, adapter=LORA)) as engine:
            learner = learning(made, step, 0.01, LORA)
            before = len(fake.calls)
            for version in (1, 2, 3):
                engine.update(learner, version)
                merged = policy()
                merged.model.load_state_dict(dict(learner.weights()))
                wanted = LocalEngine(merged, step).generate(REQUESTS, SETTINGS)
                assert alike(engine.generate(REQUESTS, SETTINGS), wanted)
                train(learner)
            swaps = [body for path, body in fake.calls[before:] if path == "/v1/load_lora_adapter"]
            assert "/collective_rpc" not in [path for path, _ in fake.calls[before:]]
    assert [body["load_inplace"] for body in swaps] == [True] * 3
    assert len({body["lora_path"] for body in swaps}) == 3


def test_where_no_adapter_can_be_swapped_weights_are_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = policy()
    with served(tmp_path, lora=False) as (urls, _):
        step = step_with(urls, tmp_path)
        with closing(VllmEngine(made, step, adapter=LORA)) as engine:
            learner = learning(made, step, 0.01, LORA)
            for version in (1, 2):
                train(learner)
                engine.update(learner, version)
    said = capsys.readouterr().err
    assert said.count("weights are merged") == 1
    assert said.count("as a folder") == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [None, LORA], ids=["all weights", "adapter"])
def test_a_server_that_keeps_old_weights_is_found_after_one_step(
    precision: str, adapter: AdapterSettings | None, tmp_path: Path
) -> None:
    made = policy()
    with served(tmp_path, dtype=precision) as (urls, (fake,)):
        step = step_with(urls, tmp_path, precision=precision)
        with closing(VllmEngine(made, step, adapter=adapter)) as engine:
            learner = learning(made, step, 1e-4, adapter)
            if adapter:
                train(learner, 3)
            engine.update(learner, 1)
            train(learner)
            go_wrong(fake, stale=True)
            with pytest.raises(ChainForgeError, match=r"does not serve the weights of step 2 .* it is stale"):
                engine.update(learner, 2)


def test_weights_that_have_not_moved_are_not_stale(tmp_path: Path) -> None:
    made = policy()
    with served(tmp_path) as (urls, _):
        step = step_with(urls, tmp_path)
        with closing(VllmEngine(made, step)) as engine:
            for version in (1, 2, 3):
                engine.update(CheckpointSource(made, "float32"), version)


def test_a_server_that_serves_something_else_is_refused(tmp_path: Path) -> None:
    with (
        served(tmp_path, stale_from=2) as (urls, _),
        pytest.raises(ChainForgeError, match=f"{urls[0]} does not serve the checkpoint .*nats"),
    ):
        VllmEngine(policy(), step_with(urls, tmp_path), frozen=True)


def test_a_server_with_tied_embeddings_is_refused(tmp_path: Path) -> None:
    made = policy(tie_word_embeddings=True)
    with served(tmp_path, tied=True, as_loaded=True) as (urls, _):
        with pytest.raises(ChainForgeError, match="tied embeddings") as refused:
            VllmEngine(made, step_with(urls, tmp_path))
        assert "tie_word_embeddings: false" in refused.value.fix


def test_evaluations_in_turn_share_a_server(tmp_path: Path) -> None:
    with served(tmp_path) as (urls, _):
        for seed in (0, 1, 2):
            made, step = policy(seed=seed), step_with(urls, tmp_path)
            with closing(VllmEngine(made, step, frozen=True)) as engine:
                wanted = LocalEngine(made, step).generate(REQUESTS, SETTINGS)
                assert alike(engine.generate(REQUESTS, SETTINGS), wanted)


@pytest.mark.parametrize(
    ("fault", "match"),
    [("refuse_after", "500: EngineCore encountered an issue"), ("hang_after", "none has ended")],
)
def test_a_rollout_that_fails_ends_with_one_message(
    fault: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_process, "DYING_S", 0.0)
    with served(tmp_path) as (urls, (fake,)):
        step = step_with(urls, tmp_path, answer_timeout_s=1.0)
        with closing(VllmEngine(policy(), step, frozen=True)) as engine:
            go_wrong(fake, **{fault: 2})
            with pytest.raises(ChainForgeError, match=match) as failed:
                engine.generate(REQUESTS, SETTINGS)
    assert urls[0] in failed.value.problem


def test_a_server_that_takes_too_long_to_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_process, "DYING_S", 0.0)
    with (
        served(tmp_path, sync_takes_s=30.0) as (urls, _),
        pytest.raises(ChainForgeError, match=r"loading .*: no answer within 0.5 s"),
    ):
        VllmEngine(policy(), step_with(urls, tmp_path, sync_timeout_s=0.5), frozen=True)


def test_a_prompt_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    with (
        served(tmp_path) as (urls, (fake,)),
        closing(VllmEngine(policy(), step_with(urls, tmp_path), frozen=True)) as engine,
    ):
        before = len(fake.calls)
        with pytest.raises(ChainForgeError, match=r"507 tokens and max_new_tokens 6 .* 512"):
            engine.generate([Request([1] * 507, [1])], SETTINGS)
        assert len(fake.calls) == before


def test_what_a_killed_process_left_in_memory_goes(tmp_path: Path) -> None:
    left = tmp_path / "handed over" / "chainforge-weights-999999999-abc"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    with served(tmp_path) as (urls, _):
        VllmEngine(policy(), step_with(urls, tmp_path), frozen=True).close()
    assert not left.exists()


@given(seed=st.integers(0, 2**130))
def test_a_request_leaves_nothing_to_the_servers_defaults(seed: int) -> None:
    body = completion_request("m", [1, 2], seed, SETTINGS, [5, 6])
    assert 0 <= body["seed"] < 2**63
    assert completion_request("m", [1, 2], 2**63 - 1, SETTINGS, [])["seed"] == 2**63 - 1
    assert body["stop_token_ids"] == [5, 6]
    assert body["ignore_eos"]
    drawing = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    assert [body[name] for name in drawing] == [1.0, 1.0, 0, 0.0, 1.0]


WHOLE = {"token_ids": [1, 5], "logprobs": {"token_logprobs": [-0.5, -1]}, "finish_reason": "stop"}


def test_an_answer_is_a_completion() -> None:
    cut = WHOLE | {"token_ids": [1, 2], "finish_reason": "length"}
    assert read_completion("u", {"choices": [WHOLE]}, [5]) == Sampled((1, 5), (-0.5, -1.0), "stop")
    assert read_completion("u", {"choices": [cut]}, [5]) == Sampled((1, 2), (-0.5, -1.0), "length")


@pytest.mark.parametrize(
    "answer",
    [
        "Success",
        {},
        {"choices": []},
        {"choices": [WHOLE, WHOLE]},
        {"choices": [WHOLE | {"token_ids": None}]},
        {"choices": [WHOLE | {"token_ids": [1, 4]}]},  # a stop that is no EOS token
        {"choices": [WHOLE | {"token_ids": [5]}]},
        {"choices": [WHOLE | {"finish_reason": "length"}]},
        {"choices": [WHOLE | {"finish_reason": "abort"}]},
        {"choices": [WHOLE | {"logprobs": {"token_logprobs": [-0.5, None]}}]},
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(answer: Any) -> None:
    with pytest.raises(ChainForgeError, match="http://it"):
        read_completion("http://it", answer, [5])


@dataclass
class Process:
    """A thread in the place of a process of a step; what all say, all hear."""

    rank: int
    said: list[Any]
    barrier: Barrier

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def size(self) -> int:
        return len(self.said)

    def gather(self, value: Any) -> list[Any]:
        self.said[self.rank] = value
        self.barrier.wait(60)
        found = list(self.said)
        self.barrier.wait(60)
        return found

    share = gather

    def hand_out(self, value: Any) -> Any:
        return self.gather(value)[0]


def test_several_processes_have_one_that_talks(tmp_path: Path) -> None:
    said, barrier, made = [None, None], Barrier(2), [policy(seed=1), policy(seed=1)]
    with served(tmp_path) as (urls, (fake,)):
        one = step_with(urls, tmp_path)

        def run(rank: int) -> list[list[Sampled]]:
            step = replace(one, world=cast(World, Process(rank, said, barrier)))
            with closing(VllmEngine(made[rank], step)) as engine:
                engine.update(CheckpointSource(made[rank], "float32"), 1)
                return engine.generate(REQUESTS, SETTINGS)

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(run, range(2)))
        assert found[0] == found[1]
        assert alike(found[0], LocalEngine(made[0], one).generate(REQUESTS, SETTINGS))
    paths = [path for path, _ in fake.calls]
    assert paths.count("/collective_rpc") == 2, "a head of zeros, and the weights, from one of them"

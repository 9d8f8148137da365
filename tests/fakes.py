"""Stand-ins that several tests share: random models, a tokenizer, a policy, prompts, groups, a step."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from chainforge.config.optimizer import OptimizerSettings
from chainforge.config.run import RunSettings, RuntimeSettings
from chainforge.config.sampling import SamplingSettings
from chainforge.learner.local_learner import LocalLearner
from chainforge.models.checkpoint import Policy
from chainforge.plugins import load_plugins
from chainforge.records import Completion, Finish, Group, Prompt, Score
from chainforge.response import TagFormat, tag_format
from chainforge.rollout.engine import Request, Sampled, Source
from chainforge.rollout.local_engine import LocalEngine
from chainforge.run.step import Step
from chainforge.run.work import Work
from chainforge.scoring import Scorer, WeightedReward

torch.set_num_threads(1)  # tiny models: more threads only wait for each other

ROOT = Path(__file__).resolve().parents[1]
SUPERCOT = tag_format("supercot")
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,  # fewer than heads: grouped
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
TEXTS = [
    "user\n12+35=?assistant\n" + SUPERCOT.render("12+35: 2+5=7, 1+3=4", "The answer is 47."),
    "user\nWhat is 6 times 7?assistant\n" + SUPERCOT.render("6*7=42", "The answer is 42."),
]


def qwen2(vocab: int = 11, *, seed: int = 0, sharpness: float = 0.4, **changes: Any) -> PreTrainedModel:
    """A random Qwen2 with grouped key-value heads; `sharpness` is the deviation of its weights."""
    config = Qwen2Config(vocab_size=vocab, initializer_range=sharpness, **SIZES | changes)
    return _seeded(Qwen2ForCausalLM, config, seed)


def llama(vocab: int = 11, *, seed: int = 0, sharpness: float = 0.4, **changes: Any) -> PreTrainedModel:
    """A random Llama with grouped key-value heads."""
    config = LlamaConfig(vocab_size=vocab, initializer_range=sharpness, **SIZES | changes)
    return _seeded(LlamaForCausalLM, config, seed)


def qwen3(vocab: int = 11, *, seed: int = 0, sharpness: float = 0.4, **changes: Any) -> PreTrainedModel:
    """A random Qwen3, which norms each head's queries and keys; heads of another size than usual."""
    config = Qwen3Config(vocab_size=vocab, initializer_range=sharpness, **SIZES | {"head_dim": 8} | changes)
    return _seeded(Qwen3ForCausalLM, config, seed)


def mistral(vocab: int = 11, *, seed: int = 0, sharpness: float = 0.4, **changes: Any) -> PreTrainedModel:
    """A random Mistral: an architecture that ChainForge leaves to transformers."""
    config = MistralConfig(
        vocab_size=vocab, initializer_range=sharpness, **SIZES | {"sliding_window": None} | changes
    )
    return _seeded(MistralForCausalLM, config, seed)


def _seeded(kind: type[PreTrainedModel], config: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).eval()


@cache
def tokenizer(tags: tuple[str, ...] = SUPERCOT.tags) -> PreTrainedTokenizerBase:
    """The tokenizer of the bundled tiny model: byte-level, ChatML, a token per digit and per tag."""
    factory = load_plugins(ROOT / "plugins").pick("student_models", "tiny_qwen2").component
    made: PreTrainedTokenizerBase = factory(vocab=300, tags=list(tags)).new_tokenizer(TEXTS)
    return made


def policy(*, seed: int = 0, sharpness: float = 0.2, **changes: Any) -> Policy:
    """A tiny random model with a tokenizer that fits it."""
    return Policy(qwen2(len(tokenizer()), seed=seed, sharpness=sharpness, **changes), tokenizer())


def weights(of: Policy) -> list[torch.Tensor]:
    """A copy of every weight."""
    return [weight.detach().clone() for weight in of.model.parameters()]


def make_step(
    name: str = "grpo_reasoning", *, response_format: Any = "supercot", seed: int = 17, **runtime: Any
) -> Step:
    """A step as `open_step` would make it, on the CPU."""
    return Step(
        name,
        RunSettings(response_format=response_format, seed=seed),
        RuntimeSettings(**{"device": "cpu"} | runtime),
    )


def learner_of(
    of: Policy, settings: OptimizerSettings, step: Step | None = None, reference: Policy | None = None
) -> LocalLearner:
    """A learner as the stage scripts make it."""
    return LocalLearner(
        of, settings, step or make_step(), reference=(lambda: reference) if reference else None
    )


class Recording:
    """In the place of the optimizer: keeps the gradient, changes no weight."""

    learning_rate = 0.0
    gradient = torch.zeros(0)

    def __init__(self, model: torch.nn.Module, *_: object, **__: object) -> None:
        self.parameters = list(model.parameters())

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def step(self) -> float:
        Recording.gradient = torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])
        for parameter in self.parameters:
            parameter.grad = None
        return float(self.gradient.norm())


class Interrupted(Work):
    """Stops at the safe point of that number, as Ctrl-C does. Several processes meet where a save is due."""

    def __init__(self, folder: Path, at: int, *, every_s: float = 1000.0) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, every_s)
        self._left = at

    def safe_point(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.stopping._signal = "Ctrl-C"
        super().safe_point()


class MadeUp:
    """An engine that samples from no model: five tokens that depend on the seed alone."""

    rows = 512

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.versions: list[int] = []

    def generate(self, requests: Sequence[Request], settings: SamplingSettings) -> list[list[Sampled]]:
        self.asked += requests
        return [[self._sampled(seed) for seed in request.seeds] for request in requests]

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        return partial(self.generate, requests, settings)

    def _sampled(self, seed: int) -> Sampled:
        tokens = torch.randint(3, 290, (5,), generator=torch.Generator().manual_seed(seed % 2**32)).tolist()
        return Sampled(tuple(tokens), (-1.0,) * 5, "stop")

    def update(self, source: Source, version: int) -> None:
        self.versions.append(version)

    def close(self) -> None: ...


class Beside(LocalEngine):
    """Samples when it is asked to, from a copy of the weights, as a server does beside a learner."""

    def __init__(self, of: Policy, step: Step) -> None:
        super().__init__(of, step, apart=True)
        self.events: list[str] = []

    def begin(
        self, requests: Sequence[Request], settings: SamplingSettings
    ) -> Callable[[], list[list[Sampled]]]:
        self.events.append("begin")
        found = self.generate(requests, settings)
        return lambda: found

    def update(self, source: Source, version: int) -> None:
        self.events.append(f"update {version}")
        super().update(source, version)


def scorer_of(reward: Callable[[Sequence[int]], float], name: str = "correct") -> Scorer:
    """A scorer of one reward on the token ids of a completion."""
    function = lambda completion_ids: [reward(ids) for ids in completion_ids]  # noqa: E731
    return Scorer((WeightedReward(name, 1.0, function, "toy"),), SUPERCOT, 10.0)


def prompt(number: int = 1, text: str | None = None, answer: str | None = "42", **columns: Any) -> Prompt:
    """A prompt with an id made of its number."""
    content = f"What is {number} times 7?" if text is None else text
    return Prompt(f"p{number}", "toy", ({"role": "user", "content": content},), answer, columns)


def completion(
    of: Prompt, text: str = "", token_ids: Sequence[int] = (), finish: Finish = "stop"
) -> Completion:
    """A completion whose log-probabilities are made up."""
    return Completion(of.id, text, tuple(token_ids), (-1.0,) * len(token_ids), finish, "toy")


def group(of: Prompt, completions: Sequence[Completion], rewards: Sequence[float]) -> Group:
    """Completions with their rewards under the one name `correct`."""
    scores = tuple(Score(reward, {"correct": reward}) for reward in rewards)
    return Group(of, tuple(completions), scores)


def response(reasoning: str = "6*7=42", summary: str = "42", form: TagFormat = SUPERCOT) -> str:
    """A well-formed response."""
    return form.render(reasoning, summary)

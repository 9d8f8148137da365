"""Sequences as the passes that compute them: like lengths together, and shared prompts once.

N prompts, P their width, B rows.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from chainforge.learner.learner import Loss, Sums
from chainforge.models.batch import Batch, Prefix, Tokens, collate, pad_ids
from chainforge.models.policy_model import LogProbs, PolicyModel

Passes = Iterator[tuple[list[int], Batch]]  # (indices of a micro-batch's sequences, the micro-batch)
CASTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # precision -> what weights are cast to
LARGE = 2**20  # elements of the head's weight from which on a second gradient of it is worth avoiding
MOST_PADDING = 1 / 8  # of a micro-batch: on a CPU, about what the fixed costs of one more are worth


def forward_passes(
    model: PolicyModel,
    sequences: Sequence[Tokens],
    most_tokens: int,
    *,
    share: bool = True,
    sparse: bool = False,
) -> Passes:
    """(indices, batch) of all sequences, at most `most_tokens` tokens in memory with padding counted.

    Where completions share their prompts these are computed apart, once, unless `share` is false. Their
    backward pass comes when the iterator goes on after its last micro-batch: so a loop over it runs the
    backward pass of each batch in its body. `sparse` is as in `hidden_states`.
    """
    if not (share and can_share(model, sequences)):
        for indices in micro_batches([len(s) for s in sequences], most_tokens):
            yield indices, collate([sequences[i] for i in indices], model.device)
        return
    for prompts, members, left in by_prompt(sequences, most_tokens, device=model.device.type):
        shared = _SharedPrompts(model, prompts, sparse=sparse)
        number = {tuple(prompt): n for n, prompt in enumerate(prompts)}
        for chosen in micro_batches([len(sequences[i].completion) for i in members], left):
            indices = [members[i] for i in chosen]
            prompt_B = torch.tensor(
                [number[tuple(sequences[i].prompt)] for i in indices], device=model.device
            )
            batch = collate([Tokens((), sequences[i].completion) for i in indices], model.device)
            yield indices, replace(batch, prefix=shared.of(prompt_B.to(model.device)))
        shared.backward()


def backward_passes(
    passes: Passes,
    ask: Callable[[Batch], LogProbs],
    loss: Loss,
    scaled: Callable[[Tensor], Tensor],
) -> tuple[float, Sums]:
    """Add up the gradient, micro-batch by micro-batch; returns the whole loss and its sums.

    `ask` is the model's forward pass, `loss` gets indices, and a backward pass starts from `scaled(loss)`.
    """
    total, sums = 0.0, Sums()
    for indices, batch in passes:
        given = ask(batch)
        if indices:
            part, its_sums = loss(indices, given, batch)
        else:  # only to go through the same layers at the same time as other processes
            part, its_sums = given.logp_BT.sum() * 0, Sums()
        with full_precision(part.device):
            scaled(part).backward()
        total += part.item()
        add_sums(sums, its_sums)
    return total, sums


def add_sums(total: Sums, more: Sums) -> None:
    """Add to the sums of these names."""
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value


def can_share(model: PolicyModel, sequences: Sequence[Tokens]) -> bool:
    """Whether it pays, and no router is to be asked about whole sequences."""
    whole = model.balances_experts and torch.is_grad_enabled()
    return not whole and 2 * len({tuple(s.prompt) for s in sequences}) <= len(sequences)


def micro_batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Indices of all sequences, like lengths together, at most `max_tokens` each with padding counted.

    A micro-batch ends early where its padding would pass a share of that: with lengths as uneven as those of
    sampled completions, filling it up would compute more padding than tokens. A single sequence longer than
    `max_tokens` gets a micro-batch of its own.
    """
    batch: list[int] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch:
            longest = lengths[batch[0]]
            padding += longest - lengths[index]
            if (len(batch) + 1) * longest > max_tokens or padding > max_tokens * MOST_PADDING:
                yield batch
                batch, padding = [], 0
        batch.append(index)
    if batch:
        yield batch


def by_prompt(
    sequences: Sequence[Tokens], most_tokens: int, *, device: str
) -> Iterator[tuple[Sequence[Sequence[int]], list[int], int]]:
    """(prompts, indices of the sequences that have them, tokens left for a micro-batch of their completions).

    As many prompts as make a pass, like lengths together. They are in memory at the same time as a
    micro-batch, so the two share `most_tokens`. Not on a CPU, where that number is about speed.
    """
    on_cpu = device == "cpu"
    members: dict[tuple[int, ...], list[int]] = {}
    for index, sequence in enumerate(sequences):
        members.setdefault(tuple(sequence.prompt), []).append(index)
    distinct = list(members)
    for chosen in micro_batches([len(p) for p in distinct], most_tokens if on_cpu else most_tokens // 2):
        prompts = [distinct[i] for i in chosen]
        taken = 0 if on_cpu else len(prompts) * max(map(len, prompts))
        yield prompts, [index for prompt in prompts for index in members[prompt]], most_tokens - taken


class _SharedPrompts:
    """Keys, values and last hidden states of the prompts.

    To the passes over completions they are leaves of the graph, whose gradients add up in float32; `backward`
    takes the sums through the prompts.
    """

    def __init__(self, model: PolicyModel, prompts: Sequence[Sequence[int]], *, sparse: bool) -> None:
        tokens_NP, self._is_token_NP = pad_ids(prompts, model.device)
        last_NH, states = model.read_prompts(tokens_NP, self._is_token_NP.sum(-1), sparse=sparse)
        self._graph = [last_NH, *states]
        self._leaves = [t.detach().float().requires_grad_(t.requires_grad) for t in self._graph]

    def of(self, prompt_B: Tensor) -> Prefix:
        """What was computed of the prompts with these numbers, a row for each."""
        last_BH, *states = (
            leaf[prompt_B].to(t.dtype) for leaf, t in zip(self._leaves, self._graph, strict=True)
        )
        return Prefix(last_BH, states, self._is_token_NP[prompt_B])

    def backward(self) -> None:
        """Take what the passes over completions left through the prompts; nothing where there was none."""
        pairs = [
            (t, leaf.grad) for t, leaf in zip(self._graph, self._leaves, strict=True) if leaf.grad is not None
        ]
        if pairs:
            torch.autograd.backward([t for t, _ in pairs], [grad.to(t.dtype) for t, grad in pairs])


def begin_head_gradient(model: PreTrainedModel) -> Tensor | None:
    """Zeros that the head adds its gradient to, and an embedding tied to it; None where that saves little."""
    weight = model.get_output_embeddings().weight
    if not (isinstance(weight, Tensor) and weight.requires_grad and weight.numel() >= LARGE):
        return None
    weight.grad = torch.zeros_like(weight)
    return weight.grad


def note_logp(
    found: list[list[float]], own: Sequence[Tokens], indices: Sequence[int], logp_BT: Tensor
) -> None:
    """Keep the log-probabilities of these sequences. An empty micro-batch has a row that is nobody's."""
    for index, logp_T in zip(indices, logp_BT.tolist(), strict=False):
        found[index] = logp_T[: len(own[index].completion)]


def mixed_precision(
    precision: str, device: torch.device, *, keep_casts: bool = True
) -> AbstractContextManager[object]:
    """Inside, matrix products in bfloat16 or float16 over float32 weights, or each in its weights' own type.

    `keep_casts`: each weight is cast once for as long as the outermost block lasts.
    """
    if precision in CASTS:
        return torch.autocast(device.type, dtype=CASTS[precision], cache_enabled=keep_casts)
    return nullcontext()


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Inside, each operation in the precision of its tensors: a backward pass in mixed precision."""
    return torch.autocast(device.type, enabled=False)

"""Log-probabilities of completion tokens: the LM head runs on those positions only, in chunks.

B sequences, S whole length, T completion tokens, M completion tokens of all rows, V vocabulary.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from chainforge.models.batches import Batch

CHUNK_ELEMENTS = 2**26  # logits kept at once: 256 MB in float32


def hidden_at_targets(model: PreTrainedModel, batch: Batch) -> Tensor:
    """hidden_MH: the last hidden state at the position before each completion token."""
    hidden_BSH: Tensor = model.get_decoder()(input_ids=batch.tokens_BS, use_cache=False).last_hidden_state
    return hidden_BSH[:, :-1][batch.target_BS[:, 1:]]


def completion_logprobs(
    model: PreTrainedModel, batch: Batch, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(logp_BT, entropy_BT) in nats under logits / temperature; 0 where padded. Entropy has no gradient."""
    hidden_MH = hidden_at_targets(model, batch)
    targets_M = batch.tokens_BS[batch.target_BS]
    head = model.get_output_embeddings()
    rows = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
    pieces = [
        _chunk(head, hidden, targets, temperature, save_memory=len(targets_M) > rows)
        for hidden, targets in zip(hidden_MH.split(rows), targets_M.split(rows), strict=True)
    ]
    logp_M, entropy_M = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    zeros_BT = torch.zeros(batch.mask_BT.shape, device=logp_M.device)
    return zeros_BT.masked_scatter(batch.mask_BT, logp_M), zeros_BT.masked_scatter(batch.mask_BT, entropy_M)


def _chunk(
    head: torch.nn.Module, hidden_MH: Tensor, targets_M: Tensor, temperature: float, *, save_memory: bool
) -> tuple[Tensor, Tensor]:
    if save_memory and torch.is_grad_enabled():  # several chunks: recompute the logits in the backward pass
        return checkpoint(_logp_and_entropy, head, hidden_MH, targets_M, temperature, use_reentrant=False)  # type: ignore[no-any-return]
    return _logp_and_entropy(head, hidden_MH, targets_M, temperature)


def _logp_and_entropy(
    head: torch.nn.Module, hidden_MH: Tensor, targets_M: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    logp_MV = (head(hidden_MH).float() / temperature).log_softmax(-1)
    with torch.no_grad():
        entropy_M = -(logp_MV.exp() * logp_MV).sum(-1)
    return logp_MV.gather(-1, targets_M[:, None]).squeeze(-1), entropy_M


def distillation_kl(student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch) -> Tensor:
    """KL(teacher || student) in nats, summed over completion tokens.

    Source: Hinton et al., arXiv 1503.02531, at temperature 1, per token.
    """
    logp_student_MV = (
        student.get_output_embeddings()(hidden_at_targets(student, batch)).float().log_softmax(-1)
    )
    with torch.no_grad():
        logits_MV = teacher.get_output_embeddings()(hidden_at_targets(teacher, batch)).float()
        logp_teacher_MV = logits_MV.log_softmax(-1)
    return kl_div(logp_student_MV, logp_teacher_MV, reduction="sum", log_target=True)


def mixed_precision(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 matrix products over float32 master weights, or plain float32."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()

"""Log-probabilities of completion tokens: the LM head runs on those positions only.

B sequences, S whole length, T completion tokens, M completion tokens of all rows, V vocabulary.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedModel

from chainforge.models.batches import Batch
from chainforge.models.head import token_logprobs


def hidden_at_targets(model: PreTrainedModel, batch: Batch) -> Tensor:
    """hidden_MH: the last hidden state at the position before each completion token."""
    if batch.hidden_before:
        return batch.hidden_before(batch.tokens_BS)[batch.mask_BT]
    hidden_BSH: Tensor = model.get_decoder()(input_ids=batch.tokens_BS, use_cache=False).last_hidden_state
    return hidden_BSH[:, :-1][batch.target_BS[:, 1:]]


def completion_logprobs(model: PreTrainedModel, batch: Batch, *, temperature: float = 1.0) -> Tensor:
    """logp_BT in nats under logits / temperature; 0 where padded."""
    return _completion_logprobs(model, batch, temperature, entropy=False)[0]


def logprobs_and_entropy(
    model: PreTrainedModel, batch: Batch, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(logp_BT, entropy_BT) in nats under logits / temperature; 0 where padded. Entropy has no gradient."""
    return _completion_logprobs(model, batch, temperature, entropy=True)


def _completion_logprobs(
    model: PreTrainedModel, batch: Batch, temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor]:
    hidden_MH = hidden_at_targets(model, batch)
    targets_M = batch.tokens_BS[batch.target_BS]
    found = token_logprobs(
        model.get_output_embeddings(), hidden_MH, targets_M, temperature=temperature, entropy=entropy
    )
    zeros_BT = torch.zeros(batch.mask_BT.shape, device=hidden_MH.device)
    logp_BT = zeros_BT.masked_scatter(batch.mask_BT, found[0])
    return logp_BT, zeros_BT.masked_scatter(batch.mask_BT, found[1]) if entropy else zeros_BT


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

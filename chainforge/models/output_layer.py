"""What a causal LM does between its last hidden state and its logits: one place for learner and engine.

Cohere and Granite scale the logits, Gemma caps them smoothly. M tokens, H hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from chainforge.models.head import token_logprobs


@dataclass(frozen=True, slots=True)
class OutputLayer:
    """logits = cap · tanh(scale · head(hidden) / cap), without the tanh where there is no cap."""

    head: nn.Linear
    scale: float = 1.0
    cap: float | None = None

    def logits(self, hidden_MH: Tensor) -> Tensor:
        """logits_MV, in the head's precision."""
        logits_MV: Tensor = self.head(hidden_MH)
        if self.scale != 1:
            logits_MV = logits_MV * self.scale
        return logits_MV if self.cap is None else (logits_MV / self.cap).tanh() * self.cap

    def token_logprobs(
        self,
        hidden_MH: Tensor,
        targets_M: Tensor,
        *,
        temperature: float,
        entropy: bool,
        gradient_VH: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """(logp_M, entropy_M) of the targets under logits / temperature: see `head.token_logprobs`."""
        return token_logprobs(
            self.head,
            hidden_MH,
            targets_M,
            temperature=temperature,
            entropy=entropy,
            gradient_VH=gradient_VH,
            scale=self.scale,
            cap=self.cap,
        )


def output_layer(model: PreTrainedModel) -> OutputLayer:
    """That of a model, as its config has it. One that does something else is refused when it is loaded."""
    config: Any = model.config.get_text_config()
    scale = getattr(model, "logit_scale", None)  # Cohere's; MPT has one in its config, and does not use it
    divisor = getattr(config, "logits_scaling", None)  # Granite's
    return OutputLayer(
        model.get_output_embeddings(),
        scale=float(scale if scale is not None else 1 / (divisor or 1.0)),
        cap=getattr(config, "final_logit_softcapping", None),  # Gemma's
    )

"""The copy of a policy that samples: the policy itself in float32, rounded weights in bfloat16."""

import torch
from fakes import make_step, policy

from chainforge.config.run import RunSettings
from chainforge.rollout.complete import sampling_model
from chainforge.run.step import Step


def bfloat16_step() -> Step:
    step = make_step()
    return Step(step.name, RunSettings(precision="bfloat16"), step.runtime)


def test_in_float32_it_is_the_policy_itself() -> None:
    made = policy()
    assert sampling_model(made, make_step()) is made.model


def test_in_bfloat16_weights_are_rounded_and_nothing_else() -> None:
    made = policy(tie_word_embeddings=True)
    made.model.model.embed_tokens.weight.grad = torch.ones_like(made.model.model.embed_tokens.weight)
    copy = sampling_model(made, bfloat16_step())
    assert copy.dtype == torch.bfloat16
    for ours, theirs in zip(copy.parameters(), made.model.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())
        assert ours.grad is None
        assert theirs.dtype == torch.float32
    assert copy.get_output_embeddings().weight is copy.get_input_embeddings().weight
    buffers = dict(made.model.named_buffers())
    assert any(name.endswith("inv_freq") for name in buffers)
    for name, buffer in copy.named_buffers():
        assert buffer.dtype == torch.float32
        assert torch.equal(buffer, buffers[name])


def test_a_far_token_turns_by_the_angle_that_training_turns_it_by() -> None:
    made = policy(max_position_embeddings=4096)
    copy = sampling_model(made, bfloat16_step())
    far = torch.tensor([[4000]])
    for ours, theirs in zip(
        copy.model.rotary_emb(torch.zeros(1), far),
        made.model.model.rotary_emb(torch.zeros(1), far),
        strict=True,
    ):
        assert torch.equal(ours, theirs)

"""What the policy is compared with: itself as it was at the start of the step, or when it was last moved."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from torch import Tensor

from chainforge.models.adapters import adapter_off, adapter_set_to, adapter_weights
from chainforge.models.policy_model import PolicyModel
from chainforge.run.shared_saves import place_like


class Reference(Protocol):
    """Its state is empty until it is moved: before, it is what the step began with."""

    def computing(self) -> AbstractContextManager[PolicyModel]:
        """Inside, the model given computes as the reference."""

    def move(self) -> None:
        """Make it what the policy is now."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> None: ...


class SecondModel:
    """A model of its own, beside a policy of which all weights are trained."""

    def __init__(self, policy: PolicyModel, model: PolicyModel) -> None:
        self._policy, self._model, self._moved = policy, model, False

    @contextmanager
    def computing(self) -> Iterator[PolicyModel]:
        yield self._model

    def move(self) -> None:
        self.load_state_dict(self._policy.state_dict())

    def state_dict(self) -> dict[str, Tensor]:
        return self._model.state_dict() if self._moved else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        # it may have been read whole: before it has moved nobody could know which parts of it to read
        self._model.load_state_dict(place_like(state, self._model.state_dict()))
        self._moved = True


class WithoutAdapter:
    """The policy itself with its adapter off; once it was moved, with the adapter as it was then."""

    def __init__(self, policy: PolicyModel) -> None:
        self._policy, self._adapter = policy, dict[str, Tensor]()

    @contextmanager
    def computing(self) -> Iterator[PolicyModel]:
        changed = adapter_set_to(self._policy, self._adapter) if self._adapter else adapter_off(self._policy)
        with changed:
            yield self._policy

    def move(self) -> None:
        self._adapter = {
            name: weight.detach().clone() for name, weight in adapter_weights(self._policy).items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self._adapter

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._adapter = place_like(state, self._policy.state_dict())

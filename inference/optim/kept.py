"""What gradient steps change beside the parameters of a plan, as parts of a checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor


class Leaves:
    """Parameters as they are."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self._params = params

    def state(self) -> list[Tensor]:
        """Return their values."""
        return list(self._params)

    @torch.no_grad()
    def restore(self, state: Sequence[Tensor]) -> None:
        """Set them to values."""
        for p, value in zip(self._params, state, strict=True):
            p.copy_(value)


class Memory:
    """What an optimiser, one of torch's or `Optimiser`, remembers."""

    def __init__(self, optimiser: Any) -> None:
        self._optimiser = optimiser

    def state(self) -> dict[str, Any]:
        """Return its dictionary."""
        return self._optimiser.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Give it a dictionary."""
        self._optimiser.load_state_dict(state)


class Calls:
    """A function that counts its calls in ``.calls``, or none that does."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def state(self) -> int | None:
        """Return how often it was called."""
        return getattr(self._function, "calls", None)

    def restore(self, state: int | None) -> None:
        """Set how often it was called."""
        if state is not None:
            self._function.calls = state


class Untrained:
    """Tensors that steps change without a gradient: buffers of modules, and baselines in Pyro's store."""

    def __init__(self, params: Sequence[Tensor], *owners: Any) -> None:
        self._known = {id(p) for p in params}
        self._modules = [owner for owner in owners if isinstance(owner, torch.nn.Module)]

    def state(self) -> Mapping[str, Tensor]:
        """Return their values by name."""
        found = {
            f"module {number}: {name}": buffer
            for number, module in enumerate(self._modules)
            for name, buffer in module.named_buffers()
        }
        store = pyro.get_param_store().named_parameters()
        return found | {f"store: {name}": leaf for name, leaf in store if id(leaf) not in self._known}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set those that are there to values."""
        for name, value in self.state().items():
            if name in state:
                value.copy_(state[name])

"""A model that is fitted to many data sets of one shape: what has been recorded of it for one serves the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor


class Recurring:
    """A model, and where graphs of it are kept in which data are inputs.

    Parameters
    ----------
    model : callable
    varying : sequence of int
        Positions of the arguments that differ from one data set to the next.

    Attributes
    ----------
    graphs : dict
        What methods have recorded, by their own keys.
    """

    def __init__(self, model: Callable, varying: Sequence[int]) -> None:
        self.model, self.varying = model, tuple(varying)
        self.graphs: dict[Any, Any] = {}

    def __call__(self, *data: Any) -> Any:
        """Run the model."""
        return self.model(*data)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process is sent: it records its own graphs."""
        return vars(self) | {"graphs": {}}


class Observing:
    """A model as a function of the values that it observes, its own arguments held.

    For models of which no argument is what they observe, or whose prior depends on it.
    """

    def __init__(self, model: Callable, data: tuple, names: Sequence[str]) -> None:
        self.model, self.data, self.names = model, data, tuple(names)

    def __call__(self, *values: Tensor) -> Any:
        """Run the model with these values of the observed sites, in the order of ``names``."""
        with Observe(dict(zip(self.names, values, strict=True))):
            return self.model(*self.data)


class Observe(Messenger):
    """Observes sites at given values, whatever the model observes there."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.values:
            msg.update(value=self.values[msg["name"]], is_observed=True)

"""Fits of one method to simulated data: called as it wants to be, and with enough effective draws."""

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..posterior import Posterior
from ..traces.guides import display_name, is_family
from .quantities import METHOD, Quantities
from .ranks import effective_draws
from .simulate import Simulations

MOST_RUNS = 3  # of a sampler on one data set
GROWTH, RESERVE = 8.0, 1.3  # of the number of draws, at most, and beyond what effective draws ask for


class Tally(NamedTuple):
    """The counts of `Fits`."""

    failed: int
    few: int
    unconverged: int
    first_error: str


class Fits:
    """A method, ready to be called on simulated data.

    Attributes
    ----------
    name : str
        Of the method and its guide.
    is_guide : bool
        Whether draws are those of a fitted distribution rather than of chains or a closed form.
    failed, few, unconverged : int
        Fits so far that ended in an error; with too few effective draws; that said themselves that they are not done.
    first_error : str
    """

    def __init__(
        self, method: Callable[..., Any], guide: Callable | None, simulated: Simulations, num_draws: int
    ) -> None:
        if not callable(method):
            raise ValueError(f"{METHOD}: method must be a function, such as nuts; got {type(method).__name__}")
        self._simulated, self._num_draws = simulated, num_draws
        taken = list(inspect.signature(method).parameters.values())
        self._takes = {p.name for p in taken if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in taken)
        names = [p.name for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._call = method
        if names[:1] == ["model"]:
            self._call = self._with_model(method, guide, names)
        elif guide is not None:
            raise ValueError(f"{METHOD}: guide goes with methods that take a model, such as svi")
        elif simulated.own_arguments is not None:
            raise ValueError(f"{METHOD}: {simulated.own_arguments}")
        self.failed = self.few = self.unconverged = 0
        self.first_error, self.name, self.is_guide = "", _name(method), False

    def _with_model(self, method: Callable[..., Any], guide: Callable | None, names: list[str]) -> Callable[..., Any]:
        model: Any = self._simulated.model
        if isinstance(model.model, torch.nn.Module):
            model = model.model
        bound = partial(method, model)
        if guide is None:
            if names[1:2] == ["guide"]:
                raise ValueError(f"{METHOD}: {_name(method)} needs a guide: give guide=, a guide or a guide family")
            return bound
        if "guide" not in self._takes:
            raise ValueError(f"{METHOD}: {_name(method)} takes no guide")
        if not is_family(guide) and self._simulated.own_arguments is not None:
            raise ValueError(f"{METHOD}: {self._simulated.own_arguments}")
        return partial(method, model, guide) if names[1:2] == ["guide"] else partial(method, model, guide=guide)

    def draws(self, row: int, seed: int, quantities: Callable[[Posterior], Quantities]) -> Mapping[str, Tensor] | None:
        """Return so many draws, (1, draw, *site), of a fit to one data set; None if it failed."""
        posterior, runs = self._fit(row, seed), 1
        if posterior is None:
            return None
        size, effective = _sizes(posterior, quantities(posterior))
        while effective < self._num_draws and runs < MOST_RUNS and self._accepts("num_draws"):
            growth = min(GROWTH, RESERVE * self._num_draws / max(effective, 1))
            length = next(iter(posterior.draws.values())).shape[1]
            posterior, runs = self._fit(row, seed, num_draws=math.ceil(growth * length)), runs + 1
            if posterior is None:
                return None
            size, effective = _sizes(posterior, quantities(posterior))
        if size < self._num_draws:
            wanted = f"true values are ranked among {self._num_draws}"
            raise ValueError(f"{METHOD}: {self.name} gives {size} draws, and {wanted}")
        self.few += effective < self._num_draws
        self.unconverged += _is_unfinished(posterior)
        places = torch.arange(self._num_draws) * size // self._num_draws
        return {name: value.flatten(0, 1)[places][None] for name, value in posterior.draws.items()}

    @property
    def tally(self) -> Tally:
        """The counts so far."""
        return Tally(self.failed, self.few, self.unconverged, self.first_error)

    def count(self, others: Tally) -> None:
        """Add the counts of fits that another process has made."""
        self.failed += others.failed
        self.few += others.few
        self.unconverged += others.unconverged
        self.first_error = self.first_error or others.first_error

    def uncounted(self) -> "Fits":
        """Return the same with counts of its own, from zero."""
        other = copy.copy(self)
        other.failed = other.few = other.unconverged = 0
        other.first_error = ""
        return other

    def _fit(self, row: int, seed: int, **options: Any) -> Posterior | None:
        options |= {k: v for k, v in {"seed": seed, "progress": False}.items() if self._accepts(k)}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what fits say of themselves is counted
                posterior = self._call(*self._simulated.data[row], **options)
        except (ArithmeticError, ValueError, RuntimeError) as error:
            self.failed += 1
            self.first_error = self.first_error or str(error).strip().split("\n")[0][:200].rstrip(".")
            return None
        if not isinstance(posterior, Posterior):
            raise ValueError(f"{METHOD}: {self.name} returned {type(posterior).__name__}, and not a Posterior")
        if posterior.info.is_point:
            raise ValueError(
                f"{METHOD}: {posterior.info.method} gives a point, among whose draws nothing can be ranked"
            )
        self.name = ":".join(filter(None, (posterior.info.method, posterior.info.guide)))
        self.is_guide = posterior.info.elbo is not None or posterior.info.guide is not None
        return posterior

    def _accepts(self, name: str) -> bool:
        return self._takes_all or name in self._takes


def _sizes(posterior: Posterior, quantities: Quantities) -> tuple[int, float]:
    """Return how many draws there are, and how many effective ones."""
    size = math.prod(next(iter(posterior.draws.values())).shape[:2])
    if posterior.info.r_hat is None:
        return size, size
    return size, effective_draws(quantities.of(posterior.draws))


def _is_unfinished(posterior: Posterior) -> bool:
    """Whether a fit says that it has not converged, or that transitions diverged; R̂ of short chains says little."""
    if posterior.info.r_hat is None:
        return not posterior.info.converged
    divergences = posterior.info.divergences
    return divergences is not None and bool(divergences.any())


def _name(method: Callable) -> str:
    while isinstance(method, partial):
        method = method.func
    return display_name(method)

"""Models and data that more than one area measures."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guidebook import datasets
from guidebook.models import gmm, logistic, ppca

from . import schools


class Problem(NamedTuple):
    """A Pyro model, its data in float64, and what removes its symmetries from draws."""

    name: str
    model: Callable[..., Any]
    data: tuple[Tensor, ...]
    identify: Callable[[dict[str, Tensor]], dict[str, Tensor]]

    def cast(self, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, ...]:
        return tuple(value.to(device, dtype) for value in self.data)


def problem(name: str) -> Problem:
    """One of `NAMES`."""
    if name == "logistic":
        cancer = datasets.load("breast_cancer", supervised=True, standardize=True)
        assert cancer.y is not None
        return Problem("logistic, breast_cancer", logistic.model, (cancer.x, cancer.y), logistic.identify)
    if name == "gmm":
        model = partial(gmm.model, num_components=3)
        return Problem("GMM, iris, K=3 full", model, (datasets.load("iris").x,), gmm.identify)
    if name == "ppca":
        wine = datasets.load("wine", standardize=True).x
        return Problem("PPCA, wine, q=2", partial(ppca.model, latent_dim=2), (wine,), ppca.identify)
    return Problem("eight schools", schools.eight_schools, (schools.ERROR, schools.EFFECT), schools.identify)


NAMES = ("logistic", "gmm", "ppca", "schools")

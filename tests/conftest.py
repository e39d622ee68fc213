"""Shared data and the slow fits that several tests look at from different sides."""

from jaxtyping import install_import_hook

with install_import_hook("guidebook.models", "beartype.beartype"):  # shape annotations are checked in tests only
    import guidebook.models  # noqa: F401

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_iris
from torch.utils._python_dispatch import TorchDispatchMode

from guidebook import cli
from guidebook.inference import Posterior, nuts
from guidebook.models import logistic

torch.set_num_threads(1)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that an operation made; views, and arguments under another name, are none."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        places = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for value in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in places:
                self.numbers = max(self.numbers, value.numel())
        return made


@pytest.fixture
def largest() -> Largest:
    """Use as a context, and look at ``numbers``."""
    return Largest()


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    """Every test draws the same numbers, alone or after others; what it puts into Pyro's global store stays its own."""
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; return its exit status, standard output and standard error."""

    def run(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["guidebook", *map(str, words)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def iris() -> torch.Tensor:
    return torch.tensor(load_iris().data)


@pytest.fixture(scope="session")
def breast_cancer() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_breast_cancer()
    x = torch.tensor(data.data)
    return (x - x.mean(0)) / x.std(0, correction=0), torch.tensor(data.target).double()


@pytest.fixture(scope="session")
def logistic_nuts(breast_cancer: tuple[torch.Tensor, torch.Tensor]) -> Posterior:
    """Reference for breast_cancer: about 4,000 effective draws of the worst coefficient."""
    return nuts(logistic.model, *breast_cancer, seed=1, progress=False)

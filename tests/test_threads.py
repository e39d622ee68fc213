"""How many threads the command gives a fit: one for small data, unless the user has said how many."""

import functools
from collections.abc import Callable, Iterator

import joblib
import pytest
import torch

from guidebook.catalog import METHODS
from guidebook.inference.mcmc import workers
from guidebook.workflow.threads import LARGE, num_threads, threads_for


@pytest.fixture(autouse=True)
def _four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def numbers(count: int) -> tuple[torch.Tensor, ...]:
    """Two arguments of a model with so many numbers in all."""
    return torch.empty(count - 10), torch.empty(10)


@pytest.mark.parametrize(("count", "threads"), [(LARGE - 1, 1), (LARGE, 4)])
def test_small_data_are_fitted_by_one_thread(count: int, threads: int) -> None:
    assert num_threads(numbers(count)) == threads
    with threads_for(numbers(count)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4


def test_what_the_user_says_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert num_threads(numbers(100)) == 4  # what torch has made of it


def test_a_command_fits_small_data_by_one_thread(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    em, seen = METHODS["em"].function, []

    @functools.wraps(em)
    def watched(*args, **kwargs):
        seen.append(torch.get_num_threads())
        return em(*args, **kwargs)

    monkeypatch.setitem(METHODS, "em", METHODS["em"]._replace(function=watched))
    assert call("run", "gmm", "--method", "em")[0] == 0
    assert seen == [1]


@pytest.mark.slow
def test_workers_share_the_threads() -> None:
    found = workers.parallel(2)(joblib.delayed(torch.get_num_threads)() for _ in range(2))
    assert found == [2, 2]

"""What a fit takes: memory of its draws, estimated before it begins, and time, as soon as its pace is known."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace

from guidebook.inference.progress import announced
from guidebook.inference.traces.sites import is_deterministic, is_latent, is_local, nodes
from guidebook.models._shared.memory import free_memory

COPIES = 4  # of the draws at once, while figures are computed from them
ENOUGH = 2**22  # numbers in all the draws of a guide, beyond which fewer are drawn
FEWEST = 1000  # draws of a guide that are made all the same: fewer are too noisy to judge


def numbers_per_draw(model: Callable, args: tuple, *, with_local: bool = True) -> dict[str, int]:
    """Return how many numbers each latent or deterministic site of a model has, the largest first.

    ``with_local`` says whether sites with a value per row are drawn, too.
    """
    with torch.no_grad(), torch.random.fork_rng(), pyro.get_param_store().scope():
        trace = poutine.trace(model).get_trace(*args)
    return numbers_in(trace, args, with_local=with_local)


def numbers_in(trace: Trace, args: tuple, *, with_local: bool = True) -> dict[str, int]:
    """Return what `numbers_per_draw` does, of a model that has been run."""
    sizes = {
        name: int(site["value"].numel())
        for name, site in nodes(trace).items()
        if (is_latent(site) or is_deterministic(site)) and (with_local or not is_local(site, args))
    }
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def affordable_draws(wanted: int, sizes: Mapping[str, int]) -> int:
    """Return how many draws of a guide to make by default: as many as are wanted, or fewer of many numbers."""
    return min(wanted, max(FEWEST, ENOUGH // max(1, sum(sizes.values()))))


def check_memory(name: str, num_draws: int, sizes: Mapping[str, int], available: int | None = None) -> None:
    """Raise ValueError, naming the largest site, if so many draws do not fit into memory.

    Parameters
    ----------
    name : str
        The model's.
    num_draws : int
        Of all chains.
    sizes : dict of int
        As `numbers_per_draw` returns them.
    available : int, optional
        Bytes of memory; default: what is free.
    """
    total = sum(sizes.values())
    needed = COPIES * 8 * num_draws * total
    free = free_memory() if available is None else available
    if needed > free:
        largest, numbers = next(iter(sizes.items()))
        raise ValueError(
            f"{name}: {num_draws:,} draws of {total:,} numbers each, {numbers:,} of them in {largest}, take about "
            f"{needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: use fewer columns or draws, or a smaller model"
        )


def time_said() -> AbstractContextManager[None]:
    """Have chains that take more than half a minute say so on standard error, once, where no bar shows it."""
    return announced(lambda sentence: print(f"guidebook: {sentence}", file=sys.stderr, flush=True))

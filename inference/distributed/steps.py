"""Data-parallel gradient steps: means over the ranks, and parameters that are the same on all of them.

The gradients go round in one vector, as in DistributedDataParallel with a single bucket, after the backward pass: so
every loss of Pyro's serves, also one that calls ``backward`` itself, and a guide that is a function.

Li, Zhao, Varma, Salpekar, Noordhuis, Li, Paszke, Smith, Vaughan, Damania and Chintala (2020), PyTorch distributed:
experiences on accelerating data parallel training, PVLDB 13, section 3.2.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.fingerprint import fingerprint
from ..optim.callback import Callback
from .ranks import Ranks
from .streams import own_noise


class Averaged:
    """An estimate of the loss and its gradient whose values are means over the ranks.

    Each rank estimates them by rows and noise of its own, the rows scaled up to stand for all: so the mean is the
    estimate by the rows of all ranks together. The loss must be the same everywhere too, since it decides when to stop.
    """

    def __init__(self, estimate: Callable[..., Any], params: Sequence[Tensor], ranks: Ranks) -> None:
        self._estimate, self._params, self._ranks = estimate, params, ranks
        self._dtype = reduce(torch.promote_types, (p.dtype for p in params))

    def __call__(self, *data: Any) -> float:
        """Estimate the loss in nats; set the parameters' ``.grad``, to None if it is so on all ranks."""
        loss = float(self._estimate(*data))
        device = self._params[0].device
        there = [p.grad is not None for p in self._params]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._params]
        told = torch.tensor([loss, *there], dtype=self._dtype, device=device)
        everything = torch.cat([told, *(part.reshape(-1).to(told) for part in parts)])
        self._ranks.add(everything)
        told, *means = everything.split([len(told), *(p.numel() for p in self._params)])
        loss, *counts = told.tolist()
        for p, mean, count in zip(self._params, means, counts, strict=True):
            p.grad = (mean / self._ranks.size).view_as(p).to(p) if count else None
        return loss / self._ranks.size


def agreed(callback: Callback | None, untrained: Callable[[], Mapping[str, Tensor]], ranks: Ranks) -> Callback:
    """Return a callback that holds the ranks together, and calls that of the caller on the first one.

    ``untrained`` returns tensors that change without a gradient, such as running means: all get the first rank's.
    ArithmeticError if parameters differ.
    """

    def told(step: int, loss: float, params: dict[str, Tensor]) -> bool:
        ends = bool(callback(step, loss, params)) if callback is not None and ranks.is_first else False
        found = ranks.gather((fingerprint(params), ends))
        if apart := [rank for rank, (made, _) in enumerate(found) if made != found[0][0]]:
            raise ArithmeticError(
                f"{ranks.method}: after {step:,} steps the parameters of ranks {', '.join(map(str, apart))} differ "
                "from those of rank 0: all need the same versions of the libraries and the same kind of processor"
            )
        ranks.share(list(untrained().values()))
        return found[0][1]

    return told


def together(
    estimate: Callable[..., Any],
    callback: Callback | None,
    params: Sequence[Tensor],
    untrained: Callable[[], Mapping[str, Tensor]],
    seed: int,
    ranks: Ranks,
) -> tuple[Callable[..., Any], Callback | None]:
    """Return `Averaged` and `agreed` forms of an estimate and a callback; as they are where a rank is alone.

    All ranks start from the parameters of the first, which some take from their first batch, with noise of their own.
    """
    if ranks.size == 1:
        return estimate, callback
    ranks.share([*params, *untrained().values()])
    own_noise(seed, ranks.rank)
    return Averaged(estimate, params, ranks), agreed(callback, untrained, ranks)


def check_same(ranks: Ranks, **given: Any) -> None:
    """Raise ValueError, naming what differs, unless all ranks give the same values."""
    if ranks.size > 1:
        found = ranks.gather({name: fingerprint(_on_cpu(value)) for name, value in given.items()})
        if apart := [name for name in given if len({each[name] for each in found}) > 1]:
            raise ValueError(
                f"{ranks.method}: {', '.join(apart)} differ between the {ranks.size} ranks: every rank makes the same "
                "call, with all of the data, of which each takes its own rows"
            )


def _on_cpu(value: Any) -> Any:
    """Return a value with its tensors on the CPU: each rank may have a device of its own."""
    if isinstance(value, Tensor):
        return value.cpu()
    return tuple(_on_cpu(each) for each in value) if isinstance(value, tuple) else value

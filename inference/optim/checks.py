"""What `svi` refuses before it begins."""

from typing import Any

from ..options import at_least_one, positive
from ..traces.guides import display_name

ENGINES = ("auto", "eager", "compiled")


def check_options(
    num_steps: int | str,
    engine: str,
    alternate: int | None,
    loss: Any,
    callback: Any,
    num_ranks: int,
    *,
    lr: float,
    **counts: int | None,
) -> int | None:
    """Raise ValueError, in svi's name, for options out of range, or that do not go together.

    Return the number of steps, None for "auto".
    """
    if isinstance(num_steps, str) and num_steps != "auto":
        raise ValueError(f'svi: num_steps must be "auto" or a number, got {num_steps!r}')
    counted = None if isinstance(num_steps, str) else num_steps
    at_least_one("svi", num_steps=counted, alternate=alternate, **counts)
    positive("svi", lr=lr)
    if engine not in ENGINES:
        raise ValueError(f"svi: engine must be one of {', '.join(ENGINES)}; got {engine!r}")
    if engine == "compiled" and alternate is not None:
        raise ValueError("svi: alternate takes its steps one by one: remove engine='compiled'")
    if engine == "compiled" and num_ranks > 1:
        raise ValueError(f"svi: {num_ranks} ranks take their steps one by one: remove engine='compiled'")
    if engine == "compiled" and getattr(loss, "changes", False):
        raise ValueError(f"svi: {display_name(loss)} changes from step to step: remove engine='compiled'")
    if callback is not None and not callable(callback):
        raise ValueError(f"svi: callback must be a function (step, loss, params), got {type(callback).__name__}")
    return counted


def check_restarts(num_restarts: int, by_hand: Any, init: Any, source: Any, num_ranks: int) -> None:
    """Raise ValueError where there is nothing that restarts could choose."""
    at_least_one("svi", num_restarts=num_restarts)
    if num_restarts == 1:
        return
    if by_hand is not None:
        raise ValueError(
            "svi: num_restarts needs a guide family, such as mean_field: a guide that is given starts as it is"
        )
    if init is not None:
        raise ValueError("svi: num_restarts looks for a start, and init gives one: remove one of them")
    if source is not None or num_ranks > 1:
        raise ValueError("svi: num_restarts needs all rows in one process: give tensors, without torchrun")


def check_started(num_restarts: int, unit_scale: Any) -> None:
    """Raise ValueError if restarts were asked for, and there is no start by a normal."""
    if num_restarts > 1 and unit_scale is None:
        raise ValueError(
            "svi: num_restarts serves mean_field, full_rank, low_rank and flow, on models without parameters, with 200 "
            "latent numbers and a million in the data at most, and with batch_size without latent sites per row"
        )


def check_unwatched(callback: Any) -> None:
    """Raise ValueError for a callback where points are fitted by Newton's method or L-BFGS."""
    if callback is not None:
        raise ValueError(
            "svi: a point is fitted by Newton's method or L-BFGS, which call nothing: give optim=torch.optim.Adam with "
            "the callback, or leave it out"
        )

"""Gradient steps in compiled code where that can be had, and why not where it cannot."""

import warnings
from collections.abc import Callable
from typing import Any

from pyro.infer import ELBO
from torch import Tensor

from .rules import not_compiled, rule_of


def steps_compiled(
    loss: Any, model: Callable, guide: Callable, *args: Any, required: bool, optim: Any, **options: Any
) -> Tensor | None:
    """Take the steps of `fit_eagerly`, compiled; None if they cannot be, unless that is ``required``."""
    from ..engines.graph import CannotCompile  # imported where used: eager steps need none of it

    try:
        from ..engines.compiled import fit_compiled

        if required or (isinstance(loss, ELBO) and rule_of(optim) is not None):
            return fit_compiled(loss, model, guide, *args, optim=optim, **options)
    except (CannotCompile, ImportError) as reason:
        if required:
            raise ValueError(f"svi: the steps cannot be compiled: {reason}") from None
        warnings.warn(f"svi: the steps are taken one by one, since they cannot be compiled: {reason}", stacklevel=7)
    return None


def why_eager(optim: Any) -> str:
    """Return a clause that says why steps that are worth compiling were not, if the optimiser is the reason."""
    return f"; steps were taken one by one, since {not_compiled(optim)}" if rule_of(optim) is None else ""

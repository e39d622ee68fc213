"""Models whose parameters are held where they are, by methods that draw latent sites and learn nothing else."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .params import constrained_params
from .prepare import Prepared, prepare


def prepare_held(
    method: str,
    model: Callable,
    data: tuple,
    device: str | torch.device | None,
    params: Mapping[str, Tensor] | None,
    *,
    least_dtype: torch.dtype | None = None,
    stacklevel: int = 4,
) -> Prepared:
    """Return a model as `prepare` does, with a warning if it has parameters that are held without being given."""
    prepared = prepare(method, model, data, device=device, params=params, least_dtype=least_dtype)
    if prepared.held:
        warnings.warn(
            f"{method}: the model's parameters {', '.join(prepared.held)} are held at their initial values, and not "
            "drawn: give params={name: value}, or priors",
            stacklevel=stacklevel,
        )
    weights = sorted(constrained_params(prepared.trace).keys() - prepared.params.keys())
    if not weights:
        return prepared
    listed = ", ".join(weights[:3]) + (", …" if len(weights) > 3 else "")
    return replace(prepared, notes=(*prepared.notes, f"weights of modules are held as they are ({listed})"))

"""Images as data that a likelihood can have made: ones and zeros, or real numbers without gaps.

Scores of models of binary images compare only where the images were made binary in the same way: ones and zeros
drawn anew at every step are a larger data set than ones drawn once, and worth about two nats on MNIST.

References
----------
1. Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks, ICML: intensities as
   probabilities.
2. Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, ICLR: dequantisation.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor


def binarise(
    x: Tensor, mode: Literal["fixed", "dynamic", "threshold"] = "fixed", *, threshold: float = 0.5, seed: int = 0
) -> Tensor:
    """Ones and zeros from intensities.

    Parameters
    ----------
    x : Tensor, any shape
        Intensities, from 0 to 1.
    mode : {"fixed", "dynamic", "threshold"}
        "fixed": ones with the intensities for probabilities, drawn by a generator of its own, so that the same seed
        gives the same data. "dynamic": likewise, by torch's own generator, so that every call gives others; see
        `redrawn` for a fit to them. "threshold": ones above ``threshold``.
    threshold : float
    seed : int
        For "fixed".

    Raises
    ------
    ValueError
        If an intensity lies outside [0, 1], or the mode is unknown.
    """
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError(
            f"binarise: intensities must lie between 0 and 1, got {float(x.min()):g} to {float(x.max()):g}"
        )
    if mode == "threshold":
        return (x > threshold).to(x.dtype)
    if mode == "dynamic":
        return torch.bernoulli(x)
    if mode != "fixed":
        raise ValueError(f"binarise: unknown mode {mode!r}: there is fixed, dynamic and threshold")
    return torch.bernoulli(x, generator=torch.Generator(x.device).manual_seed(seed))


def dequantise(x: Tensor, levels: int = 256, *, seed: int = 0) -> Tensor:
    """(x + u) / levels with u uniform on [0, 1): real numbers in [0, 1) from whole ones.

    A density of real numbers has no bound on whole ones; that of the result, minus d log(levels), is a lower bound on
    the log probability of the whole numbers (Theis et al. 2016, section 3.1).

    Parameters
    ----------
    x : Tensor, any shape
        Whole numbers from 0 to ``levels`` - 1.
    levels : int
    seed : int
        Of a generator of its own.

    Raises
    ------
    ValueError
        If the data are not such numbers.
    """
    if not ((x >= 0) & (x < levels) & (x == x.floor())).all():
        raise ValueError(f"dequantise: levels must be whole numbers from 0 to {levels - 1}")
    noise = torch.rand(x.shape, generator=torch.Generator(x.device).manual_seed(seed), dtype=x.dtype, device=x.device)
    return (x + noise) / levels


def redrawn(loss: Any) -> Callable[..., Tensor]:
    """A loss whose rows are drawn anew from intensities at every step, the same for model and guide.

    A fit is given the intensities as a second argument of the data, which model and guide pass over, and rows to start
    from and to report on as the first, so that nothing but ones and zeros ever meets the model::

        svi(with_intensity(model), with_intensity(encoder), binarise(x), x, loss=redrawn(Trace_ELBO()), batch_size=128)

    Parameters
    ----------
    loss : pyro.infer.ELBO or callable
        One of Pyro's, or ``(model, guide, *data) -> Tensor``.
    """
    evaluate = getattr(loss, "differentiable_loss", loss)

    def redrawn_loss(model: Callable, guide: Callable, x: Tensor, intensity: Tensor) -> Tensor:
        return evaluate(model, guide, binarise(intensity, "dynamic"), intensity)

    return redrawn_loss


def with_intensity(function: Callable) -> Callable:
    """A model or a guide of ``(x, intensity)`` that passes over the intensity; see `redrawn`."""

    def of_rows(x: Tensor, intensity: Tensor) -> Any:
        return function(x)

    return of_rows

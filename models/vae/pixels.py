"""Images as data that a likelihood can have made: ones and zeros, or real numbers without gaps.

Compare scores of models of binary images only if the images were made binary in the same way: ones and zeros drawn
anew at every step are a larger data set than those drawn once, which is worth about two nats on MNIST.

References
----------
1. Salakhutdinov and Murray (2008), On the quantitative analysis of deep belief networks, ICML: intensities as
   probabilities.
2. Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, ICLR: dequantisation.
"""

from typing import Literal

import torch
from torch import Tensor


def binarise(
    x: Tensor, mode: Literal["fixed", "dynamic", "threshold"] = "fixed", *, threshold: float = 0.5, seed: int = 0
) -> Tensor:
    """Return ones and zeros from intensities.

    Parameters
    ----------
    x : Tensor, any shape
        Intensities, from 0 to 1.
    mode : {"fixed", "dynamic", "threshold"}
        "fixed": ones with the intensities as probabilities, the same for the same seed. "dynamic": likewise, but from
        torch's global generator, so that every call gives new data. "threshold": ones above ``threshold``.
    threshold : float
        An intensity; for "threshold".
    seed : int
        For "fixed".

    Raises
    ------
    ValueError
        If an intensity lies outside [0, 1], or the mode is unknown.
    """
    if not ((x >= 0) & (x <= 1)).all():
        low, high = float(x.min()), float(x.max())
        raise ValueError(f"binarise: intensities must lie between 0 and 1, got {low:g} to {high:g}")
    if mode == "threshold":
        return (x > threshold).to(x.dtype)
    if mode == "dynamic":
        return torch.bernoulli(x)
    if mode != "fixed":
        raise ValueError(f"binarise: unknown mode {mode!r}: there is fixed, dynamic and threshold")
    return torch.bernoulli(x, generator=torch.Generator(x.device).manual_seed(seed))


def dequantise(x: Tensor, levels: int = 256, *, seed: int = 0) -> Tensor:
    """Return (x + u) / levels with u uniform on [0, 1): real numbers in [0, 1) from whole ones.

    A density can be unbounded on whole numbers. The expected log density of the result, minus d log(levels), is a lower
    bound on the log probability of the whole numbers (Theis et al. 2016, section 3.1).

    Parameters
    ----------
    x : Tensor, any shape
        Whole numbers from 0 to ``levels`` - 1.
    levels : int
    seed : int
        The global generator is not used.

    Raises
    ------
    ValueError
        If the data are not such numbers.
    """
    if not ((x >= 0) & (x < levels) & (x == x.floor())).all():
        raise ValueError(f"dequantise: levels must be whole numbers from 0 to {levels - 1}")
    noise = torch.rand(x.shape, generator=torch.Generator(x.device).manual_seed(seed), dtype=x.dtype, device=x.device)
    return (x + noise) / levels

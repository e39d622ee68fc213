"""From figures to a judgement: is an approximation good enough, and may the reference judge it?

Thresholds. Means: .25 of the reference's sd, the pass mark of Stan's stat_comp_benchmarks; .10 for "good".
Standard deviations: within 10 % for "good", 25 % for "usable". Reference: R̂ up to 1.01, an effective sample size of at
least 100 per chain for four chains (Vehtari et al. 2021), no divergences.
A figure exceeds a threshold only if it does so by more than two Monte Carlo standard errors, or more if there are many
quantities: by so much that chance makes any mean or standard deviation exceed it in one of twenty comparisons. The
largest R̂ and Monte Carlo error and the least effective sample size of many quantities are likewise judged as such.
Errors of sds are those of their logarithms: they are relative, so that a spread several times too wide is bad however
ill it is known.

Pareto's k̂ is named as evidence and changes no judgement. It is above .7 on posteriors that are right in every mean and
sd, and below it on some that are far too narrow. For the same reason it cannot make an approximation a reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from .diagnostics import MAX_CHANCE, MAX_K_HAT, MAX_R_HAT, MIN_ESS, least_ess
from .posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

GOOD_SHIFT, USABLE_SHIFT = 0.10, 0.25
GOOD_RATIO, USABLE_RATIO = 1.10, 1.25
MAX_MCSE = 0.10  # Monte Carlo error of a mean, in sds, or of an sd, relative, above which nothing is known
MIN_MARGIN = 2.0  # Monte Carlo standard errors
TOO_FEW = "too few effective draws"  # the fault that makes no draw a wrong one


class Verdict(NamedTuple):
    """What `compare` says of one posterior.

    Attributes
    ----------
    judgement : str
        "good", "usable", "bad", "point" (no spread to judge), "too few draws" or "not judged"; of the reference,
        "reference" or "refused".
    sentence : str
        The same in words, with the figures behind it and what to call next.
    """

    judgement: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class Grade(NamedTuple):
    """What figures of quantities come to.

    Attributes
    ----------
    judgement : str
        "good", "usable", "bad" or "cannot say".
    off_centre, too_narrow, too_wide : ndarray of bool, shape (quantity,)
        Where a figure is beyond what is usable, whatever its error.
    unknown : ndarray of bool, shape (quantity,)
        Where none is for certain, and an error hides whether one is.
    """

    judgement: str
    off_centre: np.ndarray
    too_narrow: np.ndarray
    too_wide: np.ndarray
    unknown: np.ndarray


class Certain(NamedTuple):
    """How far figures are off for certain, each of shape (quantity,).

    Attributes
    ----------
    off : ndarray
        Distance of the means, in sds of the reference, less some standard errors; negative where these are larger.
    narrow, wide : ndarray
        Logarithm of the reference's sd over the other's, and of the other's over the reference's, likewise.
    """

    off: np.ndarray
    narrow: np.ndarray
    wide: np.ndarray

    @classmethod
    def of(
        cls, shift: ArrayLike, ratio: ArrayLike, error_of_shift: ArrayLike, error_of_ratio: ArrayLike, *, errors: float
    ) -> Certain:
        """Return what is left of figures, those of `grade`, less so many of their standard errors."""
        with np.errstate(all="ignore"):
            log_ratio, allowed = np.log(np.asarray(ratio, float)), errors * relative_error(error_of_ratio, ratio)
            off = np.abs(np.asarray(shift, float)) - errors * np.asarray(error_of_shift, float)
            return cls(off, -log_ratio - allowed, log_ratio - allowed)

    def over(self, shift: float, ratio: float) -> Certain:
        """Return each as a multiple of a limit, of a shift in sds or of a ratio above 1."""
        return Certain(self.off / shift, self.narrow / np.log(ratio), self.wide / np.log(ratio))

    def worst(self, shift: float, ratio: float) -> np.ndarray:
        """Return the largest multiple of a limit, shape (quantity,); a nan if any is."""
        return np.max(self.over(shift, ratio), axis=0)


def grade(shift: ArrayLike, ratio: ArrayLike, error_of_shift: ArrayLike, error_of_ratio: ArrayLike) -> Grade:
    """Judge quantities by their figures, all of shape (quantity,), with the thresholds of `compare`.

    A figure beyond what is usable by more than `margin` of its errors is bad, however large these are. If none is, and
    some error is above `max_mcse`, or a figure is not a number, it cannot be said. Otherwise the worst figure decides.

    Parameters
    ----------
    shift : array_like
        Difference of the means, in sds of the reference.
    ratio : array_like
        Standard deviation over the reference's.
    error_of_shift, error_of_ratio : array_like
        Their standard errors, in the same units.
    """
    shift, ratio, error_of_shift, error_of_ratio = (
        np.asarray(values, float) for values in (shift, ratio, error_of_shift, error_of_ratio)
    )
    certain = Certain.of(shift, ratio, error_of_shift, error_of_ratio, errors=margin(len(shift)))
    off_centre, too_narrow, too_wide = (part > 1 for part in certain.over(USABLE_SHIFT, USABLE_RATIO))
    bad = off_centre | too_narrow | too_wide
    largest = np.maximum(error_of_shift, relative_error(error_of_ratio, ratio))
    is_known = largest <= max_mcse(len(shift))  # a nan is not
    unknown = ~bad & ~(is_known & np.isfinite(shift) & np.isfinite(ratio))
    good = certain.worst(GOOD_SHIFT, GOOD_RATIO) <= 1
    judgement = "bad" if bad.any() else "cannot say" if unknown.any() else "good" if good.all() else "usable"
    return Grade(judgement, off_centre, too_narrow, too_wide, unknown)


def grade_of(quantities: pd.DataFrame) -> Grade:
    """Return the `grade` of quantities as in `Comparison`."""
    return grade(*(quantities[c] for c in ("mean_shift_in_sd", "sd_ratio", "mcse_in_sd", "sd_ratio_error")))


def relative_error(error: ArrayLike, ratio: ArrayLike) -> np.ndarray:
    """Return the standard error of the logarithm of a ratio, from that of the ratio; 0 for a ratio of 0."""
    error, ratio = np.asarray(error, float), np.asarray(ratio, float)
    with np.errstate(all="ignore"):
        return np.where(ratio == 0, 0.0, error / ratio)


def is_sampler(posterior: Posterior) -> bool:
    """Return whether the draws come from Markov chains."""
    return posterior.info.r_hat is not None


def margin(count: int) -> float:
    """Return by how many standard errors figures of ``count`` quantities, a mean and an sd each, may be off."""
    return max(MIN_MARGIN, float(-ndtri(MAX_CHANCE / (2 * count))))


def max_mcse(count: int) -> float:
    """Return the largest Monte Carlo error that ``count`` means or sds may have: as `least_ess` to its estimate."""
    return MAX_MCSE * (MIN_ESS / least_ess(count)) ** 0.5


def is_apart(quantities: pd.DataFrame) -> bool:
    """Return whether draws tell of different places: chains disagree, means are off, or nothing can be said."""
    too_few = quantities["mcse_in_sd"] > max_mcse(len(quantities))
    return bool((quantities["disagrees"] | grade_of(quantities).off_centre | too_few).any())


def distance(quantities: pd.DataFrame) -> pd.Series:
    """Return each quantity's mean shift or log sd ratio, whichever is the larger multiple of its limit of "usable"."""
    shift = quantities["mean_shift_in_sd"].abs() / USABLE_SHIFT
    with np.errstate(divide="ignore"):
        ratio = quantities["sd_ratio"].apply(np.log).abs() / np.log(USABLE_RATIO)
    return np.fmax(shift, ratio)  # pyright: ignore[reportReturnType] (a Series of Series; a point has no ratio)


def problems(posterior: Posterior, quantities: pd.DataFrame) -> dict[str, str]:
    """Return why draws may not represent the distribution they came from: faults of `advice`, each in words."""
    found = {}
    if not np.isfinite(quantities["mean"]).all():
        found["not finite"] = "some of its draws are not finite"
    if not is_sampler(posterior):
        return (
            found
            if posterior.info.converged
            else found | {"not converged": f"it has not converged ({posterior.info.message})"}
        )
    if np.any(quantities["disagrees"]):
        worst, r_hat = _largest(quantities["r_hat"][quantities["disagrees"]])
        found["chains disagree"] = f"its chains disagree (R̂ {r_hat:.4f} at {worst}, at most {MAX_R_HAT} allowed)"
    least, ess = quantities["ess"].idxmin(), np.min(quantities["ess"])
    if ess < (needed := least_ess(len(quantities))):
        found[TOO_FEW] = f"it has {TOO_FEW} ({ess:,.0f} at {least}, {needed:,.0f} needed)"
    divergences = posterior.info.divergences
    if divergences is not None and (diverged := int(divergences.sum())):
        transitions = "one transition" if diverged == 1 else f"{diverged} transitions"
        found["diverged"] = f"{transitions} diverged, so parts of the posterior were not reached"
    return found


def reference_problems(posterior: Posterior, quantities: pd.DataFrame) -> dict[str, str]:
    """Return why a posterior is not fit to judge others: faults of `advice`, each in words; empty if it is fit."""
    if np.all(quantities["sd"].isna()):
        return {"a point": "it is a point, without a spread to measure others by"}
    k = posterior.info.k_hat
    if k is not None or posterior.info.elbo is not None or posterior.info.guide:
        words = "it is an approximation at an unknown distance from the posterior"
        if k is not None:
            limit = f" > {MAX_K_HAT} warns of it" if k > MAX_K_HAT else " cannot rule out that it is far"
            words += f" (k̂ = {k:.2f}{limit})"
        return {"an approximation": words}
    return problems(posterior, quantities)


def _largest(values: Any) -> tuple[str, float]:
    return str(values.idxmax()), float(values.max())

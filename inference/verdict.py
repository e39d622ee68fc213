"""From figures to a sentence: is an approximation good enough, and may the reference judge it?

Thresholds. Means: .25 of the reference's sd, the pass mark of Stan's stat_comp_benchmarks; .10 for "good".
Standard deviations: within 10 % for "good", 25 % for "usable". k̂: .7 (Vehtari et al. 2024). Reference: R̂ up to 1.01,
an effective sample size of at least 100 a chain for four chains (Vehtari et al. 2021), no divergences.
A figure counts as beyond a threshold only where it is so by more than two Monte Carlo standard errors.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from .diagnostics import MAX_K_HAT, MAX_R_HAT, MIN_ESS
from .posterior import Posterior

GOOD_SHIFT, USABLE_SHIFT = 0.10, 0.25
GOOD_RATIO, USABLE_RATIO = 1.10, 1.25
BLURRED = 0.10  # Monte Carlo error of a mean, in sds, above which nothing can be said
MARGIN = 2.0


class Verdict(NamedTuple):
    """What `compare` says of one posterior.

    Attributes
    ----------
    judgement : str
        "good", "usable", "bad", "point" (no spread to judge), "too few draws" or "not judged".
    sentence : str
        The same in words, with the figures behind it.
    """

    judgement: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def is_sampler(posterior: Posterior) -> bool:
    """Whether the draws come from Markov chains."""
    return posterior.info.r_hat is not None


def sampling_problem(posterior: Posterior, quantities: pd.DataFrame) -> str | None:
    """Why draws cannot be trusted to stand for the posterior they came from, if so; for samplers and guides alike.

    Parameters
    ----------
    posterior : Posterior
    quantities : DataFrame
        A row an identified quantity, with columns ``r_hat`` and ``ess``.
    """
    problems = []
    if is_sampler(posterior):
        worst = quantities["r_hat"].idxmax()
        r_hat = np.max(quantities["r_hat"])
        if r_hat > MAX_R_HAT:
            problems.append(f"its chains disagree (R̂ {r_hat:.4f} at {worst}, at most {MAX_R_HAT} allowed)")
        least = quantities["ess"].idxmin()
        ess = np.min(quantities["ess"])
        if ess < MIN_ESS:
            problems.append(f"it has too few effective draws ({ess:,.0f} at {least}, {MIN_ESS} needed)")
        divergences = posterior.info.divergences
        if divergences is not None and (diverged := int(divergences.sum())):
            transitions = "one transition" if diverged == 1 else f"{diverged} transitions"
            problems.append(f"{transitions} diverged, so that parts of the posterior were not reached")
    elif not posterior.info.converged:
        problems.append(f"it {posterior.info.message}")
    return "; ".join(problems) or None


def reference_problem(posterior: Posterior, quantities: pd.DataFrame) -> str | None:
    """Why a posterior is not fit to judge others, if so."""
    if np.all(quantities["sd"].isna()):
        return "it is a point, without a spread to measure others by"
    k = posterior.info.k_hat
    if k is None and not is_sampler(posterior):
        return "it is an approximation, and how far it is from the posterior is not known"
    if k is not None and k > MAX_K_HAT:
        return f"it is an approximation whose importance weights are heavy-tailed (k̂ {k:.2f}, above {MAX_K_HAT})"
    return sampling_problem(posterior, quantities)


def judge(name: str, reference: str, posterior: Posterior, quantities: pd.DataFrame) -> Verdict:
    """Say how good ``posterior`` is beside a reference that is fit to judge.

    Parameters
    ----------
    name, reference : str
        What to call the two.
    posterior : Posterior
    quantities : DataFrame
        A row an identified quantity, with columns ``mean_shift_in_sd``, ``sd_ratio``, ``mcse_in_sd``,
        ``sd_ratio_error``, ``r_hat``, ``ess``.
    """
    distance = quantities["mean_shift_in_sd"].abs()
    shift, worst_shift = np.max(distance), distance.idxmax()
    signed = quantities.loc[worst_shift, "mean_shift_in_sd"]
    if np.all(quantities["sd"].isna()):
        where = "within a quarter sd of" if shift <= USABLE_SHIFT else f"{shift:.2g} sd off"
        return Verdict(
            "point",
            f"{name} is a point and says nothing of uncertainty; at worst its value is {where} the mean of "
            f"{reference} ({worst_shift}: {signed:+.2f} sd).",
        )
    blurred = np.max(quantities["mcse_in_sd"])
    if blurred > BLURRED:
        return Verdict(
            "too few draws",
            f"{name} cannot be judged: Monte Carlo error is {blurred:.2f} sd at {quantities['mcse_in_sd'].idxmax()}; "
            f"take about {(blurred / BLURRED) ** 2 * 2:.0f} times as many draws.",
        )

    certain = distance - MARGIN * quantities["mcse_in_sd"]
    ratio, error = quantities["sd_ratio"], MARGIN * quantities["sd_ratio_error"]
    narrow, wide = ratio + error, ratio - error
    problem = sampling_problem(posterior, quantities)
    k = posterior.info.k_hat
    heavy = k is not None and k > MAX_K_HAT
    too_narrow, too_wide = np.sum(narrow < 1 / USABLE_RATIO), np.sum(wide > USABLE_RATIO)
    off = np.sum(certain > USABLE_SHIFT)

    faults = []
    if too_narrow:
        least = f"at {ratio.idxmin()} its sd is {ratio.min():.2f} of {reference}'s"
        faults.append(f"too narrow ({_of(too_narrow, quantities)}; {least})")
    if too_wide:
        most = f"at {ratio.idxmax()} its sd is {ratio.max():.2f} times {reference}'s"
        faults.append(f"too wide ({_of(too_wide, quantities)}; {most})")
    if off:
        faults.append(f"off centre ({_of(off, quantities)}; at {worst_shift} its mean is {signed:+.2f} sd away)")
    tail = _k_hat_words(k, bool(faults))
    if faults:
        rest = "" if off else f" Its means are within {shift:.2f} sd."
        sentence = f"{name} is bad: {' and '.join(faults)}.{rest}{tail}{_also(problem)}{_advice(too_narrow, too_wide)}"
        return Verdict("bad", sentence)
    if problem:
        return Verdict("bad", f"{name} is bad: {problem}.")

    figures = f"means within {shift:.2f} sd of {reference}'s, sds {ratio.min():.2f} to {ratio.max():.2f} of its"
    close = np.all(certain <= GOOD_SHIFT) and np.all(narrow >= 1 / GOOD_RATIO) and np.all(wide <= GOOD_RATIO)
    if close and not heavy:
        return Verdict("good", f"{name} is good: {figures}.{tail}")
    return Verdict("usable", f"{name} is usable: {figures}.{tail}")


def _of(count: int, quantities: pd.DataFrame) -> str:
    return f"{count} of {len(quantities)} quantities"


def _k_hat_words(k: float | None, faulty: bool) -> str:
    if k is None:
        return ""
    if k > MAX_K_HAT:
        return f" k̂ {k:.2f}, above {MAX_K_HAT}, {'says so too' if faulty else 'warns that its joint shape differs'}."
    return f" k̂ {k:.2f} {'does not see it' if faulty else 'agrees'}."


def _also(problem: str | None) -> str:
    return f" Moreover {problem}." if problem else ""


def _advice(too_narrow: int, too_wide: int) -> str:
    if too_narrow:
        return " Intervals from it promise too much: take a richer guide, or NUTS."
    if too_wide:
        return " Intervals from it are wider than the data warrant: take a richer guide, or NUTS."
    return ""

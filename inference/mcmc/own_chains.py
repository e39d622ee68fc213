"""What a sampler's chains say of themselves: whether they may judge others, and whether more draws would do."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..advice import NEARLY_MIXED
from ..compare import compare
from ..posterior import Posterior
from ..verdict import TOO_FEW, reference_problems


class OwnChains(NamedTuple):
    """What `by_own_chains` returns.

    Attributes
    ----------
    judgement : str
        "good" or "cannot say".
    sentence : str
        The same in words.
    problems : str
        Why the draws may not judge others; empty if they may.
    are_merely_few : bool
        Whether that is for want of draws alone, so that these may be good nevertheless.
    """

    judgement: str
    sentence: str
    problems: str
    are_merely_few: bool


def by_own_chains(name: str, posterior: Posterior, **options: Any) -> OwnChains:
    """Judge a sampler's draws as the reference of `compare` is judged; options are those of `compare`."""
    beside_itself = compare(posterior, posterior, names=[name, "itself"], **options)
    words = beside_itself.verdicts[name].sentence.replace("the reference", "good", 1)
    if not beside_itself.refused:
        return OwnChains("good", words, "", False)
    figures = beside_itself.quantities[name]
    faults = {*reference_problems(posterior, figures)}
    few = TOO_FEW in faults and faults <= {TOO_FEW, "chains disagree"} and np.max(figures["r_hat"]) < NEARLY_MIXED
    what = "to be judged by its own chains alone" if few else "to be believed"
    return OwnChains("cannot say", words.replace("fit to judge", what, 1), beside_itself.refused, bool(few))

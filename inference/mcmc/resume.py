"""Chains that go on where they stood: the same step size and metric, without warm-up, and draws that are joined."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diagnostics import of_sites
from ..info import ChainsInfo, GibbsInfo
from ..posterior import Posterior
from ..traces.potential import Potential
from ..traces.prepare import Prepared
from ..traces.sites import nodes
from ..traces.vectors import as_sites
from .chains import ChainOptions, Chains, ChainState, divergence
from .fast_start import FastStart, fast_start

PER_DRAW = ("energy", "tree_depth", "diverging")  # fields of shape (chain, draw)


def begin(
    method: str, init: Posterior | None, prepared: Prepared, options: ChainOptions
) -> tuple[ChainOptions, FastStart | None, list[ChainState] | None]:
    """Return options for this part of the chains, and the starts or else the states that ``init`` gives them, if any.

    Without warm-up chains go on where those of ``init`` stood. A ValueError, in the method's name, says if it has none.
    """
    if init is None:
        return options, None, None
    if options.num_warmup:
        return options, fast_start(method, prepared, init, options.num_chains, options.seed), None
    states = chain_states(method, init, prepared, options.num_chains)
    return options._replace(seed=continued_seed(options.seed, init)), None, states


def chain_states(method: str, init: Posterior, prepared: Prepared, num_chains: int) -> list[ChainState]:
    """Return the states of the chains of an earlier run, one per chain.

    A ValueError, in the method's name, says if there are none, of this method and this model, or of another number.
    """
    info: Any = init.info
    instead = "give num_warmup, to start at its draws"
    if info.method != method:
        raise ValueError(
            f"{method}: num_warmup=0 goes on with chains of {method}, and init is by {info.method}: {instead}"
        )
    if info.ends is None:
        raise ValueError(f"{method}: init was saved by an earlier version, without where its chains stood: {instead}")
    if len(info.ends) != num_chains:
        raise ValueError(f"{method}: init has {len(info.ends)} chains, and num_chains is {num_chains}")
    joint = prepared.log_joint()
    values = Potential(joint).unconstrained({name: nodes(joint.prototype)[name]["value"] for name in joint.latent})
    shapes = {name: value.shape for name, value in values.items()}
    size = sum(shape.numel() for shape in shapes.values())
    if size != info.ends.shape[1]:
        raise ValueError(f"{method}: init has chains in {info.ends.shape[1]} dimensions, and the model has {size}")
    metrics = info.proposal if method == "metropolis" else info.inverse_mass
    return [
        ChainState(as_sites(end.to(next(iter(values.values()))), shapes), float(step), metric.to(prepared.dtype))
        for end, step, metric in zip(info.ends, info.step_size, metrics, strict=True)
    ]


def continued_seed(seed: int, init: Posterior) -> int:
    """Return a seed that is another one after every part of a chain, so that parts do not share random numbers."""
    drawn = next(iter(init.draws.values())).shape[1]
    return int(np.random.SeedSequence([seed, drawn]).generate_state(1)[0])


def joined(first: Posterior, second: Posterior) -> Posterior:
    """Return the draws of two runs of a sampler, one after the other in each chain, with diagnostics over all.

    A ValueError says if they are not runs of one sampler, with as many chains of the same sites.
    """
    if not isinstance(first.info, ChainsInfo | GibbsInfo) or second.info.method != first.info.method:
        by = f"{first.info.method} and {second.info.method}"
        raise ValueError(f"append: draws are joined of two runs of one sampler, and these are by {by}")
    shapes = [{name: (len(v), *v.shape[2:]) for name, v in one.draws.items()} for one in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError("append: the two runs have not the same sites, shapes and number of chains")
    draws = {name: torch.cat([value, second.draws[name]], 1) for name, value in first.draws.items()}
    counts = [next(iter(one.draws.values())).shape[1] for one in (first, second)]
    chains = Chains(draws, {}, *of_sites(draws), first.info.seconds + second.info.seconds)
    merged = _merged(vars(first.info), vars(second.info), counts)
    diverged = merged.get("divergences")
    chains = chains._replace(sample_stats={} if diverged is None else {"divergences": diverged})
    problems = [words for words in (divergence(chains), chains.disagreement) if words]
    said = f"drew {sum(counts)} in each of {len(next(iter(draws.values())))} chains, in parts"
    info = replace(
        second.info,
        **merged,
        seed=first.info.seed,
        seconds=chains.seconds,
        r_hat=chains.r_hat,
        ess=chains.ess,
        converged=not problems,
        message="; ".join([said, *problems]),
    )
    return Posterior(draws=draws, params=second.params, info=info)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any], counts: list[int]) -> dict[str, Any]:
    """Return the fields of both runs that are sums, means or series over draws."""

    def over(name: str, merge: Callable[[Any, Any], Tensor]) -> dict[str, Tensor | None]:
        one, other = first.get(name), second.get(name)
        missing = one is None or other is None
        return {name: None if missing else merge(one, other)} if name in first else {}

    return {
        "num_warmup": first["num_warmup"],
        **over("divergences", torch.add),
        **over("accept_rate", lambda one, other: (counts[0] * one + counts[1] * other) / sum(counts)),
        **{name: value for each in PER_DRAW for name, value in over(each, _one_after_the_other).items()},
    }


def _one_after_the_other(first: Tensor, second: Tensor) -> Tensor:
    return torch.cat([first, second], 1)

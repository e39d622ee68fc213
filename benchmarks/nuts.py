"""Effective draws a second by NUTS, compilation included, against Pyro's NUTS and NumPyro's.

Every run has a process of its own and double precision; seconds go from the call to the draws, without imports and
reading data. The effective size is the least one of all identified quantities.
"""

import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch

from .measure import Record, in_process, quartiles, record, smallest_ess
from .peers.problems import problem

CHAINS = 4
OVER_PYRO = {"logistic": 20.0, "gmm": 20.0, "ppca": 20.0, "schools": 10.0}
METHODS = ("vectorized", "parallel", "sequential")


def rows(quick: bool) -> Iterator[Record]:
    for name in ("logistic", "schools") if quick else OVER_PYRO:
        yield from _model(name, quick)


def _model(name: str, quick: bool) -> Iterator[Record]:
    draws, few, repeats = (500, 100, 1) if quick else (1000, 300, 5)
    masses = (False,) if quick else (True, False)
    options: dict[str, Any] = {"name": name, "num_draws": draws}
    choices = [{"method": method, "dense": dense} for method, dense in product(METHODS[: 2 if quick else 3], masses)]
    tried = [in_process("nuts:numpyros", **options, **choice, seed=0) for choice in choices]
    choice = max(zip(tried, choices, strict=True), key=lambda pair: rate(pair[0]))[1]
    mine: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for seed in range(1, repeats + 1):
        mine.append(in_process("nuts:ours", **options, engine="xla", seed=seed))
        theirs.append(in_process("nuts:numpyros", **options, **choice, seed=seed))
    by_pyro = [in_process("nuts:pyros", name=name, num_draws=few, dense=dense, seed=1) for dense in masses]
    best = max(by_pyro, key=rate)
    agree = in_process("nuts:density_gap", name=name)["gap"]
    line = partial(
        record, "nuts", f"NUTS, {problem(name).name}", ours=list(map(rate, mine)), unit="min ESS/s", higher=True
    )
    yield line(
        peer=f"NumPyro, {choice['method']}, {_mass(choice['dense'])}",
        theirs=list(map(rate, theirs)),
        asked=1.0,
        what=f"{CHAINS} × ({draws} warm-up + {draws}); ours {_said(mine)}, NumPyro {_said(theirs)}; its method and "
        f"mass matrix are the best of {len(tried)} tried; the log densities agree to {agree:.0e}",
    )
    yield line(
        peer=f"Pyro, {_mass(best['dense'])}",
        theirs=[rate(best)],
        asked=OVER_PYRO[name],
        what=f"Pyro once, 2 × ({few} + {few}), chains in turn, the best of {len(by_pyro)} mass matrices tried, started "
        f"where ours is: {_said([best])}",
    )


def density_gap(name: str, points: int = 3) -> dict[str, float]:
    """Largest relative gap between the log joints of NumPyro's model and ours, at draws from the prior."""
    import jax
    import numpy as np
    import pyro
    from numpyro.infer.util import log_density
    from pyro import poutine

    from guidebook.inference.traces.sites import is_latent, nodes

    from .peers.numpyro_models import prepared

    found, gaps = problem(name), []
    with jax.enable_x64(True):
        model, arguments, _ = prepared(name, tuple(value.numpy() for value in found.data))
        joint = jax.jit(lambda sites: log_density(model, arguments, {}, sites)[0])
        for seed in range(points):
            pyro.set_rng_seed(seed)
            trace = poutine.trace(found.model).get_trace(*found.data)
            sites = {n: np.asarray(site["value"]) for n, site in nodes(trace).items() if is_latent(site)}
            theirs, ours = float(joint(sites)), float(trace.log_prob_sum())
            gaps.append(abs(theirs - ours) / abs(ours))
    return {"gap": max(gaps)}


def rate(run: dict[str, Any]) -> float:
    return run["ess"] / run["seconds"]


def _said(runs: list[dict[str, Any]]) -> str:
    size, seconds = (quartiles([run[key] for run in runs])[0] for key in ("ess", "seconds"))
    return f"{size:.0f} effective draws in {seconds:.2f} s"


def _mass(dense: bool) -> str:
    return "dense mass" if dense else "diagonal mass"


def ours(name: str, num_draws: int, engine: str, seed: int, num_chains: int = CHAINS) -> dict[str, Any]:
    """One run of `guidebook.inference.nuts`, its defaults."""
    from guidebook.inference import nuts

    if engine == "xla":
        import guidebook.inference.engines.xla.chains  # noqa: F401
    found = problem(name)
    smallest_ess({"x": torch.randn(2, 10)})  # imports what the diagnostics take
    options: dict[str, Any] = {"num_draws": num_draws, "num_warmup": num_draws, "num_chains": num_chains}
    begin = time.perf_counter()
    posterior = nuts(found.model, *found.data, engine=engine, seed=seed, progress=False, **options)
    taken = time.perf_counter() - begin
    assert posterior.info.engine == engine
    return {"seconds": taken, "ess": smallest_ess(found.identify(dict(posterior.draws)))}


def pyros(name: str, num_draws: int, dense: bool, seed: int, num_chains: int = 2) -> dict[str, Any]:
    """One run of Pyro's own sampler."""
    import pyro
    from pyro.infer import MCMC, NUTS
    from pyro.infer.autoguide import init_to_uniform

    from guidebook.inference.traces.draws import all_sites
    from guidebook.inference.traces.prepare import prepare

    def start(site: dict[str, Any]) -> Any:
        init = site["infer"].get("init")
        return init_to_uniform(site) if init is None else init().expand(site["fn"].shape()).clone()

    found = problem(name)
    pyro.set_rng_seed(seed)
    begin = time.perf_counter()
    kernel = NUTS(found.model, full_mass=dense, init_strategy=start)
    chains = MCMC(
        kernel,
        num_samples=num_draws,
        warmup_steps=num_draws,
        num_chains=num_chains,
        disable_progbar=True,
    )
    chains.run(*found.data)
    draws = {site: value for site, value in chains.get_samples(group_by_chain=True).items()}
    taken = time.perf_counter() - begin
    joint = prepare("nuts", found.model, found.data).log_joint()
    flat = all_sites(joint, {n: v.flatten(0, 1) for n, v in draws.items()})
    by_chain = {n: v.unflatten(0, (num_chains, num_draws)) for n, v in flat.items()}
    return {"seconds": taken, "ess": smallest_ess(found.identify(by_chain)), "dense": dense}


def numpyros(
    name: str, num_draws: int, method: str, dense: bool, seed: int, num_chains: int = CHAINS
) -> dict[str, Any]:
    """One run of NumPyro's sampler on the model written for it by hand."""
    import numpyro

    if method == "parallel":
        numpyro.set_host_device_count(num_chains)
    numpyro.enable_x64()
    import jax
    import numpy as np
    from numpyro.infer import MCMC, NUTS

    from .peers.numpyro_models import prepared

    found = problem(name)
    model, data, start = prepared(name, tuple(value.numpy() for value in found.data))
    begin = time.perf_counter()
    chains = MCMC(
        NUTS(model, dense_mass=dense, init_strategy=start),
        num_warmup=num_draws,
        num_samples=num_draws,
        num_chains=num_chains,
        chain_method=method,
        progress_bar=False,
    )
    chains.run(jax.random.PRNGKey(seed), *data)
    draws = {site: np.array(value) for site, value in chains.get_samples(group_by_chain=True).items()}
    taken = time.perf_counter() - begin
    return {
        "seconds": taken,
        "ess": smallest_ess(found.identify({site: torch.from_numpy(value) for site, value in draws.items()})),
    }

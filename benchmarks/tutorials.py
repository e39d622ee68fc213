"""NUTS on twelve models of the kind that tutorials teach, against NumPyro's: wall time, and how far the figures differ.

The models are those of ``tests/zoo/tutorials.py``. Every run has a process of its own and double precision; seconds go
from the call to the draws, compilation included, without imports. ``python -m benchmarks.tutorials FILE.json`` writes
the reference figures of NumPyro's long runs that the tests use.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .measure import ROOT, Record, bound, in_process, record

sys.path.append(str(ROOT / "tests"))
from zoo.tutorials import TUTORIALS

CHAINS = 4
METHODS = ("parallel", "vectorized", "sequential")
LARGEST_Z = 4.0  # some 300 figures all told: exceeded by chance in one run of fifty


def rows(quick: bool) -> Iterator[Record]:
    for name in ("eight schools", "change point") if quick else TUTORIALS:
        yield from _model(name, METHODS[:1] if quick else METHODS, 1 if quick else 3)


def _model(name: str, methods: tuple[str, ...], repeats: int) -> Iterator[Record]:
    tried = {method: in_process("tutorials:numpyros", name=name, method=method, seed=0) for method in methods}
    best = min(tried, key=lambda method: tried[method]["seconds"])
    mine: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for seed in range(1, repeats + 1):
        mine.append(in_process("tutorials:ours", name=name, seed=seed))
        theirs.append(in_process("tutorials:numpyros", name=name, method=best, seed=seed))
    engines = sorted({run["engine"] for run in mine})
    yield record(
        "tutorials",
        f"NUTS, {name}",
        f"NumPyro, {best}",
        [run["seconds"] for run in mine],
        [run["seconds"] for run in theirs],
        "s",
        asked=2.0,
        share=True,
        what=f"wall time of {CHAINS} × (1000 warm-up + 1000) at the defaults, compilation included; engine "
        f"{', '.join(engines)}; best of {len(methods)} chain methods tried; divergences {_divergences(mine)} in ours, "
        f"{_divergences(theirs)} in NumPyro's",
    )
    gaps = [z_scores(a["figures"], b["figures"]) for a, b in zip(mine, theirs, strict=True)]
    yield bound(
        "tutorials",
        f"NUTS, {name}, largest z",
        [float(np.abs(gap).max()) for gap in gaps],
        "errors",
        asked=LARGEST_Z,
        what=f"largest of {len(gaps[0])} differences of means and standard deviations from NumPyro's, in combined "
        "Monte Carlo errors",
    )


def _divergences(runs: list[dict[str, Any]]) -> str:
    return ", ".join(str(run["divergences"]) for run in runs)


def z_scores(ours: dict[str, Any], theirs: dict[str, Any]) -> np.ndarray:
    """Differences of all means and sds of `figures`, in combined Monte Carlo errors."""
    found = []
    for name, values in ours.items():
        for key in ("mean", "sd"):
            gap = np.subtract(values[key], theirs[name][key])
            found.append(gap / np.hypot(values[f"{key}_error"], theirs[name][f"{key}_error"]))
    return np.concatenate(found)


def figures(quantities: dict[str, Tensor]) -> dict[str, dict[str, list[float]]]:
    """Mean, standard deviation and their Monte Carlo errors, entry by entry, of draws (chain, draw, …)."""
    from guidebook.inference.diagnostics import mcse

    found = {}
    for name, draws in quantities.items():
        values = draws.double().flatten(2) if draws.dim() > 2 else draws.double()[..., None]
        parts = {
            "mean": values.mean((0, 1)),
            "mean_error": mcse(values),
            "sd": values.std((0, 1)),
            "sd_error": mcse(values, "sd"),
        }
        found[name] = {key: part.tolist() for key, part in parts.items()}
    return found


def density_gap(name: str) -> dict[str, float]:
    """Return the `largest_gap` between a model of ours and NumPyro's."""
    from .peers.tutorials import MODELS

    return {"gap": largest_gap(TUTORIALS[name].model, MODELS[name], lambda: (TUTORIALS[name].data(), {}))}


def largest_gap(
    make: Callable[[], Callable[..., None]],
    twin: Callable[..., None],
    data: Callable[[], tuple[tuple[Tensor, ...], dict[str, Tensor]]],
    points: int = 3,
) -> float:
    """Return the largest relative gap between the log joints of a Pyro model and its twin in NumPyro, in float64.

    Discrete sites are summed out in both. ``make`` returns ours, and ``data`` the models' arguments, by place and by
    name; both are called with float64 as the default.
    """
    import jax
    import pyro
    from numpyro.infer.util import log_density
    from pyro.infer.mcmc.util import initialize_model

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        model, (args, named) = make(), data()
        pyro.set_rng_seed(0)
        start, potential, transforms, _ = initialize_model(model, args, named)
        pairs = []
        for _ in range(points):
            free = {site: value + 0.3 * torch.randn_like(value) for site, value in start.items()}
            sites = {site: transforms[site].inv(value) for site, value in free.items()}
            change = sum(transforms[site].log_abs_det_jacobian(sites[site], free[site]).sum() for site in sites)
            pairs.append((sites, float(change - potential(free))))
    finally:
        torch.set_default_dtype(default)
    with jax.enable_x64(True):
        arrays = tuple(jax.numpy.asarray(value.numpy()) for value in args)
        by_name = {name: jax.numpy.asarray(value.numpy()) for name, value in named.items()}
        joint = jax.jit(lambda sites: log_density(twin, arrays, by_name, sites)[0])
        return max(abs(float(joint({n: v.numpy() for n, v in sites.items()})) / ours - 1) for sites, ours in pairs)


def ours(name: str, seed: int) -> dict[str, Any]:
    """One run of `guidebook.inference.nuts`, its defaults."""
    import guidebook.inference.engines.xla.chains  # noqa: F401
    from guidebook.inference import nuts

    torch.set_default_dtype(torch.float64)
    tutorial = TUTORIALS[name]
    model, data = tutorial.model(), tutorial.data()
    figures({"x": torch.randn(2, 10)})  # imports what the diagnostics take
    begin = time.perf_counter()
    posterior = nuts(model, *data, seed=seed, progress=False)
    taken = time.perf_counter() - begin
    assert posterior.info.divergences is not None
    return {
        "seconds": taken,
        "engine": posterior.info.engine,
        "divergences": int(posterior.info.divergences.sum()),
        "figures": figures(tutorial.quantities(dict(posterior.draws))),
    }


def numpyros(name: str, method: str, seed: int, num_draws: int = 1000, target_accept: float = 0.8) -> dict[str, Any]:
    """One run of NumPyro's sampler on the model written for it by hand, the other options its defaults."""
    import numpyro

    if method == "parallel":
        numpyro.set_host_device_count(CHAINS)
    numpyro.enable_x64()
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC, NUTS

    from .peers.tutorials import MODELS

    torch.set_default_dtype(torch.float64)
    tutorial = TUTORIALS[name]
    data = [jnp.asarray(value.numpy()) for value in tutorial.data()]
    figures({"x": torch.randn(2, 10)})
    begin = time.perf_counter()
    chains = MCMC(
        NUTS(MODELS[name], target_accept_prob=target_accept),
        num_warmup=1000,
        num_samples=num_draws,
        num_chains=CHAINS,
        chain_method=method,
        progress_bar=False,
    )
    chains.run(jax.random.PRNGKey(seed), *data)
    draws = {site: torch.from_numpy(np.array(value)) for site, value in chains.get_samples(group_by_chain=True).items()}
    taken = time.perf_counter() - begin
    diverged = chains.get_extra_fields()["diverging"]
    return {"seconds": taken, "divergences": int(diverged.sum()), "figures": figures(tutorial.quantities(draws))}


def reference(name: str) -> dict[str, dict[str, list[float]]]:
    """Figures of a long run of NumPyro's, six digits; small steps, since the funnels among the models need them."""
    run = in_process("tutorials:numpyros", name=name, method="parallel", seed=100, num_draws=10_000, target_accept=0.95)
    print(f"{name}: {run['seconds']:.0f} s, {run['divergences']} divergences", flush=True)
    return {
        quantity: {key: [float(f"{value:.6g}") for value in values] for key, values in found.items()}
        for quantity, found in run["figures"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorials", description="Write reference figures.")
    parser.add_argument("file", type=Path, help="JSON file to write, or to renew in part")
    parser.add_argument("--only", nargs="+", choices=TUTORIALS, default=list(TUTORIALS), metavar="MODEL")
    given = parser.parse_args()
    known = json.loads(given.file.read_text()) if given.file.exists() else {}
    known |= {name: reference(name) for name in given.only}
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in TUTORIALS if name in known]
    given.file.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

"""``python -m benchmarks.gpu [--device cuda] [--quick]``: every path that has a device, held to the CPU and timed.

Each path runs on the CPU and on the device, from another seed: so what is random is compared within its Monte Carlo
error, and a rehearsal where there is no GPU, with ``--device cpu``, compares the same. It takes at most six minutes:
the dearest paths come last, and what is not reached is said.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor

from guidebook import datasets, guides
from guidebook.guides import vae as vae_guides
from guidebook.inference import cavi, check, closed_form, dadvi, em, gibbs, hmc, nuts, pathfinder, stream, svi
from guidebook.inference.diagnostics import ess
from guidebook.models import gmm, logistic, ppca, vae

from .measure import seconds

LIMIT = 360.0  # seconds
SIGMAS = 5.0  # standard errors by which two random answers may differ
SINGLE = 40  # restarts that are timed one after another


class Answer(NamedTuple):
    """What a path found, and by how much each of its figures may be off."""

    value: Tensor
    error: Tensor  # Monte Carlo standard errors, or a tolerance divided by `SIGMAS`


class Sizes(NamedTuple):
    """How much each path is given."""

    rows: int
    draws: int
    steps: int
    restarts: int
    chains: int
    particles: int
    pixels: int
    seed: int = 0


FULL = Sizes(rows=50_000, draws=500, steps=2000, restarts=1000, chains=4096, particles=1024, pixels=20_000)
QUICK = Sizes(rows=2_000, draws=150, steps=300, restarts=50, chains=64, particles=64, pixels=500)
QUIET: dict[str, Any] = {"progress": False}


def cancer(device: str) -> tuple[Tensor, Tensor]:
    x = datasets.load("breast_cancer", standardize=True).x[:, :6]
    return x.to(device), torch.tensor(load_breast_cancer().target).double().to(device)


def blobs(rows: int, device: str) -> Tensor:
    """Four well-separated clusters in eight dimensions."""
    generator = torch.Generator().manual_seed(0)
    centres = 6 * torch.randn(4, 8, generator=generator, dtype=torch.float64)
    which = torch.randint(4, (rows,), generator=generator)
    return (centres[which] + torch.randn(rows, 8, generator=generator, dtype=torch.float64)).to(device)


def close(value: Any, relative: float) -> Answer:
    """An answer that rounding alone may change."""
    value = torch.as_tensor(value).double().reshape(-1).cpu()
    return Answer(value, relative * value.abs().clamp(min=1) / SIGMAS)


def moments(draws: Tensor, share: float = 0.0) -> Answer:
    """Means and log sds of draws (chain, draw, d), in units of the sd; a fit may miss each by a ``share`` of it."""
    flat, count = draws.double().flatten(0, 1), draws.shape[0] * draws.shape[1]
    sd, squares = flat.std(0), (draws - flat.mean(0)).square()  # whose draws may hang together where the draws do not
    of_mean, of_sd = ((1 / ess(values).clamp(max=count)).sqrt() + share / SIGMAS for values in (draws, squares))
    mean = flat.mean(0) / sd  # which is off where the sd is
    return Answer(torch.cat([mean, sd.log()]), torch.cat([(of_mean.square() + (mean * of_sd).square()).sqrt(), of_sd]))


def of_weights(method: Callable[..., Any], share: float, *args: Any, **options: Any) -> Callable[[str, Sizes], Answer]:
    """A path through the logistic regression."""

    def path(device: str, sizes: Sizes) -> Answer:
        sized = {name: value(sizes) if callable(value) else value for name, value in options.items()}
        fit = method(logistic.model, *args, *cancer(device), seed=sizes.seed, **sized, **QUIET)
        return moments(fit.draws["w"], share)

    return path


def mixture_by(method: Callable[..., Any], steps: Callable[..., Any], **options: Any) -> Callable[[str, Sizes], Answer]:
    def path(device: str, sizes: Sizes) -> Answer:
        fit = method(steps(4), blobs(sizes.rows, device), num_restarts=10, seed=sizes.seed, **options)
        return close(fit.info.objective[-1], 1e-7)

    return path


def principal_components(device: str, sizes: Sizes) -> Answer:
    fit = closed_form(partial(ppca.maximum_likelihood, latent_dim=2), blobs(sizes.rows, device))
    return close(fit.params["noise_variance"], 1e-9)


def restarts(device: str, sizes: Sizes) -> Answer:
    fit = em(gmm.em_steps(4), blobs(500, device), num_restarts=sizes.restarts, seed=sizes.seed)
    return close(fit.info.objective[-1], 1e-7)


def dadvi_restarts(device: str, sizes: Sizes) -> Answer:
    fit = dadvi(logistic.model, *cancer(device), num_restarts=sizes.restarts, **QUIET)
    return moments(fit.draws["w"], 0.05)


def sweeps(device: str, sizes: Sizes) -> Answer:
    how: dict[str, Any] = {"num_draws": sizes.draws, "num_chains": 2, "seed": sizes.seed}
    fit = gibbs(logistic.gibbs_steps(), *cancer(device), **how, **QUIET)
    return moments(fit.draws["w"])


def autoencoder(engine: str, device: str, sizes: Sizes, *, streamed: bool = False) -> Answer:
    """Minibatches of pixels that lie on the device, or that are read from the host and copied there meanwhile."""
    options: dict[str, Any] = {"latent_dim": 10, "hidden": (200, 200)}
    x = vae.simulate(sizes.pixels, latent_dim=10, num_features=784, hidden=32)[0].float()
    model, guide = partial(vae.model, **options), partial(vae_guides.encoder, **options)
    how: dict[str, Any] = {"batch_size": min(512, sizes.pixels), "num_steps": sizes.steps // 4, "lr": 1e-3}
    how |= {"device": device, "engine": engine, "seed": sizes.seed}
    fit = svi(model, guide, stream(x) if streamed else x, num_draws=1, local_draws=False, **how, **QUIET)
    end = fit.info.losses[-sizes.steps // 20 :].double()
    return Answer(end.mean().reshape(1), end.std().reshape(1) / (len(end) / 5) ** 0.5 + 0.002 * end.mean().abs())


def moved(device: str, sizes: Sizes) -> Answer:
    """The shifts and spreads that thousands of short chains find in a mean-field fit."""
    fit = dadvi(logistic.model, *cancer("cpu"), **QUIET)
    found = check(fit, logistic.model, *cancer("cpu"), num_chains=sizes.chains, device=device, seed=sizes.seed, **QUIET)
    table = found.table.loc[:, ["mean_shift_in_sd", "sd_ratio"]].to_numpy()
    errors = found.table.loc[:, ["error_of_shift", "error_of_ratio"]].to_numpy()
    return Answer(torch.from_numpy(table).reshape(-1), torch.from_numpy(errors).reshape(-1) + 0.01)


PATHS: dict[str, Callable[[str, Sizes], Answer]] = {
    "em, Gaussian mixture": mixture_by(em, gmm.em_steps),
    "em, many restarts in one batch": restarts,
    "cavi, Gaussian mixture": mixture_by(cavi, gmm.cavi_steps, num_draws=10),
    "closed form, PPCA": principal_components,
    "gibbs, logistic": sweeps,
    "svi eager, full rank": of_weights(svi, 0.1, guides.full_rank, engine="eager", num_steps=lambda s: s.steps),
    "svi compiled, full rank": of_weights(svi, 0.1, guides.full_rank, engine="compiled", num_steps=lambda s: s.steps),
    "laplace": of_weights(svi, 0.01, guides.laplace),
    "dadvi": of_weights(dadvi, 0.05),
    "dadvi, many restarts in one batch": dadvi_restarts,
    "pathfinder": of_weights(pathfinder, 0.2, num_draws=1000),
    "check, many chains": moved,
    "nuts, Pyro's": of_weights(nuts, 0.0, engine="pyro", num_chains=1, num_draws=lambda s: s.draws, num_warmup=150),
    "hmc": of_weights(hmc, 0.0, num_chains=1, num_draws=lambda s: s.draws, num_warmup=150),
    "svi, real NVP, large batches of draws": of_weights(
        svi, 0.1, guides.flow, num_steps=lambda s: s.steps // 4, num_particles=lambda s: s.particles, engine="eager"
    ),
    "svi eager, autoencoder in minibatches": partial(autoencoder, "eager"),
    "svi compiled, autoencoder in minibatches": partial(autoencoder, "compiled"),
    "svi eager, autoencoder from a stream": partial(autoencoder, "eager", streamed=True),
    "svi compiled, autoencoder from a stream": partial(autoencoder, "compiled", streamed=True),
}


def distance(one: Answer, other: Answer) -> float:
    """Largest difference of two answers, relative to what is allowed."""
    allowed = SIGMAS * (one.error.square() + other.error.square()).sqrt()
    return float(((one.value - other.value).abs() / allowed.clamp(min=1e-300)).max())


def batch_against_single(name: str, fit: Callable[..., Any], device: str, sizes: Sizes) -> str:
    """Time restarts in one batch, and some of them one after another."""
    fit(num_restarts=2)
    together = seconds(lambda: fit(num_restarts=sizes.restarts), device)
    single = seconds(lambda: [fit(num_restarts=1, seed=seed) for seed in range(SINGLE)], device) / SINGLE
    ratio = single * sizes.restarts / together
    return (
        f"{sizes.restarts} restarts of {name} in one batch: {together:.2f} s; one after another, by {SINGLE} of them: "
        f"{single * sizes.restarts:.1f} s, {ratio:.1f} times as long"
    )


def measured(name: str, device: str, sizes: Sizes) -> tuple[bool, str]:
    """Run one path on the CPU and on the device, there once more to be timed; say whether they agree."""
    path, found = PATHS[name], {}
    slow = seconds(lambda: found.update(here=path("cpu", sizes)))
    sizes = sizes._replace(seed=1)
    first = seconds(lambda: found.update(there=path(device, sizes)), device)
    again = seconds(lambda: path(device, sizes), device) if first < LIMIT / 20 else first
    apart = distance(found["here"], found["there"])
    agrees = bool(np.isfinite(apart)) and apart <= 1
    words = "agrees" if agrees else "DIFFERS"
    return agrees, f"{name:42} {words:8} {apart:6.2f} {slow:8.2f} {first:8.2f} {again:8.2f} {slow / again:7.1f}"


def main() -> int:
    """Run all paths that there is time for; exit status 1 if one differs or fails, 2 without a device."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Every path on a GPU, held to the CPU."
    )
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not how fast")
    parser.add_argument("--only", nargs="+", choices=PATHS, metavar="PATH", help=", ".join(PATHS))
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("benchmarks.gpu: torch finds no CUDA device here; --device cpu rehearses the checks without one")
        return 2
    warnings.simplefilter("ignore")
    sizes, begin, status = QUICK if given.quick else FULL, time.perf_counter(), 0
    print(f"{'path':42} {'':8} {'apart':>6} {'CPU, s':>8} {'first, s':>8} {'again, s':>8} {'ratio':>7}")
    for name in given.only or PATHS:
        if time.perf_counter() - begin > 0.8 * LIMIT:
            print(f"{name:42} not reached")
            continue
        try:
            agrees, line = measured(name, given.device, sizes)
        except Exception as error:  # the other paths are worth their lines
            agrees, line = False, f"{name:42} FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        status = status if agrees else 1
        print(line, flush=True)
    print(batch_against_single("em", partial(em, gmm.em_steps(4), blobs(500, given.device)), given.device, sizes))
    of_cancer = partial(dadvi, logistic.model, *cancer(given.device), **QUIET)
    print(batch_against_single("dadvi", of_cancer, given.device, sizes))
    print(
        f"apart: largest difference, 1 is allowed; ratio: CPU over device; {time.perf_counter() - begin:.0f} s in all"
    )
    return status


if __name__ == "__main__":
    raise SystemExit(main())

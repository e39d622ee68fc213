"""Stochastic variational inference, mean-field, single precision: a step, and whole fits, compilation included."""

import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam  # pyright: ignore[reportAttributeAccessIssue]

from guidebook import guides
from guidebook.inference import svi
from guidebook.inference.traces.isolate import isolated

from .measure import Record, bound, in_process, in_turn, quartiles, record, seconds, step_time
from .peers import torch_svi
from .peers.problems import Problem, problem

NAMES = ("logistic", "gmm", "ppca")
LONG, SHORT = 50_000, 2_000  # steps of whole fits
FEW = 5_000  # steps of the shorter of the two fits that a step's time is the difference of
PYROS = 2_000  # steps that Pyro's time is scaled up from


def rows(quick: bool, device: str = "cpu") -> Iterator[Record]:
    for name in NAMES[:1] if quick else NAMES:
        times = _step_times(name, quick, device)
        yield from _steps(problem(name).name, times, device)
        yield from _fits(name, quick, device, quartiles(times["ours"])[0])


def _step_times(name: str, quick: bool, device: str) -> dict[str, list[float]]:
    """Seconds a step of everyone, in turn."""
    found = problem(name)
    data = found.cast(torch.float32, device)
    target = torch_svi.TARGETS[name](*data)

    def mine(num_steps: int) -> None:
        ours(found, num_steps, device, "compiled")

    def pyros_loop(num_steps: int) -> None:
        pyros(found, num_steps, device)

    def by_hand(num_steps: int) -> None:
        torch_svi.fit(target, num_steps, data[0])
        if device != "cpu":
            torch.cuda.synchronize()

    actions = {
        "ours": lambda: step_time(mine, FEW, FEW + (200_000 if quick else 400_000)),
        "Pyro": lambda: step_time(pyros_loop, 50, 450),
        "torch": lambda: step_time(by_hand, 50, 2050),
    }
    if device == "cpu":
        actions["NumPyro"] = lambda: in_process("svi:numpyros", name=name)["step"]
    mine(FEW)  # into the cache
    pyros_loop(50)
    by_hand(50)
    return dict(zip(actions, in_turn(1 if quick else 5, *actions.values()), strict=True))


def _steps(title: str, times: dict[str, list[float]], device: str) -> Iterator[Record]:
    peers = {
        "Pyro": ("Pyro's SVI", 20.0, "Trace_ELBO and its default validation"),
        "torch": ("torch by hand", 3.0, "an eager loop without distribution objects, fused Adam"),
        "NumPyro": (
            "NumPyro's SVI",
            1.5,
            "svi.run in one jax.jit, timed once compiled, on what threads JAX takes",
        ),
    }
    micro = {side: [1e6 * value for value in values] for side, values in times.items()}
    for side in list(micro)[1:]:
        peer, asked, said = peers[side]
        yield record(
            "svi",
            f"SVI step, {title}{_on(device)}",
            peer,
            micro["ours"],
            micro[side],
            "µs",
            asked=asked,
            what=f"float32, AutoNormal; ours compiled; {said}",
        )


def _fits(name: str, quick: bool, device: str, step: float) -> Iterator[Record]:
    """Whole fits; ``step``: seconds of one of ours."""
    found = problem(name)
    cold, cached, theirs = [], [], []
    for _ in range(1 if quick else 5):
        with tempfile.TemporaryDirectory() as folder:
            for kept in (cold, cached):
                environment = {"TORCHINDUCTOR_CACHE_DIR": folder}
                kept.append(in_process("svi:whole", environment, name=name, num_steps=LONG, device=device)["seconds"])
        theirs.append(LONG / PYROS * seconds(lambda: pyros(found, PYROS, device)))
    said = f"to the posterior with one draw; Pyro's time is {LONG // PYROS} times that of {PYROS:,} steps"
    line = partial(record, "svi", peer="Pyro's SVI", unit="s", share=True)
    title = f"{found.name}{_on(device)}"
    yield line(
        name=f"fit of {LONG:,} steps, first time, {title}",
        ours=cold,
        theirs=theirs,
        asked=0.25,
        what=f"a process of its own, empty cache; {said}",
    )
    yield line(
        name=f"fit of {LONG:,} steps, cached, {title}",
        ours=cached,
        theirs=theirs,
        asked=0.15,
        what=f"another process, compiled code on disk; {said}",
    )
    said = "the first fit less the time of its steps; tracing and checks included"
    compiling = [value - LONG * step for value in cold]
    yield bound("svi", f"compilation, first time, {title}", compiling, "s", asked=10.0, what=said)
    if quick:
        return
    mine, theirs = in_turn(
        5, lambda: seconds(lambda: ours(found, SHORT, device)), lambda: seconds(lambda: pyros(found, SHORT, device))
    )
    yield line(
        name=f"fit of {SHORT:,} steps, {title}",
        ours=mine,
        theirs=theirs,
        asked=1.0,
        what='engine="auto"; to the posterior with one draw',
    )


def _on(device: str) -> str:
    return "" if device == "cpu" else ", CUDA"


def ours(found: Problem, num_steps: int, device: str, engine: str = "auto") -> str:
    """A fit; returns the engine that it took."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "svi: took")  # a race of steps, not of answers
        posterior = svi(
            found.model,
            guides.mean_field,
            *found.cast(torch.float32, device),
            num_steps=num_steps,
            num_draws=1,
            engine=engine,
            progress=False,
        )
    assert engine in ("auto", posterior.info.engine)
    return posterior.info.engine


def whole(name: str, num_steps: int, device: str) -> dict[str, Any]:
    """Seconds of one fit as it comes."""
    found = problem(name)
    begin = time.perf_counter()
    engine = ours(found, num_steps, device)
    return {"seconds": time.perf_counter() - begin, "engine": engine}


def pyros(found: Problem, num_steps: int, device: str) -> None:
    """Pyro's own loop with what it takes by default."""
    data = found.cast(torch.float32, device)
    with isolated(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guide = AutoNormal(found.model)
        loop = SVI(found.model, guide, Adam({"lr": 0.01}), Trace_ELBO())
        for _ in range(num_steps):
            loop.step(*data)


def numpyros(name: str, num_steps: int = 10_000) -> dict[str, Any]:
    """Seconds a step of NumPyro's scanned loop, compiled whole before the clock starts."""
    import jax
    import numpyro
    from numpyro.infer import SVI as NumpyroSVI  # noqa: N811
    from numpyro.infer import Trace_ELBO as NumpyroElbo
    from numpyro.infer import init_to_median
    from numpyro.infer.autoguide import AutoNormal as NumpyroNormal

    from .peers.numpyro_models import prepared

    data = tuple(value.numpy() for value in problem(name).cast(torch.float32))
    model, arguments, start = prepared(name, data)
    guide = NumpyroNormal(model, init_loc_fn=start if name == "gmm" else init_to_median, init_scale=0.1)
    loop = NumpyroSVI(model, guide, numpyro.optim.Adam(0.01), NumpyroElbo())
    fit = jax.jit(lambda key, *given: loop.run(key, num_steps, *given, progress_bar=False).losses)
    compiled = fit.lower(jax.random.PRNGKey(0), *arguments).compile()
    jax.block_until_ready(compiled(jax.random.PRNGKey(1), *arguments))
    taken = seconds(lambda: jax.block_until_ready(compiled(jax.random.PRNGKey(0), *arguments)))
    return {"step": taken / num_steps}

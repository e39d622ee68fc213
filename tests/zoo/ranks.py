"""Fits in two ranks, as a process of its own: ``python -m zoo.ranks FOLDER RANK JOB …`` writes FOLDER/JOB-RANK.pt."""

import os
import signal
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.infer
import torch
import torch.distributed
from torch import Tensor

from guidebook import guides
from guidebook.inference import svi
from guidebook.inference.distributed.ranks import ranks_of
from zoo import linear

ROWS, STEPS, BATCH = 40, 60, 5
QUIET: dict[str, Any] = {"progress": False, "num_draws": 50}
seen: list[tuple[Tensor, Tensor]] = []  # rows of each step, and the weights drawn
KILLED_AFTER = 70  # steps


def rows() -> tuple[Tensor, Tensor]:
    return linear.data(ROWS)


def with_noise() -> tuple[Tensor, Tensor]:
    """Rows, and the noise that the guide draws their latent variables with."""
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(ROWS, 2, generator=generator, dtype=torch.float64) for _ in range(2))


class Still(dist.Normal):
    """A normal that draws its mean, without a generator: batches of any size leave that where it was."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.loc.expand(self._extended_shape(sample_shape))


def autoencoder(x: Tensor, eps: Tensor) -> None:
    """Linear, with parameters; ``eps`` belongs to the guide."""
    weights = pyro.param("weights", lambda: torch.eye(2, dtype=x.dtype))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", Still(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ weights, 0.5).to_event(1), obs=x)


def encoder(x: Tensor, eps: Tensor) -> None:
    """A normal for each row, drawn from by the row's own noise: a step has no other."""
    slope = pyro.param("slope", lambda: 0.3 * torch.ones(2, dtype=x.dtype))
    scale = pyro.param("scale", lambda: torch.ones(2, dtype=x.dtype), constraint=dist.constraints.positive)
    mean = x * slope
    z = mean + scale * eps
    density = dist.Normal(mean, scale).log_prob(z).sum(-1)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Delta(z, log_density=density, event_dim=1))


def watched(x: Tensor, y: Tensor | None = None) -> None:
    """The linear model, which notes its rows and weights."""
    w = pyro.sample("w", dist.Normal(x.new_zeros(x.shape[1]), 1.0).to_event(1))
    seen.append((x.detach().clone(), w.detach().clone()))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w).sum(-1), linear.NOISE), obs=y)


def point(batch_size: int | None) -> Any:
    fit = partial(svi, linear.model, guides.map_point, *rows(), optim=torch.optim.Adam, lr=0.05, num_steps=STEPS)
    return fit(batch_size=batch_size, **QUIET)


def latent(batch_size: int) -> Any:
    data = with_noise()
    return svi(autoencoder, encoder, *data, lr=0.05, num_steps=STEPS, batch_size=batch_size, local_draws=False, **QUIET)


def kept(folder: Path | None) -> Any:
    options: dict[str, Any] = {} if folder is None else {"checkpoint": folder, "every": 0.0}
    return svi(linear.model, guides.mean_field, *rows(), num_steps=120, batch_size=BATCH, **QUIET, **options)


def killed(folder: Path) -> None:
    """Rank 1 ends without a word after so many steps."""
    calls, module = 0, sys.modules["guidebook.inference.optim.first_step"]
    step = module.loss_and_grads

    def last(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == KILLED_AFTER and torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args)

    module.loss_and_grads = last
    kept(folder)


def refused(units: float = 1.0, apart: dict[str, Any] | None = None, **options: Any) -> str:
    """What is said if rank 1 has other units, or other options."""
    first, (x, y) = torch.distributed.get_rank() == 0, rows()
    given = {"num_steps": 5, "batch_size": BATCH, **QUIET, **options, **({} if first else apart or {})}
    try:
        svi(linear.model, guides.mean_field, x if first else units * x, y, **given)
    except ValueError as error:
        return str(error)
    return ""


def failed() -> list[str]:
    """What each rank says where the first one cannot do what all wait for, and how the group is afterwards."""
    ranks, said = ranks_of("svi"), []
    for error in (KeyError("w"), OSError("no space")):
        try:
            ranks.first(partial(raised, error))
        except (RuntimeError, KeyError, OSError) as found:
            said.append(f"{type(found).__name__}: {found}")
    return [*said, str(ranks.first(lambda: 3))]


def raised(error: Exception) -> None:
    raise error


def own_rows_and_noise() -> Any:
    """The rows of the first epoch, of which a batch goes to create the parameters, the weights of the steps, draws."""
    seen.clear()
    fit = svi(watched, guides.mean_field, *rows(), num_steps=4, batch_size=BATCH, **QUIET)
    batches = [(x, w) for x, w in seen if len(x) == BATCH]
    return [x for x, _ in batches[-5:-1]], [w for _, w in batches[-4:]], fit.draws["w"]


def ended() -> int:
    """A callback is heard on the first rank alone, and ends the fit on all."""
    first = torch.distributed.get_rank() == 0
    fit = svi(linear.model, guides.mean_field, *rows(), num_steps=400, callback=lambda *_: first, **QUIET)
    return len(fit.info.losses)


def main(folder: Path, rank: int, jobs: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    where = f"file://{folder / '-'.join(['group', *jobs])}"
    torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    of: dict[str, Any] = {
        "point": lambda: dict(point(BATCH).params),
        "whole": lambda: dict(point(None).params),
        "latent": lambda: dict(latent(BATCH).params),
        "kept": lambda: dict(kept(None).draws),
        "killed": lambda: killed(folder / "checkpoint"),
        "resumed": lambda: {**(fit := kept(folder / "checkpoint")).draws, "losses": fit.info.losses},
        "again": lambda: dict(kept(folder / "checkpoint").draws),
        "apart": own_rows_and_noise,
        "ended": ended,
        "data": lambda: refused(units=2.0),
        "seed": lambda: refused(apart={"seed": 1}),
        "loss": lambda: refused(apart={"loss": pyro.infer.RenyiELBO(), "num_particles": 2}),
        "optim": lambda: refused(apart={"optim": torch.optim.Adam}),
        "place": lambda: refused(apart={"checkpoint": folder / "of one"}),
        "failed": failed,
        "options": lambda: (refused(batch_size=ROWS), refused(engine="compiled")),
    }
    try:
        for job in jobs:
            torch.save(of[job](), folder / f"{job}-{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()  # a process that ends in a group may abort


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])

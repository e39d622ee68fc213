"""The variational autoencoder in minibatches: a step against the same network in a hand-written loop."""

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from guidebook.guides import vae as vae_guides
from guidebook.inference import svi
from guidebook.models import vae

from .measure import Record, in_turn, record, step_time
from .peers import torch_vae

ROWS, COLUMNS, HIDDEN, FACTORS, BATCH = 10_000, 784, 200, 50, 128


def rows(quick: bool, device: str = "cpu") -> Iterator[Record]:
    repeats, few, many = (1, 50, 750) if quick else (5, 100, 1600)
    x = pixels().to(device)
    ours(x, few)
    torch_vae.fit(x, few, batch_size=BATCH)
    mine, theirs = in_turn(
        repeats,
        lambda: step_time(lambda n: ours(x, n), few, many),
        lambda: step_time(lambda n: torch_vae.fit(x, n, batch_size=BATCH), few, many),
    )
    where = "" if device == "cpu" else ", CUDA"
    yield record(
        "vae",
        f"step of a VAE, {COLUMNS}-{HIDDEN}-{HIDDEN}-{FACTORS}{where}",
        "torch by hand",
        [1e3 * value for value in mine],
        [1e3 * value for value in theirs],
        "ms",
        asked=1.0,
        share=True,
        what=f"float32, {ROWS:,} synthetic binary rows, batches of {BATCH}; ours compiled; theirs eager, fused Adam, "
        "the divergence in closed form",
    )


def pixels() -> Tensor:
    """Binary rows from a random network of ten factors."""
    x, _ = vae.simulate(ROWS, latent_dim=10, num_features=COLUMNS, hidden=32)
    return x.float()


def ours(x: Tensor, num_steps: int) -> Any:
    options: dict[str, Any] = {"latent_dim": FACTORS, "hidden": (HIDDEN, HIDDEN)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "svi: took")
        return svi(
            partial(vae.model, **options),
            partial(vae_guides.encoder, **options),
            x,
            batch_size=BATCH,
            lr=1e-3,
            num_steps=num_steps,
            num_draws=1,
            local_draws=False,
            engine="compiled",
            progress=False,
        )

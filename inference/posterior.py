"""The result of every inference method: draws, point estimates and how the run went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .info import INFO_TYPES, Info, PathfinderInfo

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr


FORMER_NAMES = {"stopped_because": "message", "basins": "optima", "flaw": "degenerate"}
InfoT = TypeVar("InfoT", bound=Info)


@dataclass(frozen=True)
class Posterior(Generic[InfoT]):
    """Draws from a posterior, or from an approximation to one.

    Attributes
    ----------
    draws : dict of Tensor
        Shape (chain, draw, *site): constrained latent sites and deterministic sites, by the model's names.
        A point method has one chain of one draw.
    params : dict of Tensor
        Point estimates: weights of guides and decoders, estimates of EM; constrained, by name.
    info : Info
        Run record, one type per method; see `guidebook.inference.info`.
    """

    draws: Mapping[str, Tensor]
    info: InfoT
    params: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        sites = ", ".join(f"{name} {tuple(value.shape[2:])}" for name, value in self.draws.items())
        chains, length = next(iter(self.draws.values())).shape[:2] if self.draws else (0, 0)
        return (
            f"Posterior by {self.info.method}: {chains} × {length} draws of {sites}; "
            f"{self.info.seconds:.1f} s; {self.info.message}"
        )

    @property
    def samples(self) -> dict[str, Tensor]:
        """The draws of all chains in a row, shape (chain * draw, *site), as `pyro.infer.Predictive` takes them."""
        return {name: value.flatten(0, 1) for name, value in self.draws.items()}

    @property
    def log_weights(self) -> Tensor | None:
        """Log weights of `samples` that a guide q gave: log p(x, z) - log q(z), in nats, shape (chain * draw,).

        None for samplers, for points, where weights are not known, and where draws were chosen by them (pathfinder).
        """
        return None if isinstance(self.info, PathfinderInfo) else getattr(self.info, "log_weights", None)

    def to_datatree(self) -> xr.DataTree:
        """Return the draws in ArviZ's container, in the group ``posterior``."""
        from arviz_base import from_dict

        return from_dict({"posterior": {name: value.numpy() for name, value in self.draws.items()}})

    def summary(self) -> pd.DataFrame:
        """Return one row per scalar: mean, sd, interval; with several chains R̂ and effective sample size (arviz-stats).

        Raises
        ------
        ValueError
            If there are fewer than four draws, as of a point method.
        """
        from arviz_stats import summary  # pyright: ignore[reportPrivateImportUsage]

        chains, length = next(iter(self.draws.values())).shape[:2]
        if length < 4:
            raise ValueError(f"summary: {chains} × {length} draws have no spread to summarise: read .draws or .params")
        kind = "all" if chains > 1 else "stats"
        return summary(self.to_datatree(), kind=kind)  # pyright: ignore[reportReturnType] (no DataTree in this format)

    def save(self, path: str | Path) -> None:
        """Write to one file in the safetensors format: tensors and plain JSON, no code.

        Raises
        ------
        OSError
            If the path cannot be written.
        """
        tensors, plain = {}, {}
        for group, values in (("draws", self.draws), ("params", self.params), ("info", vars(self.info))):
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"{group}/{name}"] = value.contiguous().clone()
                elif isinstance(value, dict):
                    tensors |= {f"{group}/{name}/{key}": entry.contiguous() for key, entry in value.items()}
                else:
                    plain[name] = value
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"guidebook": json.dumps(plain)})

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Read a file that `save` wrote, of this version or an earlier one; safe on files from untrusted sources.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a file that `save` wrote.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no such file: {path}")
        groups: dict[str, dict] = {"draws": {}, "params": {}, "info": {}}
        try:
            with safe_open(path, framework="pt") as file:
                groups["info"].update(json.loads(file.metadata()["guidebook"], object_hook=_renamed))
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    group, site = name.split("/", 1)
                    if group == "info" and "/" in site:
                        entry, key = site.split("/", 1)
                        groups["info"].setdefault(entry, {})[key] = file.get_tensor(name)
                    else:
                        groups[group][site] = file.get_tensor(name)
            info = INFO_TYPES[groups["info"]["method"]](**groups["info"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a posterior saved by guidebook") from error
        return Posterior(draws=groups["draws"], params=groups["params"], info=info)


def _renamed(saved: dict) -> dict:
    """Give the fields of files saved earlier the names they have now."""
    return {FORMER_NAMES.get(name, name): value for name, value in saved.items()}


def point_draws(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return point estimates as the single draw of a point method, shape (1, 1, *site)."""
    return {name: torch.as_tensor(value)[None, None] for name, value in params.items()}

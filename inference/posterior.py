"""The result of every inference method: draws, point estimates and how the run went."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .digests import digest
from .info import INFO_TYPES, ExternalInfo, Info, PathfinderInfo
from .versions import versions

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .quantities import Coords


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
            f"{'' if math.isnan(self.info.seconds) else f'{self.info.seconds:.1f} s; '}{self.info.message}"
        )

    @property
    def samples(self) -> dict[str, Tensor]:
        """The draws of all chains in a row, shape (chain * draw, *site), as `pyro.infer.Predictive` takes them."""
        return {name: value.flatten(0, 1) for name, value in self.draws.items()}

    def append(self, other: Posterior) -> Posterior[InfoT]:
        """Return these draws with those of a later run at the end of each chain, and diagnostics over all.

        Both must be by one sampler, with as many chains of the same sites: the later run goes on with the chains of
        this one, by ``init=`` and ``num_warmup=0``. ValueError otherwise.
        """
        from .mcmc.resume import joined  # which imports this file

        return joined(self, other)

    @property
    def log_weights(self) -> Tensor | None:
        """Log weights of `samples` that a guide q gave: log p(x, z) - log q(z), in nats, shape (chain * draw,).

        None for samplers, for points, where weights are not known, and where draws were chosen by them (pathfinder).
        """
        return None if isinstance(self.info, PathfinderInfo) else getattr(self.info, "log_weights", None)

    def to_datatree(
        self,
        model: Callable | None = None,
        data: tuple = (),
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        groups: Collection[str] | str | None = None,
        coords: Coords | None = None,
        seed: int = 0,
    ) -> xr.DataTree:
        """Return the draws in ArviZ's container, and what its functions on fits and predictions need.

        Parameters
        ----------
        model : callable, optional
            The model that was fitted, for the groups that need it.
        data : tuple
            The arguments with which it was fitted; also arrays and data frames, whose names are then those of the
            entries unless ``coords`` are given.
        model_kwargs : mapping, optional
            Further arguments of the model by name: data or options.
        groups : collection of str, or str, optional
            Of "posterior", "sample_stats" (of each draw: divergence, energy in nats and tree depth; log weights of a
            guide's draws), "posterior_predictive", "log_likelihood" and "log_prior" (nats, as `log_likelihood`),
            "observed_data", "constant_data", "prior" and "prior_predictive" (1,000 draws); or "all". Default: all but
            the last two, and without a model the first two.
        coords : dict of sequences of str, optional
            Names of entries, by site, along its last dimensions, as in `compare`; or by plate.
        seed : int
            For predictions.

        Returns
        -------
        xarray.DataTree
            Dimensions of plates have the plates' names. Site names have a dot where Pyro's have a slash, which a
            DataTree takes for a path; `from_datatree` undoes that.

        Raises
        ------
        ValueError
            If there is no such group, it needs a model, or the model cannot be run on the data.
        """
        from .datatree import write  # which needs posteriors

        return write(self, model, data, model_kwargs, groups, coords, seed)

    @classmethod
    def from_datatree(cls, source: Any, *, guide: str | None = None) -> Posterior[ExternalInfo]:
        """Return draws that another library made as a posterior, for `compare` and everything else.

        Parameters
        ----------
        source : DataTree, InferenceData, Dataset, str, Path or MCMC
            Draws of Stan, PyMC, NumPyro, emcee or others as ArviZ holds them, with a group "posterior"; the path of a
            NetCDF file or a Zarr folder of that; or a finished ``MCMC`` of Pyro or NumPyro. Variables "w[1]", "w[2]",
            … become one site.
        guide : str, optional
            Name of the approximation, if the draws come from one (ADVI, a guide): nothing in them tells. They are then
            judged, and no others by them.

        Returns
        -------
        Posterior
            ``info`` is an `ExternalInfo`; R̂, effective sample sizes and what is said of them come from the draws.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If there are no draws in it.

        Warns
        -----
        UserWarning
            If there is one chain without a sampler's record, which may be an approximation.
        """
        from .datatree import read  # which needs posteriors

        return read(source, guide)

    def summary(self) -> pd.DataFrame:
        """Return one row per scalar: mean, sd, interval; with several chains R̂ and effective sample size (arviz-stats).

        Raises
        ------
        ValueError
            If there are fewer than four draws, as of a point method.
        """
        from arviz_stats import summary  # pyright: ignore[reportPrivateImportUsage]

        from .datatree.names import safe_names

        chains, length = next(iter(self.draws.values())).shape[:2]
        if length < 4:
            raise ValueError(f"summary: {chains} × {length} draws have no spread to summarise: read .draws or .params")
        kind = "all" if chains > 1 else "stats"
        with np.errstate(invalid="ignore", divide="ignore"):  # of entries that do not vary, such as those observed
            frame: Any = summary(self.to_datatree(), kind=kind)
        sites = {name: site for site, name in safe_names([self.draws]).items()}
        parts = [str(label).partition("[") for label in frame.index]
        frame.index = ["".join([sites[name], *rest]) for name, *rest in parts]
        return frame

    def save(self, path: str | Path, *, about: Mapping[str, Any] | None = None) -> None:
        """Write to one file in the safetensors format: tensors and plain JSON, no code.

        A file that is there is replaced whole or not at all. A checksum over all of it is kept in the file.

        Parameters
        ----------
        path : str or Path
        about : dict, optional
            What is to be kept beside the versions of what computed the draws, in the file's metadata under "about", as
            JSON: where the draws come from. `load` does not need it.

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
                elif isinstance(value, dict) and all(isinstance(entry, Tensor) for entry in value.values()):
                    tensors |= {f"{group}/{name}/{key}": entry.contiguous() for key, entry in value.items()}
                else:
                    plain[name] = value
        metadata = {"guidebook": json.dumps(plain), "about": json.dumps({"versions": versions(), **(about or {})})}
        metadata["digest"] = digest(tensors, metadata["guidebook"] + metadata["about"])
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            draft.touch()
            mode = draft.stat().st_mode
            save_file(tensors, draft, metadata=metadata)  # which leaves a file that only its owner can read
            draft.chmod(mode)
            draft.replace(path)
        except SafetensorError as error:
            code = re.search(r"(?:os error|code:) (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, os.strerror(number), str(path)) from None
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Posterior:
        """Read a file that `save` wrote, of this version or an earlier one; safe on files from untrusted sources.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a file that `save` wrote, or it has been damaged since.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no such file: {path}")
        groups: dict[str, dict] = {"draws": {}, "params": {}, "info": {}}
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            groups["info"].update(json.loads(metadata["guidebook"], object_hook=_renamed))
            for name, value in tensors.items():
                group, site = name.split("/", 1)
                if group == "info" and "/" in site:
                    entry, key = site.split("/", 1)
                    groups["info"].setdefault(entry, {})[key] = value
                else:
                    groups[group][site] = value
            found = digest(tensors, metadata["guidebook"] + metadata.get("about", ""))
            info = INFO_TYPES.get(groups["info"]["method"], ExternalInfo)(**groups["info"])
        except (SafetensorError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a posterior saved by guidebook") from error
        if metadata.get("digest", found) != found:  # earlier versions kept none
            raise ValueError(f"{path} is damaged: its checksum is not that of what it holds")
        return Posterior(draws=groups["draws"], params=groups["params"], info=info)


def _renamed(saved: dict) -> dict:
    """Give the fields of files saved earlier the names they have now."""
    return {FORMER_NAMES.get(name, name): value for name, value in saved.items()}


def point_draws(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return point estimates as the single draw of a point method, shape (1, 1, *site)."""
    return {name: torch.as_tensor(value)[None, None] for name, value in params.items()}

"""Draws that another library made, as a posterior: from a DataTree, a file, or a finished MCMC of Pyro or NumPyro."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..diagnostics import of_sites
from ..info import ExternalInfo
from ..mcmc.chains import Chains
from ..posterior import Posterior

INDEXED = re.compile(r"(.+)\[(\d+(?:, ?\d+)*)\]")  # a variable that is an entry of one, as "w[1,2]"


class Found(NamedTuple):
    """What a source has."""

    draws: dict[str, np.ndarray]  # (chain, draw, *site)
    diverging: np.ndarray | None  # (chain, draw)
    attrs: Mapping[Any, Any]
    has_record: bool  # a sampler's, of each draw


def read(source: Any, guide: str | None) -> Posterior[ExternalInfo]:
    """Return a posterior as `Posterior.from_datatree` does."""
    found = _of_mcmc(source) if hasattr(source, "get_samples") else _of_tree(_opened(source))
    draws = {name: _tensor(value) for name, value in _joined(found.draws).items()}
    if not draws:
        raise ValueError("from_datatree: there are no draws in the group 'posterior'")
    chains, length = next(iter(draws.values())).shape[:2]
    guide = guide or found.attrs.get("guide")
    if guide is None and chains == 1 and not found.has_record:
        warnings.warn(
            "from_datatree: there is one chain, without a sampler's record: if its draws come from an approximation, "
            "say so by guide=",
            stacklevel=4,
        )
    seconds = float(found.attrs.get("sampling_time", math.nan))
    words, record = f"{chains} × {length} draws", dict[str, Any]()
    if guide is None:
        r_hat, ess = of_sites(draws)
        divergences = None if found.diverging is None else torch.as_tensor(found.diverging.astype(bool).sum(1))
        record = {"r_hat": r_hat, "ess": ess, "divergences": divergences}
        disagreement = Chains(draws, {}, r_hat, ess, seconds).disagreement
        words = "; ".join(filter(None, [words, disagreement]))
    info = ExternalInfo(
        method=str(found.attrs.get("inference_library") or "external"),
        seconds=seconds,
        converged=words.endswith("draws"),
        message=words,
        guide=guide,
        is_point=chains * length == 1,
        **record,
    )
    return Posterior(draws=draws, info=info)


def _opened(source: Any) -> Any:
    """Return a DataTree, or what looks like one, from a path too."""
    import xarray as xr

    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"from_datatree: no such file: {path}")
    for opened in (xr.open_datatree, xr.open_dataset):
        try:
            with opened(path) as found:
                return found.load()
        except (ValueError, NotImplementedError, OSError, ImportError) as error:
            failed = error
    package = "zarr" if path.is_dir() else "h5netcdf"
    raise ValueError(
        f"from_datatree: {path} cannot be read ({str(failed).splitlines()[0][:120]}); NetCDF 4 needs the package "
        f"h5netcdf or netCDF4, Zarr needs zarr: pip install {package}"
    ) from None


def _of_tree(tree: Any) -> Found:
    """Return what a DataTree, an InferenceData or a Dataset has."""
    import xarray as xr

    if isinstance(tree, xr.DataTree) and "posterior" in tree.children:
        posterior, stats = tree["posterior"], tree.children.get("sample_stats")
    elif hasattr(tree, "posterior") and not isinstance(tree, xr.DataTree):
        posterior, stats = tree.posterior, getattr(tree, "sample_stats", None)
    else:
        posterior, stats = tree, None
    if not hasattr(posterior, "data_vars"):
        raise ValueError(
            f"from_datatree: {type(tree).__name__} is no DataTree, path or MCMC; emcee's and CmdStanPy's results "
            "become DataTrees by arviz_base.from_emcee and from_cmdstanpy"
        )
    draws = {}
    for name, variable in posterior.data_vars.items():
        if "draw" not in variable.dims or variable.dtype.kind not in "fiub":
            continue
        if "chain" not in variable.dims:
            variable = variable.expand_dims("chain")
        draws[str(variable.attrs.get("site", name))] = variable.transpose("chain", "draw", ...).values
    diverging = (
        stats["diverging"].transpose("chain", "draw").values if stats is not None and "diverging" in stats else None
    )
    has_record = stats is not None and any(str(name) != "log_weights" for name in stats.data_vars)
    return Found(draws, diverging, {**getattr(tree, "attrs", {}), **posterior.attrs}, has_record)


def _of_mcmc(mcmc: Any) -> Found:
    """Return what a finished MCMC of Pyro or NumPyro has."""
    library = type(mcmc).__module__.split(".")[0]
    draws = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items()}
    chains, length = next(iter(draws.values())).shape[:2] if draws else (0, 0)
    diverging = None
    if hasattr(mcmc, "get_extra_fields"):  # NumPyro
        diverging = mcmc.get_extra_fields(group_by_chain=True).get("diverging")
        diverging = None if diverging is None else np.asarray(diverging)
    elif "divergences" in (record := mcmc.diagnostics()):
        diverging = np.zeros((chains, length), bool)
        for chain, at in enumerate(record["divergences"].values()):
            diverging[chain, at] = True
    return Found(draws, diverging, {"inference_library": library}, True)


def _joined(draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return draws in which scalars "w[1]", "w[2]", … are one site, if they fill an array from 0 or from 1."""
    entries: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for name, value in draws.items():
        if (match := INDEXED.fullmatch(name)) and value.ndim == 2 and match[1] not in draws:
            index = tuple(int(number) for number in match[2].split(","))
            entries.setdefault(match[1], {})[index] = value
    found = {name: value for name, value in draws.items() if not _is_entry(name, entries)}
    for name, by_index in entries.items():
        shape, first = _filled(list(by_index))
        if shape is None:
            found |= {f"{name}[{','.join(map(str, index))}]": value for index, value in by_index.items()}
            continue
        ordered = [by_index[tuple(int(i) + first for i in index)] for index in np.ndindex(*shape)]
        found[name] = np.stack(ordered, 2).reshape(*ordered[0].shape, *shape)
    return found


def _is_entry(name: str, entries: Mapping[str, Any]) -> bool:
    match = INDEXED.fullmatch(name)
    return match is not None and match[1] in entries


def _filled(indices: list[tuple[int, ...]]) -> tuple[tuple[int, ...] | None, int]:
    """Return the shape of an array that has just these indices and the first of them, None if there is none."""
    if len({len(index) for index in indices}) > 1:
        return None, 0
    for first in (0, 1):
        shape = tuple(max(index) + 1 - first for index in zip(*indices, strict=True))
        if len(indices) == math.prod(shape) and all(min(index) >= first for index in indices):
            return shape, first
    return None, 0


def _tensor(value: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(value).copy())

"""What a fit of a user's own model says of each row: figures of its posterior predictive."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from guidebook.catalog import Row
from guidebook.datasets.table import shown
from guidebook.inference import Posterior, posterior_predictive
from guidebook.inference.quantities import label
from guidebook.inference.traces.generate import Generative, generative, is_data
from guidebook.inference.traces.rows_apart import check_rows_apart
from guidebook.inference.traces.sites import is_deterministic, is_latent, nodes
from guidebook.workflow.own.inputs import METHOD, Inputs, NewData, new_data

FEWEST_DRAWS, MOST_NUMBERS = 4000, 2**24  # draws unless they hold more numbers than that
LEAST_DRAWS = 100


def fitted_rows(data: NewData, inputs: Inputs, posterior: Posterior) -> pd.DataFrame | None:
    """Return a line per row that was fitted: figures of replicated data, given the row's own latent sites.

    None if the model says nothing of single rows.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* are at their initial values")  # which the fit has said
        try:
            return _table(data, inputs, posterior)
        except ValueError:
            return None


def predicted_rows(
    row: Row, options: Mapping[str, Any], inputs: Inputs, posterior: Posterior, source: str
) -> pd.DataFrame:
    """Return a line per row of a file: figures of data drawn from the model at the posterior's draws.

    Latent sites with a value per row are drawn from the model, too, since new rows have others.

    Raises
    ------
    ValueError
        If the file does not go with the fit, or the model says nothing of single rows.
    """
    data = new_data(row, options, inputs, posterior.params, source)
    table = _table(data, inputs, posterior, are_new=True)
    if table is None:
        raise ValueError(f"{METHOD}: this fit of {row.name} says nothing of single rows")
    say_left_out(source, data.left_out)
    return table


def say_left_out(source: str, count: int) -> None:
    """Warn of new rows that are not in a table of predictions, since they have gaps."""
    if count:
        rows = "1 row with a gap is" if count == 1 else f"{count:,} rows with gaps are"
        warnings.warn(f"{METHOD}: {shown(source)}: {rows} left out", stacklevel=3)


def _table(data: NewData, inputs: Inputs, posterior: Posterior, *, are_new: bool = False) -> pd.DataFrame | None:
    """Return figures of each site of data, or deterministic one, that runs over rows.

    These are the probability of each category and the likeliest one, or mean, sd and the central 90 %.
    """
    by_row = [name for name in data.tensors if inputs.has_rows(name)]
    if not by_row:
        return None
    num_rows = len(data.tensors[by_row[0]])
    data = _with_all_indices(data, inputs, by_row)
    sites, longer = _sites(data, posterior), _run(_longer(data, by_row), posterior)
    along = _row_dims(sites, nodes(longer.trace), len(data.tensors[by_row[0]]))
    wanted = [name for name in along if name in inputs.sites or is_deterministic(sites[name])]
    if not wanted:
        return None
    redraw = []
    if are_new:
        redraw = _own_of_new_rows(sites, along, inputs, posterior)
        check_rows_apart(METHOD, longer, along, redraw)
    drawn = posterior_predictive(
        data.model, posterior, *data.args, num_draws=_affordable(posterior, sites), redraw=redraw
    )
    columns: dict[str, Any] = {"row": data.rows or range(num_rows)} | dict(data.ids)
    for name in wanted:
        draws = drawn[name].movedim(1 + along[name], 1)[:, :num_rows].double()
        categories = _categories(name, sites[name], inputs)
        for index in np.ndindex(*draws.shape[2:]):
            of_entry = draws[(..., *index)]
            figures = _figures(of_entry) if categories is None else _shares(of_entry, categories)
            columns |= {label(name, index) + figure: values for figure, values in figures.items()}
    return pd.DataFrame(columns)


def _figures(draws: Tensor) -> dict[str, Any]:
    """Return mean, sd and the central 90 % of numbers, (draw, row)."""
    low, high = np.quantile(draws.numpy(), [0.05, 0.95], axis=0)
    return {"_mean": draws.mean(0).numpy(), "_sd": draws.std(0).numpy(), "_low": low, "_high": high}


def _shares(draws: Tensor, categories: Sequence[str]) -> dict[str, Any]:
    """Return the share of each category among codes, (draw, row), and the largest one's name."""
    shares = torch.stack([(draws == code).double().mean(0) for code in range(len(categories))])
    found: dict[str, Any] = {"": [categories[code] for code in shares.argmax(0).tolist()]}
    return found | {f"_probability_of_{name}": share.numpy() for name, share in zip(categories, shares, strict=True)}


def _categories(name: str, site: Mapping[str, Any], inputs: Inputs) -> list[str] | None:
    """Return the names of the categories that a site is one of, numbers where the data have none; None for numbers."""
    fn = site["fn"]
    while inner := getattr(fn, "base_dist", None):
        fn = inner
    if not isinstance(fn, Categorical | Bernoulli):
        return None
    count = len(fn.enumerate_support(expand=False))
    observed = [known.names for known in inputs.arguments.values() if known.observed and known.names]
    of_site = inputs.arguments[name].names if name in inputs.arguments else None
    names = of_site or (observed[0] if len(observed) == len(inputs.sites) == 1 else []) or []
    return [names[code] if code < len(names) else str(code) for code in range(count)]


def _own_of_new_rows(
    sites: Mapping[str, Any], along: Mapping[str, int], inputs: Inputs, posterior: Posterior
) -> list[str]:
    """Return the sites to draw from the model for new rows; ValueError if the model has other groups than the fit."""
    latent = {name: site["value"].shape for name, site in sites.items() if is_latent(site)}
    found = [name for name in latent if name in along or name in inputs.sites]
    for name, draws in posterior.draws.items():
        before, now = tuple(draws.shape[2:]), tuple(latent.get(name, ()))
        if name in latent and name not in found and before != now:
            raise ValueError(
                f"{METHOD}: site {name!r} has shape {before} in the fit and {now} with these rows: new groups are "
                "predicted by guidebook.inference.posterior_predictive"
            )
    return found


def _with_all_indices(data: NewData, inputs: Inputs, by_row: Sequence[str]) -> NewData:
    """Return rows with one more, if none has the last category or index that the fit had.

    A model that takes the number of groups from their indices would otherwise have fewer of them than the posterior.
    """
    tops = {name: top for name in by_row if (top := inputs.arguments[name].top) is not None}
    if all(int(data.tensors[name].max()) >= top for name, top in tops.items()):
        return data
    last = {name: data.tensors[name][-1:] for name in by_row}
    last |= {name: torch.full_like(last[name], top) for name, top in tops.items()}
    return _with_rows(data, last)


def _longer(data: NewData, by_row: Sequence[str]) -> NewData:
    """Return rows with the last one twice."""
    return _with_rows(data, {name: data.tensors[name][-1:] for name in by_row})


def _with_rows(data: NewData, more: Mapping[str, Tensor]) -> NewData:
    return data._replace(tensors=data.tensors | {name: torch.cat([data.tensors[name], more[name]]) for name in more})


def _run(data: NewData, posterior: Posterior) -> Generative:
    return generative(METHOD, data.model, data.args, posterior.params)


def _sites(data: NewData, posterior: Posterior) -> dict[str, Any]:
    """Return the model's sites of data, latent ones and deterministic ones."""
    found = nodes(_run(data, posterior).trace)
    return {name: site for name, site in found.items() if is_data(site) or is_latent(site) or is_deterministic(site)}


def _row_dims(sites: Mapping[str, Any], longer: Mapping[str, Any], num_rows: int) -> dict[str, int]:
    """Return the dimension of each site that runs over rows: that which is one longer with a row more."""
    found = {}
    for name, site in sites.items():
        before, after = site["value"].shape, longer[name]["value"].shape if name in longer else ()
        grown = [dim for dim, size in enumerate(after) if dim < len(before) and size != before[dim]]
        if len(before) == len(after) and len(grown) == 1 and before[grown[0]] == num_rows:
            found[name] = grown[0]
    return found


def _affordable(posterior: Posterior, sites: Mapping[str, Any]) -> int:
    numbers = sum(site["value"].numel() for site in sites.values())
    wanted = max(FEWEST_DRAWS, *(len(value) for value in posterior.samples.values()), 0)
    return min(wanted, max(LEAST_DRAWS, MOST_NUMBERS // numbers))

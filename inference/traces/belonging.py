"""Which dimension of a latent site runs over columns of a matrix, or over categories: by what the density says."""

from collections.abc import Callable, Collection

import torch
from pyro import poutine
from torch import Tensor

from .dtypes import in_one_dtype
from .generate import is_data
from .isolate import isolated
from .run import first_run
from .sites import is_latent, nodes
from .validation import unvalidated

MOST = 50  # columns or categories that are tried one by one


def belonging(model: Callable, args: tuple, place: int, count: int, but: Collection[str]) -> dict[str, int]:
    """Return the dimension of each site that has an entry for each column, or category, of an argument.

    An entry is that of a category if the data's density does not depend on it once no row is of that category, and that
    of a column if the column does not matter once the entry is zero, as in a linear predictor.

    Parameters
    ----------
    model : callable
    args : tuple
        Its arguments.
    place : int
        That of the matrix, or of the codes from 0.
    count : int
        Columns or categories.
    but : collection of str
        Sites not to look at.
    """
    codes = not args[place].is_floating_point() and args[place].dim() < 2
    if not 1 < count <= MOST:
        return {}
    try:
        data, dtype, _ = in_one_dtype("run", model, None, args, lambda data: data)
        with isolated(0, dtype), torch.no_grad(), unvalidated():
            trial = _Trial(model, data, place, codes)
            return {
                site: dim
                for site, value in trial.latent.items()
                if site not in but
                for dim, size in enumerate(value.shape)
                if size == count and all(trial.belongs(site, dim, entry, count) for entry in range(count))
            }
    except (
        RuntimeError,
        ValueError,
        IndexError,
    ):  # user models can fail in any way on data that they were not made for
        return {}


class _Trial:
    def __init__(self, model: Callable, data: tuple, place: int, codes: bool) -> None:
        self.model, self.data, self.place, self.codes = model, data, place, codes
        sites = nodes(first_run("run", model, data))
        self.observed = [name for name, site in sites.items() if is_data(site)]
        found = {name: site for name, site in sites.items() if is_latent(site)}
        self.values = {name: site["value"] for name, site in found.items()}
        self.latent = {name: value for name, value in self.values.items() if value.is_floating_point()}
        self.others = {name: found[name]["fn"].sample() for name in self.latent}

    def belongs(self, site: str, dim: int, entry: int, count: int) -> bool:
        """Whether an entry of a site is that of the column, or category, of the same number."""
        argument = self.data[self.place].clone()
        if self.codes:
            argument[argument == entry] = (entry + 1) % count
            other = self.others[site].select(dim, entry)
            changed = {site: self._with(site, dim, entry, other)}
            return self._same(argument, {}, argument, changed) and not self._same(None, {}, None, changed)
        argument[..., entry] = argument[..., entry].roll(1, 0)
        zero = {site: self._with(site, dim, entry, torch.zeros(()))}
        return self._same(None, zero, argument, zero) and not self._same(None, {}, argument, {})

    def _with(self, site: str, dim: int, entry: int, other: Tensor) -> Tensor:
        value = self.latent[site].clone()
        value.select(dim, entry).copy_(other)
        return value

    def _same(self, one: Tensor | None, values: dict[str, Tensor], other: Tensor | None, changed: dict) -> bool:
        before, after = self._log_probs(one, values), self._log_probs(other, changed)
        return bool(before) and all(torch.allclose(before[n], after[n], rtol=1e-6, equal_nan=True) for n in before)

    def _log_probs(self, argument: Tensor | None, changed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return log densities of the data, with another argument and other latent values."""
        place, data = self.place, self.data
        data = data if argument is None else (*data[:place], argument, *data[place + 1 :])
        trace = poutine.trace(poutine.condition(self.model, data=self.values | changed)).get_trace(*data)
        sites = {name: nodes(trace)[name] for name in self.observed if name in nodes(trace)}
        return {name: torch.as_tensor(site["fn"].log_prob(site["value"])) for name, site in sites.items()}

"""The picture of a predictive check shows what it says: shares, intervals, and LOO-PIT within its band or not."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from zoo import linear
from zoo.made import posterior_of

from guidebook.plots import plot_predictive_check

X, Y = linear.data(300)


def tree(noise: float = linear.NOISE) -> xr.DataTree:
    """Of the exact posterior, under a model whose noise may be another than the data's."""

    def model(x: torch.Tensor, y: torch.Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), noise), obs=y)

    w = linear.posterior(X, Y).sample((2, 400))
    return posterior_of(w=w).to_datatree(model, (X, Y))


@pytest.mark.parametrize(("noise", "fits"), [(1.0, True), (2.0, False), (0.5, False)])
def test_loo_pit_leaves_its_band_where_the_spread_is_wrong(noise: float, fits: bool) -> None:
    figure = plot_predictive_check(tree(noise * linear.NOISE))
    ax = figure.axes[1]
    curve = np.asarray(ax.lines[0].get_xydata())
    band = ax.collections[0].get_paths()[0].vertices
    assert bool(np.abs(curve[:, 1]).max() < np.abs(band[:, 1]).max()) == fits
    middle = curve[np.abs(curve[:, 0] - 0.5) < 0.3]
    slope = np.polyfit(middle[:, 0], middle[:, 1], 1)[0]
    if not fits:
        assert (slope > 0) == (noise > 1)  # too wide: steeper than the uniform in the middle


def test_shares_add_up_and_counts_have_their_bins() -> None:
    def model(y: torch.Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Poisson(rate), obs=y)

    y = torch.tensor([0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 5.0, 3.0])
    drawn = posterior_of(rate=torch.full((1, 4000), 2.0)).to_datatree(
        model, (y,), groups=["posterior_predictive", "observed_data"]
    )
    (ax,) = plot_predictive_check(drawn).axes
    bars = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in ax.patches}
    assert [bars[count] for count in range(6)] == pytest.approx([2 / 8, 1 / 8, 3 / 8, 1 / 8, 0, 1 / 8])
    predicted = dict(np.asarray(ax.lines[0].get_xydata()).round(6).tolist())
    for count in range(4):
        expected = math.exp(-2) * 2**count / math.factorial(count)
        assert predicted[count] == pytest.approx(expected, abs=4 * math.sqrt(expected / 32_000))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="the tree has no group 'posterior_predictive'"):
        plot_predictive_check(posterior_of(w=torch.zeros(1, 5)).to_datatree())
    with pytest.raises(ValueError, match="site= must be one of y; got 'z'"):
        plot_predictive_check(tree(), "z")

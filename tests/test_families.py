"""Guide families: what each option changes."""

import pyro
import pytest
import torch
from torch import Tensor
from zoo import linear

from guidebook import guides

DATA = linear.data(20)


def size(guide) -> int:
    with pyro.get_param_store().scope():
        guide(*DATA)
        return sum(p.numel() for p in guide.parameters())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_rank_is_the_number_of_columns(rank: int) -> None:
    """Mean, diagonal, and d × rank numbers of the factor."""
    assert size(guides.low_rank(linear.model, rank=rank)) == 3 + 3 + 3 * rank


def test_the_default_rank_is_the_root_of_the_dimension() -> None:
    assert size(guides.low_rank(linear.model)) == size(guides.low_rank(linear.model, rank=round(3**0.5)))


def test_every_transform_has_parameters_of_its_own() -> None:
    one, two, three = (size(guides.flow(linear.model, num_transforms=n)) for n in (1, 2, 3))
    assert (two, three) == (2 * one, 3 * one)
    assert size(guides.flow(linear.model)) == two


def test_hidden_is_the_width_of_a_transforms_layer() -> None:
    """3 inputs, h units, mean and scale of 3 outputs: 3 h + h, 6 h + 6, and 18 that skip the layer or none."""
    narrow, wide, wider = (size(guides.flow(linear.model, num_transforms=1, hidden=h)) for h in (4, 5, 6))
    assert wide - narrow == wider - wide == 3 + 1 + 6


@pytest.mark.parametrize("family", [guides.mean_field, guides.low_rank, guides.full_rank])
def test_the_initial_standard_deviation(family) -> None:
    def spread(**options: float) -> Tensor:
        with pyro.get_param_store().scope():
            pyro.set_rng_seed(0)
            guide = family(linear.model, **options)
            guide(*DATA)
            return torch.stack([guide(*DATA)["w"] for _ in range(1000)]).std(0)

    torch.testing.assert_close(spread(init_scale=0.4) / spread(init_scale=0.1), torch.full((3,), 4.0).double())
    if family is not guides.low_rank:  # whose factor adds to it
        assert (spread() / 0.1 - 1).abs().max() < 5 / (2 * 999) ** 0.5

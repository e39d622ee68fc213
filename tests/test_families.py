"""Guide families: what each option changes."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from zoo import linear

from guidebook import guides
from guidebook.inference.traces.guides import preferred_options

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
    """Beside those of the affine map: mean, scales, and a triangle of 3 × 3."""
    one, two, three = (size(guides.flow(linear.model, num_transforms=n)) - 15 for n in (1, 2, 3))
    assert (two, three) == (2 * one, 3 * one)
    assert size(guides.flow(linear.model)) - 15 == 6 * one


def test_hidden_is_the_width_of_a_couplings_layers() -> None:
    """1 input, h units, h units, shift and scale of 2 outputs: 2 h + h² + h + 4 h + 4, and 6 for the margins."""
    for hidden in (4, 5, 6):
        assert size(guides.flow(linear.model, num_transforms=1, hidden=hidden)) == 15 + 7 * hidden + hidden**2 + 4 + 6


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_a_flow_is_a_density(dim: int) -> None:
    """Its density at its draws is that of the base, less the log determinant of the whole map, by differentiation."""

    def model() -> None:
        pyro.sample("z", dist.Normal(torch.zeros(dim).double(), 1.0).to_event(1))

    pyro.set_rng_seed(1)
    with pyro.get_param_store().scope():
        guide = guides.flow(model, num_transforms=3)
        guide()
        with torch.no_grad():
            for p in guide.parameters():
                p.add_(0.3 * torch.randn_like(p))
        posterior = guide.get_posterior()
        base = torch.randn(dim).double()
        z = guide.get_transform()(base)
        jacobian = torch.autograd.functional.jacobian(lambda e: guide.get_transform()(e), base)
        expected = dist.Normal(0.0, 1.0).log_prob(base).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(posterior.log_prob(z.detach().clone()), expected)
        torch.testing.assert_close(guide.get_transform().inv(z), base)


def test_a_flow_cannot_explode() -> None:
    """The bounds on bends and log scales hold however large the parameters are."""
    with pyro.get_param_store().scope():
        guide = guides.flow(linear.model, num_transforms=2)
        guide(*DATA)
        with torch.no_grad():
            for p in guide.parameters():
                p.mul_(1e6)
        assert torch.isfinite(torch.stack([guide(*DATA)["w"] for _ in range(20)])).all()


def test_families_may_prefer_a_loss() -> None:
    assert preferred_options(guides.flow) == {"loss": "sticking", "num_particles": 16}
    assert preferred_options(partial(guides.flow, num_transforms=2)) == preferred_options(guides.flow)
    assert preferred_options(guides.mean_field) == {}
    assert preferred_options(lambda: None) == {}


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

"""Results remembered by a tensor's content: never those of other numbers, nor longer than the tensor lives."""

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from guidebook.inference import cavi, em, gibbs
from guidebook.models import gmm, mixture
from guidebook.models._shared.cache import remembered
from guidebook.models.gmm import prior as gmm_prior
from guidebook.models.mixture import prior as mixture_prior


class Total:
    """A remembered function that counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0
        self.of = remembered(self.work_out)

    def work_out(self, x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        self.calls += 1
        return factor * x.sum()


def through_numpy(x: torch.Tensor) -> None:
    x.numpy()[0] += 1


def through_data(x: torch.Tensor) -> None:
    x.data[0] += 1


def in_place(x: torch.Tensor) -> None:
    x[0] += 1


@pytest.mark.parametrize("change", [through_numpy, through_data, in_place])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int16])
def test_a_changed_tensor_is_worked_out_again(change: Callable, dtype: torch.dtype) -> None:
    total, x = Total(), torch.zeros(5, dtype=dtype)
    assert [float(total.of(x)) for _ in range(3)] == [0, 0, 0]
    assert total.calls == 1
    change(x)
    assert [float(total.of(x)) for _ in range(3)] == [1, 1, 1]
    assert total.calls == 2


def test_options_have_results_of_their_own() -> None:
    total, x = Total(), torch.ones(3)
    assert [float(total.of(x, factor)) for factor in (2.0, 3.0, 2.0)] == [6, 9, 6]
    assert total.calls == 2


def test_shape_and_type_are_part_of_the_content() -> None:
    total = remembered(lambda x: (x.shape, x.dtype))
    x = torch.zeros(6)
    assert total(x) == ((6,), torch.float32)
    x.data = x.data.view(2, 3)
    assert total(x) == ((2, 3), torch.float32)
    x.data = torch.zeros(2, 3, dtype=torch.int32)  # the same bytes
    assert total(x) == ((2, 3), torch.int32)


def test_a_view_is_read_as_it_lies() -> None:
    total, x = Total(), torch.arange(12.0).reshape(3, 4)
    columns = x[:, ::2]
    assert float(total.of(columns)) == 30
    x[0, 1] = 99  # not in the view
    assert float(total.of(columns)) == 30
    assert total.calls == 1
    x[0, 2] += 1
    assert float(total.of(columns)) == 31


def test_memory_dies_with_its_tensor() -> None:
    made = []

    @remembered
    def double(x: torch.Tensor) -> torch.Tensor:
        result = 2 * x
        made.append(weakref.ref(result))
        return result

    x = torch.ones(3)
    double(x)
    assert made[0]() is not None
    del x
    gc.collect()
    assert made[0]() is None


def test_differentiated_tensors_are_not_remembered() -> None:
    total, x = Total(), torch.ones(3, requires_grad=True)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(total.of(x, 2.0), x)
        assert gradient.tolist() == [2, 2, 2]
    assert total.calls == 2


def test_each_row_of_a_vectorised_call_has_its_own_result() -> None:
    total, x = Total(), torch.arange(6.0).reshape(3, 2)
    assert torch.vmap(total.of)(x).tolist() == [1, 5, 9]
    assert torch.func.grad(total.of)(x[0]).tolist() == [1, 1]


def test_an_input_of_a_graph_is_traced_and_not_baked_in() -> None:
    total, x = Total(), torch.ones(3)
    total.of(x)  # known before
    graph = make_fx(lambda value: total.of(value) + 1)(x)
    assert float(graph(torch.full((3,), 5.0))) == 16


def test_a_constant_of_a_graph_is_remembered() -> None:
    total, x = Total(), torch.ones(3)
    total.of(x)
    graph = make_fx(lambda value: total.of(x) * value)(torch.tensor(2.0))
    assert float(graph(torch.tensor(5.0))) == 15
    assert total.calls == 1


@pytest.mark.parametrize("known", [False, True])
def test_a_constant_of_a_differentiated_graph_is_remembered(known: bool) -> None:
    """As in a traced potential; the result is a plain tensor, that lives on when the transforms are gone."""
    total, x = Total(), torch.ones(3)
    if known:
        total.of(x)
    graph = make_fx(torch.func.grad(lambda value: total.of(x) * value**2))(torch.tensor(2.0))
    assert float(graph(torch.tensor(5.0))) == 30
    assert not any("sum" in str(node.target) for node in graph.graph.nodes)
    assert float(total.of(x) + 1) == 4
    assert total.calls == 1


# Data changed through NumPy's memory between two fits


def normal_rows() -> np.ndarray:
    return gmm.simulate(60, num_components=2, seed=1)[0].numpy().copy()


def counts() -> np.ndarray:
    return mixture.simulate(60, num_components=2, num_features=3, seed=1)[0].numpy().copy()


ROWS = {"gmm": normal_rows, "mixture": counts}
MODELS = {"gmm": gmm, "mixture": mixture}


@pytest.mark.filterwarnings("ignore:gibbs.*not mixed")  # of a short run
@pytest.mark.parametrize("name", ROWS)
def test_fits_follow_numpys_memory(name: str) -> None:
    model = MODELS[name]
    em_steps, map_steps = model.em_steps(2), model.em_steps(2, map=True)
    cavi_steps, gibbs_steps = model.cavi_steps(2), model.gibbs_steps(2)

    def fit(x: torch.Tensor) -> list:
        draws = gibbs(gibbs_steps, x, num_draws=5, num_warmup=2, num_chains=1, progress=False).draws
        return [
            em(em_steps, x, num_restarts=2).info.log_likelihood,
            em(map_steps, x, num_restarts=2).info.log_likelihood,
            cavi(cavi_steps, x, num_restarts=2, num_draws=1).info.elbo,
            float(draws["loc" if name == "gmm" else "rate"].sum()),
        ]

    array = ROWS[name]()
    x = torch.from_numpy(array)
    before = fit(x)
    array *= 2
    assert fit(x) == fit(torch.tensor(array))
    assert all(abs(after - old) > 1 for after, old in zip(fit(x), before, strict=True))


@pytest.mark.parametrize("name", ROWS)
def test_densities_follow_numpys_memory(name: str) -> None:
    """The default prior of the model, and the mixture's factorials."""
    model, array = MODELS[name], ROWS[name]()
    x = torch.from_numpy(array)
    params = em(model.em_steps(2), x, num_restarts=1).params
    model.model(x, num_components=2)
    model.log_likelihood(params, x)
    array *= 2
    copied = torch.tensor(array)
    assert torch.equal(model.log_likelihood(params, x), model.log_likelihood(params, copied))
    prior, fresh = (model.default_prior(value, 2) for value in (x, copied))
    remembered_prior = {"gmm": gmm_prior, "mixture": mixture_prior}[name].remembered_prior
    for one, two, three in zip(prior, fresh, remembered_prior(x, 2), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(two))
        assert torch.equal(torch.as_tensor(three), torch.as_tensor(two))

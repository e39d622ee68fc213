"""NUTS in compiled code: the table against torch, the potentials against Pyro's, the draws against exact answers."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from zoo import linear
from zoo.branching import branching, summed_out, two_component
from zoo.schools import EFFECT, ERROR, non_centred

from guidebook.inference import gibbs, nuts
from guidebook.inference.diagnostics import mcse
from guidebook.inference.engines import xla
from guidebook.inference.engines.graph import CannotCompile, functional
from guidebook.inference.mcmc.chains import make_target
from guidebook.inference.traces.prepare import prepare
from guidebook.inference.traces.vectors import as_sites, as_vector
from guidebook.models import gmm
from guidebook.workflow.fit import load_task

jax = pytest.importorskip("jax")
pytest.importorskip("numpyro")
from guidebook.inference.engines.xla import adapt, program, table, translate  # noqa: E402

GENERATOR = torch.Generator().manual_seed(0)
F8 = torch.float64


def real(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=F8)


def positive(*shape: int) -> Tensor:
    return 0.5 + 1.5 * torch.rand(shape, generator=GENERATOR, dtype=F8)


def unit(*shape: int) -> Tensor:
    return 0.05 + 0.9 * torch.rand(shape, generator=GENERATOR, dtype=F8)


def whole(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=GENERATOR)


def binary(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR) < 0.5


def definite(*lead: int, size: int = 3) -> Tensor:
    factor = real(*lead, size, size)
    return factor @ factor.mT + size * torch.eye(size, dtype=F8)


def lower(*lead: int, size: int = 3) -> Tensor:
    return torch.linalg.cholesky(definite(*lead, size=size))


def convolution(transposed: bool, groups: int = 1, stride: int = 1, padding: int = 0, more: int = 0) -> tuple:
    weight = real(4, 3, 3, 2) if transposed else real(6, 4 // groups, 3, 2)
    bias = real(3 * groups) if transposed else real(6)
    return real(2, 4, 7, 6), weight, bias, [stride] * 2, [padding] * 2, [1, 1], transposed, [more] * 2, groups


X, Y, P, Q, U = real(3, 4), real(3, 4), positive(3, 4), positive(4), unit(3, 4)
MASK, INDEX = binary(3, 4), whole(3, 2, 4)
NEW: dict[str, Any] = {"device": torch.device("cpu"), "pin_memory": False}
CASES: dict[str, list[tuple]] = {
    **{name: [(U,)] for name in ("acos", "asin", "atanh", "erfinv", "logit", "special_ndtri")},
    **{name: [(P,)] for name in ("digamma", "lgamma", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt")},
    **{name: [(X,), (real(),)] for name in ("abs", "asinh", "atan", "cos", "cosh", "erf", "erfc", "exp", "exp2")},
    **{
        name: [(X,)]
        for name in ["expm1", "neg", "relu", "sgn", "sigmoid", "sign", "silu", "sin", "sinh", "tan", "tanh"]
    },
    **{name: [(3 * X,)] for name in ("ceil", "floor", "frac", "round", "trunc", "log_sigmoid_forward", "elu", "gelu")},
    **{name: [(X,)] for name in ("i0", "special_i0e", "special_log_ndtr", "softplus")},
    **{name: [(X, Y), (X, Q)] for name in ("maximum", "minimum", "atan2", "hypot", "logaddexp")},
    **{name: [(X, 0.3)] for name in ("clamp_max", "clamp_min", "fmod.Scalar", "remainder.Scalar")},
    **{f"{name}.Tensor": [(X, Y), (X, Q), (X, real())] for name in ("mul", "fmod", "remainder", "div")},
    **{f"{name}.Scalar": [(X, 1.5), (whole(5, 3), 2)] for name in ("add", "sub", "mul", "div")},
    **{f"{name}.Tensor": [(MASK, binary(4)), (whole(8, 3), whole(8, 3))] for name in ("bitwise_and", "bitwise_or")},
    **{f"{name}.Tensor": [(whole(3, 5), whole(3, 5)), (X, Y)] for name in ("eq", "ge", "gt", "le", "lt", "ne")},
    **{f"{name}.Scalar": [(whole(3, 5), 1), (X, 0.2)] for name in ("eq", "ge", "gt", "le", "lt", "ne")},
    **{name: [(MASK, binary(4))] for name in ("logical_and", "logical_or")},
    **{name: [(MASK,)] for name in ("logical_not", "bitwise_not", "all", "any")},
    **{f"{name}.dim": [(MASK, 1), (MASK, 0, True)] for name in ("all", "any")},
    **{f"{name}.dims": [(MASK, [0, 1]), (MASK, [1], True)] for name in ("all", "any")},
    **{name: [(X, [0]), (X, [-1], True), (X,)] for name in ("amax", "amin")},
    **{name: [(X, -1), (X, 0), (real(), 0)] for name in ("cumsum", "cumprod", "logcumsumexp")},
    **{name: [(X,)] for name in ("max", "min", "mean", "prod", "sum")},
    **{f"{name}.dim": [(X, 1), (X, -2, True)] for name in ("max", "min")},
    **{name: [(X, 1, False), (X, 0, False)] for name in ("_softmax", "_log_softmax")},
    **{name: [(X,)] for name in ("alias", "clone", "detach")},
    **{name: [(X, [2, 6]), (X, [-1])] for name in ("view", "_unsafe_view")},
    **{name: [(X,), (X, 1), (real(2, 4, 4), -1)] for name in ("tril", "triu")},
    "copy": [(X, Y), (X, real())],
    **{name: [(X,), (X, NEW | {"dtype": torch.float32})] for name in ("ones_like", "zeros_like")},
    **{name: [(X, [2, 3]), (X, [2], NEW | {"dtype": torch.int64})] for name in ("new_ones", "new_zeros")},
    "_cdist_forward": [
        (real(5, 3), real(4, 3), 2.0, None),
        (X[:2], X, 2.0, None),
        (real(2, 5, 3), real(2, 4, 3), 1.0, 2),
    ],
    "_linalg_check_errors": [(torch.zeros(2, dtype=torch.int32), "linalg.cholesky", {"is_matrix": False})],
    "_linalg_det": [(definite(),), (real(2, 3, 3),)],
    "_linalg_eigh": [(definite(),), (definite(2),)],
    "_linalg_slogdet": [(definite(),), (real(2, 3, 3),)],
    "_linalg_solve_ex": [
        (definite(), real(3, 2)),
        (definite(2), real(2, 3)),
        (definite(), real(2, 3), {"left": False}),
    ],
    "_to_copy": [(X, {"dtype": torch.float32}), (MASK, {"dtype": F8}), (3 * X, {"dtype": torch.int64})],
    "acosh": [(P + 1,)],
    "add.Tensor": [(X, Q), (X, Y, {"alpha": 2}), (X.float(), torch.tensor(1.5)), (whole(4, 3), torch.tensor(1.5))],
    "addcdiv": [(X, Y, P, {"value": 0.5})],
    "addcmul": [(X, Y, P, {"value": 0.5})],
    "addmm": [(real(2), real(3, 4), real(4, 2)), (real(3, 2), real(3, 4), real(4, 2), {"beta": 2, "alpha": 0.5})],
    "addmv": [(real(3), X, real(4))],
    "baddbmm": [(real(2, 3, 5), real(2, 3, 4), real(2, 4, 5))],
    "binary_cross_entropy_with_logits": [
        (X, MASK.double(), None, None, 0),
        (X, U, Q, positive(4), 1),
        (X, U, None, positive(4), 2),
    ],
    "bmm": [(real(2, 3, 4), real(2, 4, 5))],
    "cat": [([X, Y],), ([X, real(3, 2), real(0)], -1)],
    "cholesky": [(definite(2),)],
    "cholesky_inverse": [(lower(),), (lower(2).mT, True)],
    "cholesky_solve": [(real(3, 2), lower()), (real(2, 3, 2), lower(2).mT, True)],
    "clamp": [(X, -0.5, 0.5), (X, None, 0.1), (X, 0.1)],
    "clamp.Tensor": [(X, Y - 1, Y + 1)],
    "clamp_max.Tensor": [(X, Y)],
    "clamp_min.Tensor": [(X, Y)],
    "constant_pad_nd": [(X, [1, 2]), (X, [1, -1, 0, 2], 0.7)],
    "convolution": [
        convolution(False, stride=2, padding=1),
        convolution(False, groups=2),
        convolution(True, groups=2),
        convolution(True, stride=2, padding=1, more=1),
    ],
    "diag_embed": [(X,), (X, 1), (X, -1, 0, 2)],
    "diagonal": [(real(4, 4),), (real(2, 4, 3), -1, -2, -1), (real(2, 4, 3), 1, 0, 2)],
    "diagonal_scatter": [(real(4, 4), real(4)), (real(2, 4, 3), real(2, 3), -1, -2, -1)],
    "div.Scalar_mode": [(3 * X, 2, {"rounding_mode": "floor"})],
    "div.Tensor": [(X, P), (whole(9, 3), 1 + whole(4, 3)), (X, real())],
    "div.Tensor_mode": [(3 * X, Y, {"rounding_mode": mode}) for mode in (None, "floor", "trunc")],
    "dot": [(real(4), real(4))],
    "elu": [(3 * X,), (3 * X, 0.7, 1.1, 0.9)],
    "embedding": [(real(5, 3), whole(5, 2, 4))],
    "empty_like": [(X,)],
    "expand": [(real(3, 1), [2, 3, 4]), (real(3, 1), [-1, 4])],
    "fill.Scalar": [(X, 2.5)],
    "fill.Tensor": [(X, real())],
    "flip": [(X, [0, 1]), (X, [-1])],
    "floor_divide": [(3 * X, P)],
    "full_like": [(X, 2.5), (MASK, 1.5, NEW | {"dtype": F8})],
    "gather": [(X, 0, INDEX), (X, 1, whole(4, 3, 2))],
    "gelu": [(X,), (X, {"approximate": "tanh"})],
    "hardtanh": [(X,), (X, -0.3, 0.6)],
    "igamma": [(P, positive(3, 4))],
    "igammac": [(P, positive(3, 4))],
    "index.Tensor": [(X, [whole(3, 5)]), (X, [None, whole(4, 5)]), (X, [whole(3, 5), whole(4, 5)])],
    "index_add": [(X, 0, whole(3, 5), real(5, 4)), (X, -1, whole(4, 2), real(3, 2), {"alpha": 0.5})],
    "index_put": [
        (X, [torch.tensor([2, 0])], real(2, 4)),
        (X, [None, torch.tensor([1, 3])], real(3, 2)),
        (X, [torch.tensor([1, 1]), torch.tensor([2, 2])], real(2), True),
        (X, [MASK], real()),
        (X, [binary(3)], real(), True),
    ],
    "index_select": [(X, 1, whole(4, 6))],
    "isinf": [(torch.tensor([1.0, float("inf"), float("nan")]),)],
    "isnan": [(torch.tensor([1.0, float("inf"), float("nan")]),)],
    "leaky_relu": [(X,), (X, 0.2)],
    "lerp.Scalar": [(X, Y, 0.3)],
    "lerp.Tensor": [(X, Y, U)],
    "linalg_cholesky_ex": [(definite(),), (definite(2), {"upper": True})],
    "linalg_cross": [(real(4, 3), real(4, 3)), (real(3, 4), real(3, 4), {"dim": 0})],
    "linalg_inv_ex": [(definite(2),)],
    "linalg_matrix_exp": [(real(3, 3),)],
    "linalg_solve_triangular": [
        (lower(), real(3, 2), {"upper": False}),
        (lower(2).mT, real(3, 2), {"upper": True}),
        (lower(), real(2, 3), {"upper": False, "left": False}),
        (lower(), real(3, 2), {"upper": False, "unitriangular": True}),
    ],
    "linalg_vector_norm": [(X,), (X, 2, [1]), (X, 3, [0], True), (X, 1), (X, float("inf"), [1])],
    "logsumexp": [(X, [1]), (X, [0, 1]), (X, [0], True)],
    "masked_fill.Scalar": [(X, MASK, 0.5)],
    "masked_fill.Tensor": [(X, MASK, real())],
    "mean": [(X,), (whole(5, 4), {"dtype": F8})],
    "mean.dim": [(X, [1]), (X, [0, 1], True)],
    "mm": [(real(2, 3), real(3, 4))],
    "mv": [(X, real(4))],
    "nan_to_num": [(torch.tensor([1.0, float("inf"), float("-inf"), float("nan")], dtype=F8), 0.5, 9.0)],
    "native_layer_norm": [(X, [4], Q, real(4), 1e-5), (X, [3, 4], None, None, 0.1)],
    "new_empty": [(X, [2, 3])],
    "new_full": [(X, [2, 3], 1.5)],
    "permute": [(real(2, 3, 4), [2, 0, 1])],
    "polygamma": [(1, P), (2, P)],
    "pow.Scalar": [(1.7, X)],
    "pow.Tensor_Scalar": [(X, 2), (X, 3.0), (P, 0.5), (P, -1.5)],
    "pow.Tensor_Tensor": [(P, Y), (P, real())],
    "prod.dim_int": [(X, 1), (X, 0, True)],
    "repeat": [(X, [2, 1]), (X, [2, 1, 3])],
    "roll": [(X, [1], [1]), (X, [3]), (X, [1, -1], [0, 1])],
    "rsub.Scalar": [(X, 1.5), (X, 1.5, 2)],
    "rsub.Tensor": [(X, Y)],
    "scatter.src": [(X, 0, torch.tensor([[2, 0, 1, 1]]), real(1, 4))],
    "scatter.value": [(X, 1, torch.tensor([[1], [3], [0]]), 0.5)],
    "scatter_add": [(X, 0, INDEX, real(2, 4)), (X, 1, whole(4, 3, 2), real(3, 2))],
    "select.int": [(X, 0, 1), (X, -1, -2)],
    "select_scatter": [(X, real(4), 0, 1), (X, real(3), -1, -2)],
    "slice.Tensor": [(X, 1, 1, 3), (X, 0, -2, 9223372036854775807), (X, -1, 0, 4, 2)],
    "slice_scatter": [(X, real(3, 2), 1, 1, 3), (X, real(2, 4), 0, 0, 3, 2)],
    "softplus": [(3 * X,), (30 * X, 0.5, 10)],
    "sort": [(X,), (X, 0, True)],
    "special_entr": [(P,)],
    "special_xlog1py": [(X, P)],
    "special_zeta": [(P + 1, positive(3, 4))],
    "split.Tensor": [(X, 3, 1), (X, 2)],
    "split_with_sizes": [(X, [1, 3], 1)],
    "squeeze": [(real(1, 3, 1),)],
    "squeeze.dim": [(real(1, 3, 1), 0), (real(2, 3), 0)],
    "squeeze.dims": [(real(1, 3, 1), [0, 1]), (real(1, 3, 1), [-1])],
    "stack": [([X, Y],), ([X, Y], -1)],
    "std.correction": [(X, [1]), (X, None, {"correction": 0})],
    "sub.Tensor": [(X, Q), (X, Y, {"alpha": 2})],
    "sum": [(X,), (MASK,)],
    "sum.dim_IntList": [(X, [1]), (X, [0, 1], True), (X, []), (MASK, [0])],
    "t": [(X,), (real(3),)],
    "topk": [(X, 2), (X, 2, 0, False)],
    "transpose.int": [(real(2, 3, 4), 0, -1)],
    "triangular_solve": [(real(3, 2), lower().mT), (real(3, 2), lower(), False), (real(3, 2), lower(), False, True)],
    "unbind.int": [(X,), (X, 1)],
    "unfold": [(X, 1, 2, 1), (real(7), 0, 3, 2), (real(2, 5, 3), -2, 3, 2)],
    "unsqueeze": [(X, 0), (X, -1)],
    "var.correction": [(X,), (X, [1], {"correction": 0, "keepdim": True})],
    "var_mean.correction": [(X,), (X, [1], {"correction": 0, "keepdim": True})],
    "where.self": [(MASK, X, Y), (MASK, X, real())],
    "xlogy.Scalar_Other": [(X, 1.5)],
    "xlogy.Scalar_Self": [(1.5, P)],
    "xlogy.Tensor": [(X, P), (torch.zeros(2, dtype=F8), positive(2))],
}

FIRST_ALONE = ("_linalg_eigh", "log_sigmoid_forward", "triangular_solve")  # signs are free; a buffer; a copy
WITHOUT_VALUES = ("empty_like", "new_empty")
WITHOUT_GRADIENT = ("copy", "detach", "floor_divide")  # in torch
DIFFERENTIABLE = {name: (1,) for name in ("igamma", "igammac", "special_zeta")}  # arguments that are so in torch
DIFFERENTIABLE["binary_cross_entropy_with_logits"] = (0, 1)
TRIANGULAR = ("cholesky_inverse", "cholesky_solve")  # torch has a gradient for the half that it does not read
TOLERANCE = {"polygamma": 1e-8}  # torch has fewer digits


def is_in_torch(name: str) -> bool:
    try:
        torch_operation(name)
    except AttributeError:
        return False
    return True


def torch_operation(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [part for item in value for part in tensors(item)] if isinstance(value, (tuple, list)) else []


def mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    return type(value)(mapped(item, function) for item in value) if isinstance(value, (tuple, list)) else value


def results(name: str, value: Any) -> list[Any]:
    parts = list(value) if isinstance(value, (tuple, list)) else [value]
    return parts[:1] if name in FIRST_ALONE else parts


def test_every_operation_of_the_table_is_tested() -> None:
    here = {name for name in CASES if is_in_torch(name)}  # another release may have dropped one
    assert {translate.name_of(torch_operation(name)) for name in here} == set(table.TABLE) - (set(CASES) - here)
    assert len(CASES) - len(here) < 3
    assert all(CASES.values())


@pytest.mark.parametrize("name", sorted(CASES))
def test_operation_equals_torchs(name: str) -> None:
    if not is_in_torch(name):
        pytest.skip("this release of torch does not have it")
    operation, tolerance = torch_operation(name), TOLERANCE.get(name, 1e-10)
    for case in CASES[name]:
        *args, kwargs = case if isinstance(case[-1], dict) else (*case, {})
        floats = [value for value in tensors(args) if value.is_floating_point()]
        leaves = [floats[at] for at in DIFFERENTIABLE.get(name, range(len(floats)))]
        like = operation(*mapped(args, torch.clone), **kwargs)
        given = {id(leaf): leaf.clone().requires_grad_(name not in WITHOUT_GRADIENT) for leaf in leaves}
        theirs = results(name, operation(*mapped(args, lambda t, given=given: given.get(id(t), t)), **kwargs))

        def in_jax(values: list, args=args, kwargs=kwargs, like=like, leaves=leaves) -> list:
            instead = {id(leaf): value for leaf, value in zip(leaves, values, strict=True)}
            arguments = mapped(args, lambda t: instead.get(id(t), t.numpy()))
            return results(name, translate.apply(operation, *arguments, like=like, **kwargs))

        with jax.enable_x64(True):
            arrays = [leaf.numpy() for leaf in leaves]
            there = [at for at, value in enumerate(jax.eval_shape(in_jax, arrays)) if value is not None]
            weights = {at: torch.randn_like(theirs[at]) for at in there if theirs[at].requires_grad}

            def weighed(values: list, weights=weights, in_jax=in_jax) -> tuple:
                ours = in_jax(values)
                return jax.numpy.zeros(()) + sum((w.numpy() * ours[at]).sum() for at, w in weights.items()), ours

            gradients, ours = jax.jit(jax.grad(weighed, has_aux=True))(arrays)
        for at in there:
            assert ours[at].shape == theirs[at].shape
            assert str(ours[at].dtype) == str(theirs[at].dtype).removeprefix("torch.")
            if name not in WITHOUT_VALUES:
                np.testing.assert_allclose(ours[at], theirs[at].detach().numpy(), rtol=tolerance, atol=1e-12)
        if weights:
            total = sum((weight * theirs[at]).sum() for at, weight in weights.items())
            wanted = torch.autograd.grad(total, list(given.values()), allow_unused=True)
            for leaf, our_gradient, their_gradient in zip(leaves, gradients, wanted, strict=True):
                expected = np.zeros(leaf.shape) if their_gradient is None else their_gradient.numpy(force=True)
                unread = (leaf.numpy() == 0) & (name in TRIANGULAR)
                digits = 10 * tolerance if leaf.dtype == F8 else 1e-5
                np.testing.assert_allclose(
                    np.where(unread, 0, our_gradient), np.where(unread, 0, expected), rtol=digits, atol=digits
                )


def test_a_detached_value_has_no_gradient() -> None:
    assert float(jax.grad(lambda a: translate.apply(torch.ops.aten.detach.default, a) * a)(3.0)) == 3.0


CATALOGUE = [
    ("logistic", None, []),
    *[("gmm", None, [f"covariance={kind}"]) for kind in ("full", "tied", "diagonal", "isotropic")],
    *[("mixture", None, [f"family={family}"]) for family in ("poisson", "multinomial")],
    ("ppca", None, []),
    ("factor_analysis", None, []),
    ("lda", "three_documents", ["num_topics=2", "alpha=1.0", "eta=1.0"]),
]


def translated(model: Callable, data: tuple) -> tuple[Callable, Callable, list, Tensor]:
    """The potential over vectors, its translation with what that takes, and a start."""
    pyro.set_rng_seed(0)
    start, potential = make_target("nuts", prepare("nuts", model, data))
    shapes = {name: value.shape for name, value in start.items()}

    def eager(at: Tensor) -> Tensor:
        with pyro.validation_enabled(False):
            return potential(as_sites(at, shapes))

    at = as_vector(start)
    run, constants = program.as_jax(functional(eager, at, translate.knows))
    return eager, run, constants, at


@pytest.mark.parametrize(("name", "data", "settings"), CATALOGUE, ids=lambda value: str(value))
def test_potentials_of_the_catalogue_equal_pyros(name: str, data: str | None, settings: list[str]) -> None:
    task = load_task(name, data, settings, ["nuts"])
    eager, run, constants, at = translated(task.model, task.args)
    with jax.enable_x64(True):
        evaluate = jax.jit(jax.value_and_grad(run))
        for step in range(3):
            place = at + 0.2 * step * torch.randn_like(at)
            value, gradient = evaluate(place.numpy(), *constants)
            leaf = place.clone().requires_grad_()
            (wanted,) = torch.autograd.grad(eager(leaf), leaf)
            assert float(value) == pytest.approx(float(eager(place)), rel=1e-11)
            np.testing.assert_allclose(gradient, wanted.numpy(), rtol=1e-8, atol=1e-8 * float(wanted.abs().max()))


def test_a_constant_mask_may_index() -> None:
    """As the supports of a Cholesky factor of correlations and of a categorical one do."""
    mask = torch.tensor([True, False, True])

    def potential(w: Tensor) -> Tensor:
        return w[mask].exp().sum() + torch.where(mask, w, 2 * w).sum()

    run, constants = program.as_jax(functional(potential, torch.zeros(3, dtype=F8), translate.knows))
    assert not constants
    with jax.enable_x64(True):
        assert float(jax.jit(run)(np.array([0.1, 0.2, 0.3]))) == pytest.approx(np.exp(0.1) + np.exp(0.3) + 0.8)


def odd(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
    pyro.factor("odd", torch.special.airy_ai(w))


def bent(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
    mixed = torch.tril(w[:, None] * w).clone()
    mixed[0] = w.exp()
    pyro.factor("bent", torch.nn.functional.huber_loss(mixed.cumsum(0).logsumexp(-1), x))


def test_what_torch_can_take_apart_is_taken_apart() -> None:
    eager, run, constants, at = translated(bent, (torch.tensor([0.3, -1.0, 2.0], dtype=F8),))
    with jax.enable_x64(True):
        assert float(run(at.numpy(), *constants)) == pytest.approx(float(eager(at)), rel=1e-12)


@pytest.mark.parametrize(
    "reshape",
    [
        lambda w, x: w @ x,
        lambda w, x: (w[None] @ x).squeeze_()[None].unsqueeze_(-1),
        lambda w, x: x.mT.unsqueeze_(0) @ w,
    ],
    ids=["torch's own product", "by the user", "of a constant"],
)
def test_a_change_of_shape_in_place_is_no_write(reshape: Callable) -> None:
    """Torch's product of a vector and a matrix ends in one."""
    x, w = real(3, 4), real(3)

    def potential(w: Tensor) -> Tensor:
        product = reshape(w, x)
        return product.exp().sum() * product.shape[-1] + product.dim()

    run, constants = program.as_jax(functional(potential, torch.zeros(3, dtype=F8), translate.knows))
    with jax.enable_x64(True):
        assert float(run(w.numpy(), *constants)) == pytest.approx(float(potential(w)), rel=1e-12)


def test_constants_are_slim_arguments() -> None:
    """Data are handed to the program, not compiled into it; what is alike along a dimension has length one there."""
    x = real(50, 2)
    lgamma = x.abs().lgamma()

    def potential(w: Tensor) -> Tensor:
        return (x.abs().lgamma() * w).sum() + (w * torch.ones(7, 2)).sum() + 3.0 * w.sum()

    run, constants = program.as_jax(functional(potential, torch.zeros(2, dtype=F8), translate.knows))
    assert [value.shape for value in constants] == [(50, 2)]
    np.testing.assert_allclose(constants[0], lgamma.numpy())
    with jax.enable_x64(True):
        w = real(2)
        assert float(run(w.numpy(), *constants)) == pytest.approx(float(potential(w)))


def test_words_for_what_cannot_be_translated() -> None:
    x = linear.data()[0]
    with pytest.raises(
        CannotCompile, match=r"operation aten.special_airy_ai.default \(test_xla.py, line \d+: pyro.factor"
    ):
        translated(odd, (x,))
    with pytest.raises(
        CannotCompile, match=r"a branch on its value does \(branching.py, line \d+: slope = w if w.item"
    ):
        translated(branching, linear.data())
    run: dict[str, Any] = {"num_draws": 20, "num_warmup": 30, "num_chains": 1, "progress": False}
    with pytest.raises(ValueError, match="engine='xla' is not available: there is no translation of the operation"):
        nuts(odd, x, engine="xla", **run)


@pytest.mark.filterwarnings("ignore:nuts.*not mixed")  # of a short run
def test_auto_falls_back_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[nuts.__module__], "WORTH_COMPILING", 10)
    run: dict[str, Any] = {"num_draws": 20, "num_warmup": 30, "num_chains": 1, "progress": False}
    with pytest.warns(UserWarning, match=r"nuts: Pyro samples, more slowly .* \(branching.py, line"):
        posterior = nuts(branching, *linear.data(), **run)
    assert posterior.info.engine == "pyro"
    assert posterior.info.energy is None
    monkeypatch.setattr(xla, "installed", lambda: False)
    with pytest.warns(UserWarning, match=r"more slowly .* it needs JAX and NumPyro: pip install 'guidebook\[xla\]'"):
        assert nuts(linear.model, *linear.data(), **run).info.engine == "pyro"
    with pytest.raises(ValueError, match=r"pip install 'guidebook\[xla\]'"):
        nuts(linear.model, *linear.data(), engine="xla", **run)


def test_a_translation_that_disagrees_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(table.TABLE, "sub", lambda a, b, alpha=1: a - 1.001 * b)
    with pytest.raises(ValueError, match="the translation disagrees with the model"):
        nuts(linear.model, *linear.data(), engine="xla", num_draws=20, num_warmup=30, num_chains=1, progress=False)


@pytest.fixture(scope="module")
def posterior():
    run = {"num_draws": 1000, "num_warmup": 500, "num_chains": 4, "progress": False}
    return nuts(linear.model, *linear.data(), engine="xla", **run)


def test_moments_of_a_normal_posterior(posterior) -> None:
    exact, w, info = linear.posterior(*linear.data()), posterior.draws["w"], posterior.info
    assert w.dtype == F8
    assert w.shape == (4, 1000, 3)
    flat, size = w.flatten(0, 1), info.ess["w"]
    assert ((flat.mean(0) - exact.mean).abs() < 4 * exact.stddev / size.sqrt()).all()
    assert ((flat.std(0) / exact.stddev - 1).abs() < 4 / (2 * size.min()).sqrt()).all()
    assert torch.allclose(posterior.draws["total"], w.sum(-1))
    assert info.engine == "xla"
    assert info.converged
    assert info.r_hat["w"].max() < 1.01


def test_energy_and_trees_are_those_of_the_hamiltonian(posterior) -> None:
    """Of a normal posterior: energy is the least potential and a gamma variable with mean and variance d = 3."""
    x, y = linear.data()
    exact, info = linear.posterior(x, y), posterior.info
    least = -linear.log_evidence(x, y) - float(exact.log_prob(exact.mean))
    excess = info.energy - least
    assert info.energy.shape == info.tree_depth.shape == (4, 1000)
    assert float(excess.min()) > 0
    assert float(excess.mean()) == pytest.approx(3, abs=4 * (3 / 1000) ** 0.5)
    assert float(excess.var()) == pytest.approx(3, rel=0.3)
    assert 1 <= int(info.tree_depth.min()) <= int(info.tree_depth.max()) <= 5
    assert ((info.step_size > 0.1) & (info.step_size < 3)).all()
    assert ((info.accept_rate > 0.8) & (info.accept_rate <= 1)).all()


def test_warm_up_learns_the_covariance_from_few_draws() -> None:
    """Condition number 10⁸ in 20 dimensions: with a wrong matrix every tree would be full, at 1023 steps."""
    scale = torch.logspace(-4, 4, 20, dtype=F8)
    rotation = torch.linalg.qr(real(20, 20))[0]
    factor = rotation * scale

    def model() -> None:
        pyro.sample("w", dist.MultivariateNormal(torch.zeros(20, dtype=F8), factor @ factor.mT, validate_args=False))

    found = nuts(model, engine="xla", num_draws=300, num_warmup=300, num_chains=2, progress=False)
    assert float(found.info.tree_depth.double().mean()) < 4.5
    whitened = found.draws["w"].flatten(0, 1) @ torch.linalg.inv(factor).mT
    assert ((whitened.std(0) - 1).abs() < 0.2).all()


@pytest.mark.slow
def test_float32_with_a_funnel_and_seeds() -> None:
    """Published means (posteriordb); same seed, same numbers, whatever the number of chains."""
    run = {"num_draws": 1000, "num_warmup": 500, "progress": False, "engine": "xla", "seed": 3, "target_accept": 0.95}
    run["dense_mass"] = False  # warm-up would choose by the draws of all chains
    before = jax.config.jax_enable_x64
    posterior = nuts(non_centred, ERROR, EFFECT, num_chains=4, **run)
    assert jax.config.jax_enable_x64 == before
    assert posterior.draws["theta"].dtype == torch.float32
    assert posterior.draws["theta"].shape == (4, 1000, 8)
    for site, mean, sd in (("mu", 4.4, 3.3), ("tau", 3.6, 3.2)):
        size = float(posterior.info.ess[site])
        assert float(posterior.draws[site].mean()) == pytest.approx(mean, abs=0.05 + 4 * sd / size**0.5)
    again = nuts(non_centred, ERROR, EFFECT, num_chains=1, **run)
    assert torch.equal(again.draws["theta"][0], posterior.draws["theta"][0])
    assert not torch.equal(posterior.draws["mu"][0], posterior.draws["mu"][1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nuts.*not mixed")  # components with unlike priors, swapped
def test_discrete_sites_are_summed_out() -> None:
    x = torch.cat([real(30) - 2, real(30) + 2])
    run = {"num_draws": 500, "num_warmup": 200, "num_chains": 2, "progress": False, "engine": "xla"}
    ours, exact = nuts(two_component, x, **run), nuts(summed_out, x, **run)
    assert set(ours.draws) == {"loc"}
    a, b = ours.draws["loc"].flatten(0, 1), exact.draws["loc"].flatten(0, 1)
    error = (a.var(0) / ours.info.ess["loc"] + b.var(0) / exact.info.ess["loc"]).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 4 * error).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(nuts|gibbs).*swap labels")
def test_a_mixture_agrees_with_gibbs_sampling() -> None:
    x, _ = gmm.simulate(60, num_components=2, seed=4)
    run = {"num_draws": 1000, "num_chains": 2, "progress": False}
    fast = nuts(partial(gmm.model, num_components=2), x, engine="xla", num_warmup=300, **run)
    slow = gibbs(gmm.gibbs_steps(num_components=2), x, num_warmup=100, **run)
    theirs = gmm.identify(slow.draws)
    for name, ours in gmm.identify(fast.draws, theirs).items():
        error = (mcse(ours).square() + mcse(theirs[name]).square()).sqrt()
        assert ((ours.mean((0, 1)) - theirs[name].mean((0, 1))).abs() < 4.5 * error).all(), name


def test_windows_leave_time_for_the_step_size() -> None:
    assert adapt.window_ends(10) == []
    for num_warmup in (50, 100, 300, 1000, 5000):
        times = adapt.window_ends(num_warmup)
        assert times == sorted(set(times))
        assert times[-1] == num_warmup - min(50, num_warmup // 5)

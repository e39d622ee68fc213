"""Sums of products of rows, as few rows: against extended precision, wherever the rows lie and whatever their units."""

import numpy as np
import pytest
import torch

from guidebook.inference.streams import stream
from guidebook.models import ppca
from guidebook.models.linear_gaussian import compress as module
from guidebook.models.linear_gaussian.compress import compress


def close_to_a_plane(thickness: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """3,000 rows near a plane of two dimensions in four, so far from it."""
    generator = torch.Generator().manual_seed(1)
    z, noise = (torch.randn(3000, size, generator=generator, dtype=torch.float64) for size in (2, 4))
    plane = torch.tensor([[2.0, -1.0, 1.5, 0.7], [0.5, 1.0, 0.2, -0.3]], dtype=torch.float64)
    return (z @ plane + thickness * noise).to(dtype)


def centred(x: torch.Tensor, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and rows about it, each times the root of its weight, in 80 bits."""
    rows = x.numpy().astype(np.longdouble)
    times = np.ones(len(rows), np.longdouble) if weights is None else weights.astype(np.longdouble)
    mean = times @ rows / times.sum()
    return mean, np.sqrt(times)[:, None] * (rows - mean)


def error_in_any_direction(rows: torch.Tensor, exact: np.ndarray) -> float:
    """Largest relative error of a sum of squares: X R⁻¹ has orthonormal columns where RᵀR = XᵀX."""
    whitened = exact @ np.linalg.inv(rows.numpy()).astype(np.longdouble)
    return float(np.abs(np.linalg.eigvalsh((whitened.T @ whitened).astype(float)) - 1).max())


@pytest.mark.parametrize("thickness", [1.0, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize(
    ("scale", "offset", "dtype"),
    [
        (1.0, 0.0, torch.float64),
        (1.0, 1e4, torch.float64),
        (1e-100, 0.0, torch.float64),
        (1e100, 0.0, torch.float64),
        (1e-150, 0.0, torch.float64),
        (1.0, 1e4, torch.float32),
    ],
)
def test_no_direction_loses_digits(thickness: float, scale: float, offset: float, dtype: torch.dtype) -> None:
    """Where sums of products would lose 14 digits, at 1e-7, a QR decomposition loses 7."""
    x = close_to_a_plane(thickness).mul(scale).add(offset).to(dtype)
    mean, exact = centred(x.double())
    found, rows = compress(x)
    assert error_in_any_direction(rows, exact) < 1e-7
    np.testing.assert_allclose(found.numpy(), mean.astype(float), rtol=1e-14, atol=1e-15 * scale)


def test_products_are_taken_just_where_they_keep_their_digits() -> None:
    """On one side of some thickness, and there with the error that is promised."""
    taken = []
    for thickness in 10.0 ** -np.arange(0, 8, 0.25):
        x = close_to_a_plane(thickness)
        found = module._cholesky(module._moments(x, None)[1])
        taken.append(found is not None)
        if found is not None:
            assert error_in_any_direction(found, centred(x)[1]) < module.ERROR
    assert taken == sorted(taken, reverse=True)
    assert 8 < sum(taken) < 16  # from 1e-2 to 1e-4


def test_rows_whose_first_ones_lie_apart_are_gone_through_again() -> None:
    """Sorted by a column with an offset of 1e8 sds: the mean of the first rows is far from the mean of all."""
    x = close_to_a_plane(1.0)
    x[1500:] += 1e8
    mean, exact = centred(x)
    found, rows = compress(x)
    np.testing.assert_allclose(found.numpy(), mean.astype(float), rtol=1e-15)
    np.testing.assert_allclose((rows.mT @ rows).numpy(), (exact.T @ exact).astype(float), rtol=1e-13)


def test_a_weight_of_a_row_is_that_many_rows() -> None:
    x, times = close_to_a_plane(0.1), torch.arange(3000) % 3
    mean, exact = centred(x, times.numpy())
    for rows, weights in ((x, times.double()), (x.repeat_interleave(times, 0), None)):
        found, few = compress(rows, weights)
        np.testing.assert_allclose(found.numpy(), mean.astype(float), rtol=1e-12)
        assert error_in_any_direction(few, exact) < 1e-10


def test_rows_of_a_stream_are_read_once_where_digits_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    x, reads = close_to_a_plane(1.0), []
    rows = stream(x.numpy())
    split = type(rows).split
    monkeypatch.setattr(type(rows), "split", lambda self, size: reads.append(size) or split(self, size))
    torch.testing.assert_close(compress(rows), compress(x), rtol=0, atol=0)
    assert len(reads) == 2  # its first rows, and all of them


def test_single_precision_keeps_what_its_rows_hold() -> None:
    """At an offset of a million steps of float32 are a sixteenth: the estimates are those of the rounded numbers."""
    x = close_to_a_plane(1.0).add(1e6).float()
    ours, exact = ppca.maximum_likelihood(x, 2), ppca.maximum_likelihood(x.double() - 1e6, 2)
    for name in ("noise_variance", "log_likelihood"):
        torch.testing.assert_close(ours[name].double(), exact[name], rtol=1e-6, atol=0)
    covariance = [sites["W"].double() @ sites["W"].double().mT for sites in (ours, exact)]
    torch.testing.assert_close(*covariance, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours["loc"].double() - 1e6, exact["loc"], rtol=0, atol=1 / 32)

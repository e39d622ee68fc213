"""Rows drawn by their weights: the draws of torch.multinomial, and no limit on how many rows there are."""

import pytest
import torch
from scipy import stats

from guidebook.models._shared.row_weights import weighted_places


def test_draws_are_those_of_multinomial() -> None:
    weights = torch.rand(1000, dtype=torch.float64)
    for number in (1, 20):
        torch.manual_seed(0)
        theirs = torch.multinomial(weights, number)
        torch.manual_seed(0)
        assert torch.equal(weighted_places(weights, number), theirs)


def test_a_place_is_as_likely_as_its_weight_among_those_left() -> None:
    weights = torch.tensor([1.0, 0.0, 2.0, 5.0], dtype=torch.float64)
    pairs = torch.stack([weighted_places(weights, 2) for _ in range(4000)])
    assert not (pairs == 1).any()
    places = [(i, j) for i in (0, 2, 3) for j in (0, 2, 3) if i != j]
    chance = torch.tensor([weights[i] / 8 * weights[j] / (8 - weights[i]) for i, j in places])
    counts = [int(((pairs[:, 0] == i) & (pairs[:, 1] == j)).sum()) for i, j in places]
    assert stats.chisquare(counts, (4000 * chance).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("rows", [2**24, 2**24 + 1])
def test_more_than_sixteen_million_rows_are_drawn_from(rows: int) -> None:
    weights = torch.zeros(rows, dtype=torch.float64)
    weights[-2:] = 1
    assert sorted(weighted_places(weights, 2).tolist()) == [rows - 2, rows - 1]

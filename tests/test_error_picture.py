"""The picture of error against seconds: where points lie, what is left out, and that names cover nothing."""

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_report import _Page
from zoo.posteriors import by_em, by_nuts, by_svi

from guidebook.inference import Posterior, compare
from guidebook.inference.compare import Comparison
from guidebook.plots import plot_error_against_seconds, plot_ladder, to_svg, without_error
from guidebook.plots.plane import Dot, Line, plot_plane
from guidebook.plots.style import JUDGEMENTS
from guidebook.report import write_html

SECONDS = 31.0


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _scaled(shift: float, ratio: float) -> torch.Tensor:
    """Draws of w with exactly this mean and sd, of the shape (1, 1000)."""
    draws = torch.randn(1, 1000, dtype=torch.float64)
    return shift + ratio * (draws - draws.mean()) / draws.std()


def _fit(shift: float, ratio: float, seconds: float) -> Posterior:
    return by_svi({"w": _scaled(shift, ratio)}, seconds=seconds)


def _compared(fits: dict[str, Posterior], divergences: int = 0) -> Comparison:
    reference = by_nuts({"w": _scaled(0, 1).reshape(4, 250)}, divergences, seconds=SECONDS)
    return compare(reference, *fits.values(), names=["nuts", *fits])


def _points(figure: Figure) -> dict[tuple[float, float], str]:
    """Positions of the points, and their colours."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])): to_hex(line.get_color()) for line in lines}


def _names(figure: Figure) -> list[Text]:
    return [text for text in figure.axes[0].texts if text.get_text() not in ("good", "usable", "bad")]


def test_a_point_lies_at_its_seconds_and_its_worst_error_in_the_colour_of_its_judgement() -> None:
    fits = {
        "close": _fit(0.05, 1.0, 2.0),
        "off": _fit(0.2, 1.0, 3.0),
        "narrow": _fit(0.0, 1 / 1.25, 4.0),
        "wide": _fit(0.05, 1.25**2, 5.0),
    }
    figure = plot_error_against_seconds(_compared(fits))
    found = sorted(_points(figure).items())
    expected = {"close": (2.0, 0.05), "off": (3.0, 0.2), "narrow": (4.0, 0.25), "wide": (5.0, 0.5)}
    np.testing.assert_allclose([place for place, _ in found], list(expected.values()), rtol=1e-6)
    comparison = _compared(fits)
    judgements = [comparison.verdicts[name].judgement for name in fits]
    assert judgements == ["good", "usable", "usable", "bad"]
    assert [colour for _, colour in found] == [JUDGEMENTS[judgement] for judgement in judgements]
    (line,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert set(line.get_xdata()) == {SECONDS}
    assert {text.get_text() for text in _names(figure)} == {*fits, "nuts, the reference"}
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"


def test_bands_end_at_what_is_good_and_usable() -> None:
    figure = plot_error_against_seconds(_compared({"a": _fit(0.6, 1.0, 2.0)}))
    edges = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in figure.axes[0].patches]
    low, high = figure.axes[0].get_ylim()
    np.testing.assert_allclose(edges, [(low, 0.1), (0.1, 0.25), (0.25, high)])


def test_points_without_a_spread_are_crosses_and_what_is_not_judged_is_left_out(tmp_path: Path) -> None:
    point = by_em({"w": torch.full((1, 1), 0.3, dtype=torch.float64)}, seconds=0.1)
    comparison = _compared({"em": point, "svi": _fit(0.05, 1.0, 2.0)})
    figure = plot_error_against_seconds(comparison)
    (cross,) = [line for line in figure.axes[0].lines if line.get_marker() == "X"]
    assert float(cross.get_ydata()[0]) == pytest.approx(0.3)
    assert without_error(comparison) == []
    assert "Crosses are points" in write_html(comparison, tmp_path / "p.html").read_text()

    swapped = dict(comparison.verdicts)
    swapped["svi"] = swapped["svi"]._replace(judgement="not judged")
    partly = Comparison(**{**vars(comparison), "verdicts": swapped})
    assert without_error(partly) == ["svi"]
    assert len(_points(plot_error_against_seconds(partly))) == 1
    assert "Without a known error: svi." in write_html(partly, tmp_path / "q.html").read_text()


def test_a_refused_reference_measures_no_error(tmp_path: Path) -> None:
    comparison = _compared({"a": _fit(0.0, 1.0, 2.0), "b": _fit(0.5, 1.0, 2.0)}, divergences=2)
    assert without_error(comparison) == ["a", "b"]
    with pytest.raises(ValueError, match="plot_error_against_seconds: no method has an error"):
        plot_error_against_seconds(comparison)
    page = _Page(write_html(comparison, tmp_path / "p.html"))
    assert "Error against seconds" not in page.text
    assert not any(label.startswith("Worst error") for label in page.labels)


def test_errors_and_seconds_of_nothing_or_without_end_stay_in_the_frame() -> None:
    exact = by_nuts({"w": _scaled(0, 1).reshape(4, 250)}, seconds=0.0)
    constant = by_svi({"w": torch.stack([torch.zeros(1000), torch.zeros(1000)]).double()}, seconds=1.0)
    same = compare(exact, exact, constant, names=["nuts", "again", "stuck"])
    ax = plot_error_against_seconds(same).axes[0]
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    for x, y in _points(ax.figure):  # pyright: ignore[reportArgumentType] (of a figure, not a subfigure)
        assert left < x < right
        assert low < y < high
        assert math.isfinite(x * y)


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("spread", ["together", "apart"])
def test_no_name_covers_another_or_a_point(count: int, spread: str) -> None:
    step = 0.01 if spread == "together" else 1.0
    rng = np.random.default_rng(count)
    fits = {
        f"svi:method_number_{i}": _fit(0.05 * np.exp(step * rng.normal()), 1.0, 4.0 * np.exp(step * rng.normal()))
        for i in range(count)
    }
    figure = plot_error_against_seconds(_compared(fits))
    ax = figure.axes[0]
    boxes = [text.get_window_extent() for text in _names(figure)]
    assert len(boxes) == count + 1
    for one, other in combinations(boxes, 2):
        assert min(one.x1, other.x1) - max(one.x0, other.x0) < 1 or min(one.y1, other.y1) - max(one.y0, other.y0) < 1
    frame = ax.get_window_extent()
    for box in boxes:
        assert frame.x0 - 1 < box.x0 < box.x1 < frame.x1 + 1
        assert frame.y0 - 1 < box.y0 < box.y1 < frame.y1 + 1
        for place in _points(figure):
            x, y = ax.transData.transform(place)
            assert not (box.x0 < x < box.x1 and box.y0 < y < box.y1)


def test_a_name_that_has_no_room_beside_its_point_does_not_lie_on_the_references_line() -> None:
    """Seconds and errors of the Gaussian mixture on iris: svi:full_rank is at the right edge, just behind the line."""
    found = {
        "gibbs": (45.3, 0.085, "good"),
        "em": (0.353, 0.976, "point"),
        "cavi": (1.68, 0.66, "bad"),
        "svi:mean_field": (52.3, 1.04, "bad"),
        "svi:full_rank": (174.0, 0.48, "bad"),
    }
    dots = [Dot(name, *figures) for name, figures in found.items()]
    figure = plot_plane(dots, [Line("nuts, the reference", 57.6)])
    at = figure.axes[0].transData.transform((57.6, 1.0))[0]
    for text in _names(figure):
        box = text.get_window_extent()
        assert not box.x0 < at < box.x1, text.get_text()


def test_names_are_large_enough_on_a_telephone() -> None:
    """The picture shrinks to about 340 pixels beside a margin; letters should keep ten pixels or so."""
    figure = plot_error_against_seconds(_compared({"svi": _fit(0.2, 1.0, 2.0)}))
    shrunk = 340 / (96 * figure.get_figwidth())
    assert all(text.get_fontsize() * 96 / 72 * shrunk >= 9.5 for text in figure.axes[0].texts)


def test_it_is_the_first_figure_of_a_report_before_any_verdict(tmp_path: Path) -> None:
    comparison = _compared({"<svi>": _fit(0.2, 1.0, 2.0)})
    page = _Page(write_html(comparison, tmp_path / "p.html"))
    assert page.labels[0] == "Worst error and seconds of each method beside nuts, as in the table"
    assert page.text.index("Worst error and seconds") < page.text.index("is the reference") < page.text.index("<table")
    assert "&lt;svi&gt;" in to_svg(plot_error_against_seconds(comparison), "words", "key")


def test_it_shows_in_a_notebook() -> None:
    figure = plot_error_against_seconds(_compared({"svi": _fit(0.2, 1.0, 2.0)}))
    assert figure._repr_png_().startswith(b"\x89PNG")  # pyright: ignore[reportAttributeAccessIssue]


def _rung(method: str, seconds: float, judgement: str, error: float | None = None) -> dict[str, Any]:
    return {"method": method, "seconds": seconds, "judgement": judgement, "error": error, "sentence": ""}


LADDER = [
    _rung("dadvi", 2.0, "usable", 0.2),
    _rung("pathfinder", 1.0, "failed"),
    _rung("dadvi, moved", 3.0, "good", 0.05),
    _rung("nuts", 30.0, "cannot say"),
    _rung("gibbs", 0.0, "not tried"),
]


def test_rungs_lie_at_the_seconds_after_which_they_were_known_on_a_path() -> None:
    figure = plot_ladder(LADDER)
    assert _points(figure) == {(2.0, 0.2): JUDGEMENTS["usable"], (6.0, 0.05): JUDGEMENTS["good"]}
    (line,) = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert set(line.get_xdata()) == {36.0}
    (path,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
    np.testing.assert_allclose(path.get_xydata(), [(2.0, 0.2), (6.0, 0.05)])
    assert {text.get_text() for text in _names(figure)} == {"1: dadvi", "3: dadvi, moved", "4: nuts"}
    with pytest.raises(ValueError, match="plot_ladder: no rung has an error"):
        plot_ladder(LADDER[3:])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_no_name_of_a_rung_covers_another_or_the_path(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rungs = [
        _rung(f"method {i}", float(rng.uniform(0.5, 20)), "bad", float(10 ** rng.uniform(-2, 1))) for i in range(count)
    ]
    rungs += [_rung(f"nuts, target_accept=0.9{i}", 10.0, "cannot say") for i in range(2)]
    figure = plot_ladder(rungs)
    ax = figure.axes[0]
    boxes = {text.get_text(): text.get_window_extent() for text in _names(figure)}
    assert len(boxes) == count + 2
    for one, other in combinations(boxes.values(), 2):
        assert min(one.x1, other.x1) - max(one.x0, other.x0) < 1 or min(one.y1, other.y1) - max(one.y0, other.y0) < 1
    for path in (line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == count > 1):
        x, y = ax.transData.transform(path.get_xydata()).T
        along = np.linspace(0, count - 1, 500)
        x, y = np.interp(along, range(count), x), np.interp(along, range(count), y)
        for name, box in boxes.items():
            inside = (box.x0 + 1 < x) & (x < box.x1 - 1) & (box.y0 + 1 < y) & (y < box.y1 - 1)
            assert not inside.any(), name

"""What every page has: a headline, contents, figures for light and dark, tables for a telephone, how it was made."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from markupsafe import escape
from test_report import _fitted, _logistic_like, _mixture, _Page
from torch import Tensor
from zoo.posteriors import by_nuts, by_svi

import guidebook
from guidebook.inference import compare
from guidebook.inference.choice import Score, choose
from guidebook.inference.diagnostics import r_hat
from guidebook.inference.mcmc.chains import IDENTIFIED, Chains
from guidebook.models import gmm, logistic, ppca
from guidebook.plots import plot_quantity
from guidebook.plots.colours import PALETTE
from guidebook.report import write_choice, write_html, write_index, write_ladder
from guidebook.report.render import unbroken


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _regression(path: Path, **options) -> Path:
    x = torch.randn(20, 2)
    return write_html(_logistic_like(), path, model=logistic.model, data=(x, (x[:, 0] > 0).float()), **options)


def _clusters(path: Path, **options) -> Path:
    x, _ = gmm.simulate(60, num_components=2, num_features=3)
    return write_html(_mixture(), path, model=partial(gmm.model, num_components=2), data=(x,), **options)


def _ladder(path: Path) -> Path:
    return write_ladder(_fitted(), path)


def _choice(path: Path, **options) -> Path:
    rows = np.random.default_rng(0).normal(size=(2, 200))
    scores = {k: Score(row - k, how="LOO") for k, row in zip((1, 2), rows, strict=True)}
    return write_choice(choose(scores, option="k"), path, **options)


def _index(path: Path, **options) -> Path:
    comparison = _logistic_like()
    report = {"title": "one", "href": "one.html", "verdicts": comparison.verdicts.values()}
    report |= {"headline": comparison.headline, "rows": comparison.table.reset_index().to_dict("records")}
    return write_index([report], path, **options)


PAGES = [_regression, _clusters, _ladder, _choice, _index]


@pytest.mark.parametrize("write", PAGES)
def test_every_colour_has_a_dark_counterpart(write: Callable, tmp_path: Path) -> None:
    text = write(tmp_path / "p.html").read_text()
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    styles = [value for figure in figures for value in re.findall(r'style="([^"]*)"', figure)]
    bare = [style for style in styles if re.search(r"(?<!, )#[0-9a-f]{3,6}\b(?!\))", style)]
    assert not bare
    assert bool(figures) != (write is _index)
    light, dark = re.findall(r":root \{(.*?)\}", text, re.DOTALL)[:2]
    for name in re.findall(r"var\(--([\w-]+)", text):
        colours = [re.search(rf"--{name}: (#\w+);", part) for part in (light, dark)]
        assert all(colours), name
        assert colours[0][1] != colours[1][1], name  # pyright: ignore[reportOptionalSubscript]
    assert "prefers-color-scheme: dark" in text


def test_light_and_dark_can_be_read() -> None:
    """Contrast with the paper of 3 at least, as WCAG 2.1 asks of graphics; 4.5 of what is text."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name, colour in PALETTE.items():
        for ours, paper in zip(colour, PALETTE["paper"], strict=True):
            high, low = sorted((luminance(ours), luminance(paper)), reverse=True)
            contrast = (high + 0.05) / (low + 0.05)
            if name in ("ink", "soft", "good", "usable", "bad", "reference", "point"):
                assert contrast > 4.5, (name, contrast)
            elif name.startswith(("line", "reference", "axis")):
                assert contrast > 2.7, (name, contrast)


@pytest.mark.parametrize("write", [_regression, _clusters, _ladder])
def test_contents_lead_to_every_heading(write: Callable, tmp_path: Path) -> None:
    text = write(tmp_path / "p.html").read_text()
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', text)
    headings = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', text)
    assert links == headings
    assert len(headings) >= 4
    assert len({target for target, _ in headings}) == len(headings)


def test_the_headline_comes_first(tmp_path: Path) -> None:
    comparison = _logistic_like()
    text = write_html(comparison, tmp_path / "p.html", title="A & B").read_text().replace("\u00a0", " ")
    (headline,) = re.findall("<h1>(.*?)</h1>", text)
    assert headline == "&lt;b&gt;narrow &amp; co does not give nuts&#39;s answer"
    assert text.index('<p class="title">A &amp; B</p>') < text.index("<h1>") < text.index("<svg")
    assert "<title>A &amp; B</title>" in text
    assert comparison.headline[:5] == "<b>na"


@pytest.mark.parametrize("write", [_regression, _choice, _index])
def test_it_says_when_by_what_and_how_it_was_made(write: Callable, tmp_path: Path) -> None:
    run = {"command": ["<x>", "--seed", "7"], "seed": 7, "data": {"sha256": "0" * 64}, "code": []}
    how = {"command": "guidebook <x> --seed 7"} if write is _index else {"run": run}
    text = write(tmp_path / "p.html", **how).read_text()
    foot = text[text.index("<footer>") :]
    now = datetime.now().astimezone()
    assert f"{now.day} {now:%B %Y}" in foot
    assert f"guidebook {guidebook.__version__}" in foot
    assert re.search(r"torch \d+\.\d+.*, Python \d+\.\d+\.\d+", foot)
    word = "&lt;x&gt;" if write is _index else "&#39;&lt;x&gt;&#39;"
    assert f"<code>guidebook {word} --seed 7</code>" in foot
    assert ("<dt>Seed</dt><dd>7</dd>" in foot) == (write is not _index)
    assert "Command" not in write(tmp_path / "p.html").read_text()


@pytest.mark.parametrize("write", [_regression, _index])
def test_each_cell_of_the_table_names_its_column_on_a_telephone(write: Callable, tmp_path: Path) -> None:
    text = write(tmp_path / "p.html").read_text()
    table = re.findall(r'<table class="cards">.*?</table>', text, re.DOTALL)[0]
    heads = re.findall(r'<th scope="col"[^>]*>([^<]+)</th>', table)
    assert heads[:3] == ["method", "verdict", "seconds"]
    for row in re.findall(r'<tr><th scope="row">(.*?)</tr>', table):
        assert re.findall(r'data-head="([^"]+)"', row) == heads[1:]
    tables = [tag for tag in re.findall(r"<[^>]*><table", text)]
    assert tables == ['<div class="scroll"><table'] * len(tables)


def test_a_symbol_stays_with_its_figure_and_a_figure_with_its_unit() -> None:
    sentence = "means within 0.21 sd. k̂ = 1.37 > 0.7 agrees; R̂ at most 1.004, 25 % in 1,234 s, so 3 samples"
    kept = ["0.21 sd", "k̂ = 1.37", "R̂ at most 1.004", "25 %", "1,234 s"]
    for words in kept:
        sentence = sentence.replace(words, words.replace(" ", "\u00a0"))
    assert unbroken(sentence.replace("\u00a0", " ")) == escape(sentence)


def test_no_line_ends_within_an_option_and_what_a_sentence_holds_is_escaped() -> None:
    wanted = 'guidebook run &lt;b&gt;.csv <span class="option">--leave-out</span> a'
    assert unbroken("guidebook run <b>.csv --leave-out a") == wanted


def _turned(apart: float = 0.0) -> dict[str, Tensor]:
    """Loadings whose sign is another in every second chain; with ``apart``, lengths that are so too."""
    W = torch.tensor([[1.0], [0.8], [-0.6]]).double() * (1 + 0.05 * torch.randn(4, 500, 1, 1).double())
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).double().reshape(4, 1, 1, 1)
    noise = 0.5 + 0.05 * torch.rand(4, 500).double()
    return {"W": (1 + apart * sign) * sign * W, "noise_variance": noise, "loc": torch.randn(4, 500, 3).double()}


@pytest.mark.parametrize("apart", [0.0, 0.2])
def test_chains_that_agree_where_it_matters_are_not_called_unmixed(apart: float, tmp_path: Path) -> None:
    draws = _turned(apart)
    r_hats = {site: r_hat(value) for site, value in draws.items()}
    raw = Chains(draws, {}, r_hats, {}, 1.0).disagreement
    assert "have not mixed" in raw
    sampled = by_nuts(draws, message=f"drew all; {raw}", converged=False, r_hat=r_hats)
    comparison = compare(sampled, by_svi(draws), identify=ppca.identify, names=["nuts", "svi"])
    text = _Page(write_html(comparison, tmp_path / "p.html")).text
    assert ("have not mixed" in text) == bool(apart)
    assert (f"drew all; {IDENTIFIED}" in text) != bool(apart)


def test_draws_without_bounds_are_drawn_as_far_as_they_can_be(tmp_path: Path) -> None:
    """A fifth of the fast posterior's draws is near the reference's; others overflow if squared, or are infinite."""
    draws = torch.randn(1, 1000, 2, dtype=torch.float64)
    draws[:, 200:600], draws[:, 600:, 0], draws[:, 600:, 1] = 1e300, float("inf"), float("nan")
    comparison = compare(by_nuts({"w": torch.randn(4, 1000, 2).double()}), by_svi({"w": draws}), names=["nuts", "svi"])
    assert "svi is bad" in write_html(comparison, tmp_path / "p.html").read_text()
    (ax,) = plot_quantity(comparison, "w[0]", "w[0]").axes
    assert max(np.abs(ax.get_xlim())) < 5
    (curve,) = ax.lines
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(0.2, abs=0.02)


def test_points_alone_have_no_densities(tmp_path: Path) -> None:
    first, other = (by_svi({"w": torch.randn(1, 1, 3)}, is_point=True) for _ in range(2))
    page = _Page(write_html(compare(first, other), tmp_path / "p.html"))
    assert "All are points" in page.text
    assert not any(label.startswith("Posterior densities") for label in page.labels)
    assert page.text.count("the figures of 3 quantities") == 2


def test_no_panel_is_mostly_empty() -> None:
    """A scale with a long tail to the right, of which the reference has rare draws far out."""
    heavy = torch.distributions.HalfCauchy(1.0).sample((4, 1000)).double().clamp(max=300)
    comparison = compare(by_nuts({"tau": heavy}), by_svi({"tau": heavy.flatten()[None]}), names=["nuts", "svi"])
    (ax,) = plot_quantity(comparison, "tau", "tau").axes
    (curve,) = ax.lines
    x, density = curve.get_data()
    seen = np.asarray(x)[np.asarray(density) > 0.01 * np.max(density)]
    left, right = ax.get_xlim()
    assert np.ptp(seen) > 0.8 * (right - left)

"""The page of a comparison: what it must say, what it must not fetch, and that its figures show what they claim."""

from dataclasses import replace
from functools import partial
from html import unescape
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from markupsafe import escape
from matplotlib.patches import FancyArrowPatch
from test_catalog import sites_of, traced
from torch import Tensor
from zoo.posteriors import by_em, by_nuts, by_svi

from guidebook import guides, plots
from guidebook.catalog import ROWS
from guidebook.inference import FitInfo, Posterior, compare, svi
from guidebook.inference.compare import Comparison
from guidebook.models import factor_analysis, gmm, lda, logistic, mixture, ppca, vae
from guidebook.plots.graphs.figure import num_crossed
from guidebook.plots.graphs.layout import lay_out
from guidebook.plots.models.bands import Band
from guidebook.plots.models.factors import shares
from guidebook.plots.models.gmm import components, separating_columns
from guidebook.plots.models.gmm import sections as over_the_data
from guidebook.plots.models.lda import sections as topics
from guidebook.plots.models.mixture import plot_profiles, profiles
from guidebook.plots.models.vae import sections as images
from guidebook.plots.style import ellipse
from guidebook.report import plot_comparison, write_html, write_index, write_ladder
from guidebook.report.ladder import headline_of
from guidebook.report.words import number
from guidebook.workflow.fit import load_task


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _weights(num: int = 3, scale: float = 1.0, draws: tuple[int, int] = (4, 1000)) -> dict[str, Tensor]:
    return {"w": scale * torch.randn(*draws, num, dtype=torch.float64)}


def _logistic_like(num: int = 3, divergences: int = 0) -> Comparison:
    return compare(
        by_nuts(_weights(num), divergences),
        by_svi(_weights(num, 0.5), "mean_field"),
        by_svi(_weights(num, draws=(1, 1)), "map_point", is_point=True),
        names=["nuts", "<b>narrow & co", "point"],
    )


def _mixture_draws(chains: int, draws: int, shuffle: bool = False) -> dict[str, Tensor]:
    """Around two components; their order changes from draw to draw where ``shuffle``."""
    shape = chains, draws
    weights = torch.tensor([0.3, 0.7]).double().expand(*shape, 2) + 0.01 * torch.randn(
        *shape, 1
    ).double() * torch.tensor([1.0, -1.0])
    loc = torch.tensor([[0.0, 0.0, 0.0], [0.5, 5.0, 8.0]]).double() + 0.1 * torch.randn(*shape, 2, 3).double()
    noise = 0.02 * torch.randn(*shape, 2, 3, 3).double()
    covariance = torch.eye(3).double() + noise @ noise.mT + 0.1 * torch.rand(*shape, 2, 1, 1).double()
    if shuffle:
        flip = torch.rand(shape) < 0.5
        weights = torch.where(flip[..., None], weights.flip(-1), weights)
        loc = torch.where(flip[..., None, None], loc.flip(-2), loc)
        covariance = torch.where(flip[..., None, None, None], covariance.flip(-3), covariance)
    return {"weights": weights, "loc": loc, "covariance": covariance}


def _mixture() -> Comparison:
    return compare(
        by_nuts(_mixture_draws(4, 300, shuffle=True)),
        by_em(_mixture_draws(1, 1)),
        identify=gmm.identify,
        names=["nuts", "em"],
    )


class _Page(HTMLParser):
    """What a test wants to know of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.attributes: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.row_heads: list[str] = []
        self.labels: list[str] = []
        self.text = path.read_text(encoding="utf-8").replace("\u00a0", " ")  # which keeps figures with their units
        self._in_head = False
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attrs]
        self._in_head = tag == "th" and ("scope", "row") in attrs
        if tag == "svg" and ("role", "img") in attrs:
            self.labels.append(dict(attrs)["aria-label"] or "")

    def handle_data(self, data):
        if self._in_head:
            self.row_heads.append(data)
            self._in_head = False


def test_page_says_every_verdict_and_names_every_method(tmp_path):
    comparison = _logistic_like()
    page = _Page(write_html(comparison, tmp_path / "a" / "b" / "page.html"))
    for verdict in comparison.verdicts.values():
        assert str(escape(verdict.sentence)) in page.text
        assert f'<span class="badge {verdict.judgement.replace(" ", "-")}">{verdict.judgement}</span>' in page.text
    assert page.row_heads[:3] == ["nuts", "<b>narrow & co", "point"]
    assert "b" not in page.tags
    assert page.text.index("is the reference") < page.text.index("<table")
    assert "Components of the mixture</h2>" not in page.text


def test_page_needs_nothing_from_elsewhere(tmp_path):
    x = torch.randn(20, 2)
    page = _Page(
        write_html(_logistic_like(), tmp_path / "p.html", model=logistic.model, data=(x, (x[:, 0] > 0).float()))
    )
    links = [
        value for key, value in page.attributes if key in ("src", "href", "xlink:href", "action", "data", "poster")
    ]
    assert all(value.startswith("#") for value in links)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    urls = [value for key, value in page.attributes if "//" in value and not key.startswith("xmlns")]
    assert not urls
    assert "@import" not in page.text
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) == len(set(ids)) > 0
    used = {value[1:] for value in links} | {v[5:-1] for k, v in page.attributes if k == "clip-path"}
    assert used <= set(ids)


def test_page_has_the_figures_that_apply(tmp_path):
    comparison = _logistic_like()
    without = _Page(write_html(comparison, tmp_path / "p.html"))
    assert len(without.labels) == 1 + 3 + 1 + 2  # errors, quantities, a pair, losses
    x = torch.randn(20, 2)
    page = _Page(write_html(comparison, tmp_path / "p.html", model=logistic.model, data=(x, (x[:, 0] > 0).float())))
    assert len(page.labels) == 9
    assert page.labels[-1] == "Graph of the model: y depends on w"
    assert "x: 20 × 2, y: 20" in page.text


def test_many_quantities_are_cut_to_the_worst_and_the_rest_counted(tmp_path):
    comparison = _logistic_like(num=15)
    page = _Page(write_html(comparison, tmp_path / "p.html"))
    shown = [label for label in page.labels if label.startswith("Posterior densities")]
    assert len(shown) == 12
    assert "3 more quantities are not drawn" in page.text
    for name in list(comparison.posteriors)[1:]:
        assert any(f"of {comparison.worst(name)} under" in label for label in shown)


@pytest.mark.parametrize(("shift", "ratio", "worst"), [(0.5, 1.5, "shifted"), (0.4, 1.6, "wide")])
def test_shifts_and_ratios_count_in_multiples_of_what_is_usable(shift, ratio, worst):
    """0.5 / 0.25 = 2 > log 1.5 / log 1.25 = 1.8; 0.4 / 0.25 = 1.6 < log 1.6 / log 1.25 = 2.1."""
    draws = torch.randn(4, 1000, 2, dtype=torch.float64).unbind(-1)
    base = dict(zip(("shifted", "wide"), draws, strict=True))
    other = {"shifted": base["shifted"] + shift * base["shifted"].std(), "wide": ratio * base["wide"]}
    comparison = compare(by_nuts(base), by_svi(other), names=["nuts", "svi"])
    assert plots.worst_first(comparison)[0] == comparison.worst("svi") == worst


def test_mixture_shows_its_components_and_optima(tmp_path):
    x, _ = gmm.simulate(60, num_components=2, num_features=3)
    model = partial(gmm.model, num_components=2)
    page = _Page(write_html(_mixture(), tmp_path / "p.html", model=model, data=(x,), columns=["a", "b", "c$"]))
    over = [label for label in page.labels if label.startswith("Components")]
    assert over == [f"Components of the mixture under {name} over b and c$ of the data" for name in ("nuts", "em")]
    assert "gmm.model (num_components=2)" in page.text
    assert "set aside: a covariance has collapsed" in page.text
    assert "Objective of em after each iteration" in page.labels


def test_refused_reference_is_shown_as_such(tmp_path):
    comparison = _logistic_like(divergences=3)
    assert comparison.refused
    page = _Page(write_html(comparison, tmp_path / "p.html"))
    assert page.text.count('<span class="badge refused">') == 2  # block and table
    assert page.text.count('<span class="badge not-judged">') == 4


def test_point_as_reference_gives_a_page(tmp_path):
    comparison = compare(by_em(_weights(draws=(1, 1))), by_svi(_weights(), "full_rank"))
    page = _Page(write_html(comparison, tmp_path / "p.html"))
    assert "without a spread" in unescape(page.text)
    assert not any(label.startswith("Joint") for label in page.labels)


@pytest.mark.parametrize("old", [None, "as it was"])
def test_failure_leaves_the_folder_as_it_was(tmp_path, monkeypatch, old):
    path = tmp_path / "p.html"
    if old:
        path.write_text(old)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UnicodeEncodeError):  # while writing
        write_html(_logistic_like(), path, title="no such character: \ud800")

    def fail(*_):
        raise RuntimeError("broken figure")

    monkeypatch.setattr(plots, "plot_pair", fail)
    with pytest.raises(RuntimeError, match="broken figure"):
        write_html(_logistic_like(), path)
    assert sorted(tmp_path.iterdir()) == before
    assert not old or path.read_text() == old


def test_bad_arguments_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_html(_logistic_like(), tmp_path / "file" / "p.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_html(_logistic_like(), tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    with pytest.raises(ValueError, match="2 names for 3 columns"):
        write_html(_logistic_like(), tmp_path / "p.html", data=(torch.zeros(4, 3),), columns=["a", "b"])
    with pytest.raises(ValueError, match=r"no quantity 'v'"):
        plot_comparison(_logistic_like(), quantities=["v"])


def test_untraceable_model_costs_only_the_graph(tmp_path):
    def model(x):
        raise RuntimeError("no <graph> of me")

    page = _Page(write_html(_logistic_like(), tmp_path / "p.html", model=model, data=(torch.zeros(3),)))
    assert "It could not be traced: RuntimeError: no &lt;graph&gt; of me" in page.text


def test_index_links_to_reports_and_repeats_their_verdicts(tmp_path):
    comparison = _logistic_like()
    rows = comparison.table.reset_index().to_dict("records")
    reports = [
        {"title": "one & only", "href": "one.html", "verdicts": comparison.verdicts.values(), "rows": rows},
        {"title": "two", "href": "sub/two.html", "verdicts": [("bad", "it is <bad>.")]},
    ]
    page = _Page(write_index(reports, tmp_path / "index.html"))
    assert [value for key, value in page.attributes if key == "href"] == ["one.html", "sub/two.html"]
    assert "one &amp; only" in page.text
    assert "it is &lt;bad&gt;." in page.text
    assert page.row_heads == list(comparison.posteriors)
    for verdict in comparison.verdicts.values():
        assert str(escape(verdict.sentence)) in page.text
    assert "no report yet" in _Page(write_index([], tmp_path / "empty.html")).text


def test_plotting_changes_no_setting_and_no_random_state(tmp_path):
    comparison = _logistic_like()
    x = torch.randn(20, 2)
    state = torch.get_rng_state()
    with mpl.rc_context({"svg.fonttype": "path", "font.family": "serif", "text.parse_math": True}):
        settings = dict(mpl.rcParams)
        write_html(comparison, tmp_path / "p.html", model=logistic.model, data=(x, (x[:, 0] > 0).float()))
        figure = plot_comparison(comparison, quantities=["w[2]", "w[0]"])
        assert dict(mpl.rcParams) == settings
    assert torch.equal(torch.get_rng_state(), state)
    assert [ax.get_title() for ax in figure.axes] == ["w[2]", "w[0]"]


def test_ellipse_holds_nine_tenths():
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    shape = ellipse(np.array([1.0, -1.0]), covariance)
    points = np.random.default_rng(0).multivariate_normal([1.0, -1.0], covariance, 20_000)
    inside = shape.get_path().contains_points(shape.get_patch_transform().inverted().transform(points)).mean()
    assert abs(inside - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 20_000)


def test_components_are_not_averaged_over_exchanged_labels():
    mixtures = components({"a": by_nuts(_mixture_draws(2, 200)), "b": by_nuts(_mixture_draws(2, 200, shuffle=True))})
    for found in mixtures.values():
        assert np.allclose(found.loc, [[0, 0, 0], [0.5, 5, 8]], atol=4 * 0.1 / np.sqrt(400))
        assert np.allclose(found.weights, [0.3, 0.7], atol=0.01)
    assert separating_columns(mixtures["a"]) == (1, 2)
    assert components({"w": by_nuts(_weights())}) == {}


def _count_draws(site: str, shuffle: bool) -> dict[str, Tensor]:
    """Two components over three columns, whose order changes from draw to draw where ``shuffle``."""
    values = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]).double() * (1 + 0.01 * torch.rand(2, 200, 1, 1).double())
    weights = torch.tensor([0.3, 0.7]).double().expand(2, 200, 2)
    if shuffle:
        flip = torch.rand(2, 200) < 0.5
        values = torch.where(flip[..., None, None], values.flip(-2), values)
        weights = torch.where(flip[..., None], weights.flip(-1), weights)
    return {"weights": weights, site: values}


@pytest.mark.parametrize("site", ["rate", "probs"])
def test_profiles_are_those_of_matched_components(site, tmp_path):
    posteriors = {"a": by_nuts(_count_draws(site, False)), "b": by_nuts(_count_draws(site, True))}
    found = profiles(posteriors | {"w": by_nuts(_weights())}, site)
    assert list(found) == ["a", "b"]
    for band in found.values():
        assert np.allclose(band.mean, [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], rtol=0.01)
        assert np.allclose(band.high / band.low, 1.009 / 1.0005, atol=0.002)
    figures = plot_profiles(found, ["bread", "wine", "toys"], "rate")
    drawn = [line.get_xdata()[2] for line in figures["b"].axes[0].lines]
    assert np.allclose(drawn, [0.7, 0.2], rtol=0.01)
    comparison = compare(*posteriors.values(), identify=mixture.identify, names=["a", "b"])
    labels = _Page(write_html(comparison, tmp_path / "p.html", model=mixture.model)).labels
    kind = {"rate": "expected count", "probs": "probability"}[site]
    assert [label for label in labels if label.startswith("Components")] == [
        f"Components of the mixture under {name}: {kind} of each column" for name in "ab"
    ]


@pytest.mark.parametrize("width", [64, 50])
def test_many_columns_are_drawn_as_images(width):
    band = Band(*torch.rand(3, 4, width).numpy())
    figure = plot_profiles({"a": band}, [str(i) for i in range(width)], "rate")["a"]
    picture = np.asarray(figure.axes[0].images[0].get_array())
    if width == 64:  # squares of 8 by 8 pixels, 8 dots each, with gaps of a pixel between them
        shown = [picture[:64:8, left : left + 64 : 8].ravel() * band.mean.max() for left in (0, 72, 144, 216)]
    else:
        shown = picture
    np.testing.assert_allclose(shown, band.mean, rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_shares_of_variance_do_not_turn_with_the_factors(shared):
    W = torch.tensor([[0.8, 0.0], [0.3, 0.4], [0.0, 0.1]]).double()
    noise = torch.tensor(0.36 if shared else [0.36, 0.75, 0.99]).double()
    angle = 6.28 * torch.rand(2, 100, 1, 1).double()
    turn = torch.cat([torch.cat([angle.cos(), -angle.sin()], -1), torch.cat([angle.sin(), angle.cos()], -1)], -2)
    draws = {
        "W": W @ turn,
        "loc": torch.zeros(2, 100, 3).double(),
        "noise_variance": noise.expand(2, 100, *noise.shape),
    }
    signal = torch.tensor([0.64, 0.25, 0.01]).double()
    found = shares({"a": by_nuts(draws), "w": by_nuts(_weights())})
    assert list(found) == ["a"]
    for part in found["a"]:
        assert np.allclose(part, signal / (signal + noise))


def test_topics_are_listed_side_by_side_in_one_order():
    words = torch.distributions.Dirichlet(torch.full((12,), 0.3).double()).sample((4,))
    noise = 1 + 0.001 * torch.rand(2, 50, 4, 12).double()
    draws = words * noise / (words * noise).sum(-1, keepdim=True)
    turned = {"topic_words": draws[:, :, [2, 0, 3, 1]]}
    comparison = compare(by_nuts({"topic_words": draws}), by_nuts(turned), identify=lda.identify, names=["a", "b"])
    vocabulary = [f"w{i}" for i in range(12)]
    (section,) = topics(comparison, None, vocabulary)
    rows = section.tables[0].rows
    assert all(row[1] == row[2] for row in rows)
    tops = {", ".join(vocabulary[i] for i in row.topk(8).indices) for row in words}
    assert {row[1] for row in rows} == tops
    assert topics(_logistic_like(), None, None) == []


def _factor_draws(shape: tuple[int, ...] = (4, 250)) -> dict[str, Tensor]:
    W, loc = torch.randn(*shape, 3, 2).double(), torch.randn(*shape, 3).double()
    return {"W": W, "loc": loc, "noise_variance": 0.1 + torch.rand(*shape).double()}


def _topic_draws() -> dict[str, Tensor]:
    return {"topic_words": torch.distributions.Dirichlet(torch.ones(3).double()).sample((4, 250, 2))}


def _mine(x: Tensor) -> None:
    """A user's model, whatever its sites are called."""
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1), obs=x)


SPECIAL = [
    (ppca.model, _factor_draws, "What the factors explain"),
    (factor_analysis.model, _factor_draws, "What the factors explain"),
    (gmm.model, lambda: _mixture_draws(4, 250), "Components of the mixture"),
    (mixture.model, lambda: _count_draws("rate", False), "Components of the mixture"),
    (lda.model, _topic_draws, "Topics"),
]


@pytest.mark.parametrize(("model", "draws", "title"), SPECIAL)
@pytest.mark.parametrize("bound", [False, True])
def test_figures_follow_the_model_and_not_the_names_of_its_sites(model, draws, title, bound, tmp_path):
    """A user's own model with a matrix W is no factor model; nor is one of ours when no model is given."""
    comparison = compare(by_nuts(draws()), by_svi(draws()), names=["nuts", "svi"])
    x, columns = torch.poisson(torch.full((20, 3), 5.0)), ["bread", "wine", "toys"]

    def page(model, path=tmp_path / "p.html"):
        return _Page(write_html(comparison, path, model=model, data=(x,), columns=columns)).text

    options = {gmm.model: {"num_components": 2}, lda.model: {"num_topics": 2}}.get(model, {})
    assert f">{title}</h2>" in page(partial(model, **options) if bound else model)
    for stranger in (partial(_mine) if bound else _mine, None):
        text = page(stranger)
        assert not any(f">{other}</h2>" in text for _, _, other in SPECIAL)
        assert "bread]" not in text


def test_quantities_name_their_column(tmp_path):
    x = torch.randn(20, 2)
    data = (x, (x[:, 0] > 0).float())
    text = _Page(
        write_html(_logistic_like(), tmp_path / "p.html", model=logistic.model, data=data, columns=["age", "a" * 30])
    ).text
    assert "w[bias]" in text
    assert "w[age]" in text
    assert f"w[{'a' * 30}]" in text


@pytest.mark.filterwarnings("ignore:svi")
def test_images_are_shown_if_the_decoder_makes_squares(tmp_path):
    x, _ = vae.simulate(30, num_features=16)
    fits = {}
    for name, guide in (("encoder", guides.vae.encoder), ("factors", guides.vae.factors)):
        fit = svi(vae.model, guide, x, num_steps=2, num_draws=10, progress=False)
        fits[name] = replace(fit, draws={"x": torch.randn(1, 10, 3).double()})
    comparison = compare(*fits.values(), names=list(fits))
    labels = _Page(write_html(comparison, tmp_path / "p.html", model=vae.model, data=(x,))).labels
    assert "Rows of the data and their reconstructions by encoder" in labels
    assert [label for label in labels if label.startswith("Images")] == [f"Images generated by {name}" for name in fits]
    assert "Grid of factors decoded by factors" in labels
    assert images(comparison, x[:, :15], None) == []
    assert images(_logistic_like(), x, None) == []


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "isotropic"])
def test_every_shape_of_covariance_becomes_matrices(covariance):
    _, truth = gmm.simulate(50, num_components=3, num_features=2, covariance=covariance)
    draws = {site: truth[site][None, None] for site in ("weights", "loc", "covariance")}
    found = components({"truth": by_em(draws)})["truth"].covariance
    sigma = truth["covariance"].numpy()
    full = {
        "full": lambda: sigma,
        "tied": lambda: sigma.repeat(3, 0),
        "diagonal": lambda: sigma[:, :, None] * np.eye(2),
        "isotropic": lambda: sigma[:, None, None] * np.eye(2),
    }[covariance]()
    assert np.allclose(found, full)


def test_graph_has_parents_that_are_written_into_part_of_a_tensor():
    graph = plots.model_graph(partial(gmm.model, num_components=2), (torch.randn(30, 3).double(),))
    for child in ("covariance", "loc", "x"):
        assert ("bartlett_upper", child) in graph.edges
    assert ("weights", "loc") not in graph.edges
    assert ("weights", "x") in graph.edges
    assert graph.nodes["covariance"][0] == "deterministic"
    assert graph.plates == {"rows: 30": {"x"}}


def _nested(y: Tensor) -> None:
    bias = pyro.sample("bias", dist.Normal(0.0, 1.0))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("groups", 3, dim=-2):
        effect = pyro.sample("effect", dist.Normal(bias, 1.0))
        with pyro.plate("members", 4, dim=-1):
            slope = pyro.sample("slope", dist.Normal(effect, 1.0))
            pyro.sample("y", dist.Normal(slope, noise), obs=y)


def _schools(effect: Tensor) -> None:
    """Its deterministic site is on the way to what is observed."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(effect)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("effect", dist.Normal(theta, 1.0), obs=effect)


def _unused(effect: Tensor) -> None:
    """It goes on with what it gave its deterministic sites, and with one site besides."""
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.deterministic("again", z)
    theta = tau * z
    pyro.deterministic("theta", theta)
    pyro.sample("effect", dist.Normal(theta, tau).to_event(1), obs=effect)


def _counted(y: Tensor) -> None:
    share = pyro.sample("share", dist.Beta(1.0, 1.0))
    kind = pyro.sample("kind", dist.Bernoulli(share))
    level = pyro.deterministic("level", 2 * kind + 1)
    pyro.sample("y", dist.Normal(level, 1.0), obs=y)


def _topics(words: Tensor) -> None:
    with pyro.plate("topics", 4):
        phi = pyro.sample("phi", dist.Dirichlet(torch.ones(7)))
    with pyro.plate("documents", 5, dim=-1):
        theta = pyro.sample("theta", dist.Dirichlet(torch.ones(4)))
        with pyro.plate("words", 6, dim=-2):
            z = pyro.sample("z", dist.Categorical(theta))
            pyro.sample("w", dist.Categorical(phi[z]), obs=words)


def _decoder(x: Tensor) -> None:
    network = torch.nn.Linear(2, 3)
    pyro.module("decoder", network)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(network(z), 1.0).to_event(1), obs=x)


def _factorisation(ratings: Tensor) -> None:
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    users, items = pyro.plate("users", 5, dim=-2), pyro.plate("items", 4, dim=-1)
    with users:
        u = pyro.sample("u", dist.Normal(0.0, 1.0))
    with items:
        v = pyro.sample("v", dist.Normal(0.0, 1.0))
    with users, items:
        pyro.sample("r", dist.Normal(u * v, noise), obs=ratings)


@pytest.mark.parametrize(
    ("model", "data", "edges"),
    [
        (_nested, torch.zeros(3, 4), {("bias", "effect"), ("effect", "slope"), ("slope", "y"), ("noise", "y")}),
        (_schools, torch.zeros(8), {("mu", "theta"), ("tau", "theta"), ("z", "theta"), ("theta", "effect")}),
        (
            _unused,
            torch.zeros(3),
            {("z", "again"), ("z", "theta"), ("tau", "theta"), ("tau", "effect"), ("theta", "effect")},
        ),
        (_counted, torch.tensor(1.0), {("share", "kind"), ("kind", "level"), ("level", "y")}),
        (_topics, torch.zeros(6, 5).long(), {("theta", "z"), ("z", "w"), ("phi", "w")}),
        (_decoder, torch.zeros(8, 3), {("z", "x"), ("decoder", "x")}),
        (_factorisation, torch.zeros(5, 4), {("u", "r"), ("v", "r"), ("noise", "r")}),
        (partial(gmm.model, num_components=2), torch.randn(30, 3), None),
    ],
)
def test_graph_is_drawn_downwards_with_plates_around_their_own_sites_only(model, data, edges):
    graph = plots.model_graph(model, (data,))
    if edges is not None:
        assert set(graph.edges) == edges
    layout = lay_out(graph)
    for parent, child in graph.edges:
        assert layout.nodes[parent][1] > layout.nodes[child][3], (parent, child)
    for plate, members in graph.plates.items():
        left, bottom, right, top = layout.plates[plate]
        for name, box in layout.nodes.items():
            if name in members:
                assert left < box[0] < box[2] < right
                assert bottom < box[1] < box[3] < top
            else:
                assert _apart(box, layout.plates[plate]), (plate, name)
        for other, others in graph.plates.items():
            assert _apart(layout.plates[plate], layout.plates[other]) or members & others, (plate, other)
    for one, other in combinations(layout.nodes.values(), 2):
        assert _apart(one, other)


def test_plates_that_cross_have_their_shared_sites_between_them():
    plates = {"rows": {"a", "c"}, "columns": {"b", "c"}}
    layout = lay_out(plots.Graph(dict.fromkeys("abc", ("latent", "")), [], plates))
    for plate, stranger in (("rows", "b"), ("columns", "a")):
        assert _apart(layout.plates[plate], layout.nodes[stranger])


def _apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_a_plates_label_can_be_read_where_an_arrow_leaves_the_plate():
    nodes, edges = dict.fromkeys(("rate", "x"), ("latent", "")), [("rate", "x")]
    axes = plots.plot_graph(plots.Graph(nodes, edges, {"segments: 4": {"rate"}, "rows: 9": {"x"}})).axes[0]
    (arrow,) = (patch for patch in axes.patches if isinstance(patch, FancyArrowPatch))
    labels = [text for text in axes.texts if ": " in text.get_text()]
    assert len(labels) == 2
    for label in labels:
        assert label.get_zorder() > arrow.get_zorder()
        assert label.get_bbox_patch().get_facecolor()[3] == 1  # opaque


def test_an_arrow_bends_around_what_is_in_its_way():
    place = {"above": (0.0, 2.0), "between": (0.0, 1.0), "below": (0.0, 0.0)}
    boxes = {name: (x - 0.3, y - 0.25, x + 0.3, y + 0.25) for name, (x, y) in place.items()}
    straight, bent = (num_crossed(place["above"], place["below"], bend, [boxes["between"]]) for bend in (0.0, 0.45))
    assert (straight, bent) == (1, 0)
    edges = [("above", "between"), ("between", "below"), ("above", "below")]
    figure = plots.plot_graph(plots.Graph(dict.fromkeys(place, ("latent", "")), edges, {}))
    arrows = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert [arrow.get_connectionstyle().rad != 0 for arrow in arrows] == [False, False, True]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (0.0, "0.00"),
        (-0.0, "0.00"),
        (0.12345, "0.123"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
        (-12.345, "−12.3"),
        (99.96, "100"),
        (1234.5678, "1,235"),
        (0.00123456, "0.00123"),
        (0.0000123456, "1.23e−05"),
    ],
)
def test_three_significant_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.figures])
def test_the_figures_of_every_row_are_drawn(name):
    """At draws from the prior, of which one method has few and the other a point."""
    task = load_task(name, used=("nuts",))
    traces = [traced(task, seed) for seed in range(6)]
    draws = {site: torch.stack([t.nodes[site]["value"] for t in traces])[None] for site in sites_of(traces[0])}
    params = {site: node["value"].detach() for site, node in traces[0].nodes.items() if node["type"] == "param"}
    if task.row.add_quantities:
        draws |= {site: value[None, None] for site, value in task.row.add_quantities(params).items()}
    few, point = by_svi(draws, "few"), by_svi({site: value[:, :1] for site, value in draws.items()}, "point")
    fits = (replace(fit, params=params) for fit in (few, point))
    comparison = compare(*fits, identify=task.identify, names=["few", "point"])
    sections = task.row.figures(comparison, task.args[0], task.data.columns)
    assert sections
    assert all(section.title and section.text and (section.figures or section.tables) for section in sections)


def _rung(method: str, seconds: float, judgement: str, sentence: str, gradients=None, error=None) -> dict:
    return {
        "method": method, "seconds": seconds, "gradients": gradients,
        "judgement": judgement, "error": error, "sentence": sentence,
    }  # fmt: skip


def _fitted(*rungs: dict, chosen: str = "dadvi, moved", judgement: str = "good") -> Posterior:
    rungs = rungs or (
        _rung("dadvi", 9.87, "bad", "a & b.", gradients=12345, error=0.5),
        _rung("broken", 1.0, "failed", "<i>"),
        _rung(chosen, 2.0, "good", "It is.", gradients=99, error=0.05),
        _rung("nuts", 0.0, "not tried", "no"),
    )
    record = {"seed": 0, "seconds": 12.9, "converged": True, "message": "so & so.", "chosen": chosen}
    info = FitInfo(**record, judgement=judgement, rungs=list(rungs))  # pyright: ignore[reportArgumentType]
    return Posterior({"w": 2 + torch.randn(4, 1000, 2, dtype=torch.float64)}, info)


def test_the_page_of_a_fit_shows_every_rung_with_its_cost_and_why_it_was_left(tmp_path):
    page = _Page(write_ladder(_fitted(), tmp_path / "a" / "p.html", coords={"w": [["<age>", "dose"]]}))
    assert page.labels == ["Worst error and seconds of each method that was tried"]
    assert page.text.index("<svg") < page.text.index("9.87 s, 12,345 gradients, worst error 0.500 sd")
    assert "It is." not in page.text  # of the one chosen the page has said so at the top
    for words in ("1: dadvi", "a &amp; b.", "2: broken", "&lt;i&gt;", "3: dadvi, moved", "4: nuts", "so &amp; so."):
        assert words in page.text
    assert page.text.count(">chosen</span>") == 1
    assert page.text.index("3: dadvi, moved") < page.text.index(">chosen</span>") < page.text.index("4: nuts")
    assert "0.00 s" not in page.text  # of what was not tried
    assert page.row_heads == ["w[<age>]", "w[dose]"]
    assert "i" not in page.tags
    links = [value for key, value in page.attributes if key in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in links)


def test_the_figures_of_a_fit_are_those_of_its_draws(tmp_path):
    fit = _fitted()
    values = fit.draws["w"][..., 1].flatten()
    text = write_ladder(fit, tmp_path / "p.html").read_text()
    row = text[text.index("w[1]") :]
    expected = [float(values.mean()), float(values.std()), *np.quantile(values.numpy(), [0.05, 0.5, 0.95])]
    assert [cell.split("</td>")[0] for cell in row.split("<td>")[1:6]] == [number(value) for value in expected]


def test_what_is_said_of_components_fits_a_page_of_one_posterior_or_of_several(iris: Tensor) -> None:
    draws = {
        "weights": torch.full((1, 5, 2), 0.5, dtype=torch.float64),
        "loc": torch.stack([iris[:50].mean(0), iris[50:].mean(0)]).expand(1, 5, 2, 4),
        "covariance": 0.2 * torch.eye(4, dtype=torch.float64).expand(1, 5, 2, 4, 4),
    }
    one, other = by_nuts(draws), by_svi(draws)
    alone = Comparison({"gibbs": one}, {}, {}, pd.DataFrame(), {}, None, {})
    (section,) = over_the_data(alone, iris, None)
    assert "Numbers and colours tell components apart" in section.text
    assert "reference" not in section.text
    assert all(f">{k}</text>" in section.figures[0] for k in range(2))
    both = Comparison({"gibbs": one, "svi": other}, {}, {}, pd.DataFrame(), {}, None, {})
    assert "the colour of the reference's closest one" in over_the_data(both, iris, None)[0].text


def test_a_fit_of_which_no_error_is_known_has_no_picture_and_other_posteriors_have_no_such_page(tmp_path):
    chains = _rung("gibbs", 3.0, "cannot say", "They disagree.")
    page = _Page(write_ladder(_fitted(chains, chosen="gibbs"), tmp_path / "p.html"))
    assert page.labels == []
    assert "Error against seconds" not in page.text
    assert 'class="first"' not in (tmp_path / "p.html").read_text()  # two columns
    alone = _fitted(chains, chosen="gibbs", judgement="cannot say")
    assert headline_of(alone.info, "gibbs", "cannot say") == "gibbs is not known to be good, after 13 s."
    two = _fitted(_rung("dadvi", 1.0, "bad", "It is."), chains, chosen="gibbs", judgement="cannot say")
    assert headline_of(two.info, "gibbs", "cannot say").endswith("after 13 s: gibbs comes nearest.")
    with pytest.raises(ValueError, match=r"^write_ladder: give what fit returned; this posterior is by nuts"):
        write_ladder(by_nuts(_weights()), tmp_path / "q.html")


def test_pages_take_data_by_name_and_frames(tmp_path: Path) -> None:
    def model(x: Tensor, group: Tensor, y: Tensor | None = None, *, scale: float = 1.0) -> None:
        w = pyro.sample("w", dist.Normal(0.0, scale).expand([3]).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(w[group] + x, 1.0), obs=y)

    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "group": pd.Categorical(["a", "b", "c"]), "y": [0.0, 1.0, 1.0]})
    named = {"group": frame["group"], "y": frame["y"], "scale": 2.0}
    page = write_html(_logistic_like(), tmp_path / "p.html", model=model, data=(frame["x"],), model_kwargs=named)
    text = _Page(page).text
    assert "x: 3, group: 3, y: 3" in text
    assert "scale=2.0" in text
    assert "w depends on" not in text
    assert "y depends on w" in page.read_text()
    with pytest.raises(ValueError, match="write_html: the model has no argument 'z'"):
        write_html(_logistic_like(), tmp_path / "p.html", model=model, data=(frame["x"],), model_kwargs={"z": 1})

"""The sections on what the posteriors are."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from .. import plots
from ..inference.compare import Comparison
from ..models import lda, vae
from ..plots.style import thin
from .words import Section, Table, number

_MOST_PANELS, _MOST_ROWS = 12, 200
_FIGURES = {
    "mean": "mean",
    "sd": "sd",
    "mean_shift_in_sd": "mean shift",
    "sd_ratio": "sd ratio",
    "wasserstein_in_sd": "W₁",
    "mcse_in_sd": "MCSE, in sd",
    "r_hat": "R̂",
    "ess": "ESS",
}


def posteriors(comparison: Comparison, columns: Sequence[str] | None) -> Section:
    """Every quantity under every method: the worst as densities, all as tables."""
    order = plots.worst_first(comparison)
    names = ", ".join(comparison.posteriors)
    figures = [
        plots.to_svg(
            plots.plot_quantity(comparison, label, _with_column(comparison, label, columns)),
            f"Posterior densities of {label} under {names}",
            f"q{i}",
        )
        for i, label in enumerate(order[:_MOST_PANELS])
    ]
    left = len(order) - len(figures)
    text = (
        f"One panel a quantity, those first on which the methods differ most. The grey area is {comparison.reference}, "
        "lines are the others, upright lines are points without a spread. A line narrower than the area promises too "
        "much; one beside it is biased. Narrow peaks are cut off at four times the reference's height."
    )
    if left:
        text += f" {left} more {'quantity is' if left == 1 else 'quantities are'} not drawn; their figures are below."
    tables = [_table(name, frame.loc[order]) for name, frame in comparison.quantities.items()]
    return Section("Marginal posteriors", text, figures, tables, legend=True)


def _table(name: str, frame: pd.DataFrame) -> Table:
    rows = [[str(label), *(number(row[column]) for column in _FIGURES)] for label, row in frame[:_MOST_ROWS].iterrows()]
    count = f"{len(frame)} quantities" if len(frame) <= _MOST_ROWS else f"{_MOST_ROWS} of {len(frame)} quantities"
    return Table(["quantity", *_FIGURES.values()], rows, f"{name}: the figures of {count}")


def _with_column(comparison: Comparison, label: str, columns: Sequence[str] | None) -> str:
    """The label of a quantity, and the column of the data that it is about: the last index of means and weights."""
    found = re.fullmatch(r"(loc|rate|probs|w)\[(?:\d+,)*(\d+)\]", label)
    site = comparison.posteriors[comparison.reference].draws.get(found[1]) if found else None
    if found is None or site is None or columns is None:
        return label
    named = [*columns] if site.shape[-1] == len(columns) else ["bias", *columns]  # a bias comes first
    if len(named) != site.shape[-1]:
        return label
    column = named[int(found[2])]
    return f"{label}, {column if len(column) <= 24 else column[:23] + '…'}"


def pair(comparison: Comparison) -> Section | None:
    """The worst quantity against the one most correlated with it; none if the reference is a point."""
    worst = plots.worst_first(comparison)[0]
    if comparison.posteriors[comparison.reference].info.is_point or not (other := plots.companion(comparison, worst)):
        return None
    figure = plots.to_svg(
        plots.plot_pair(comparison, worst, other),
        f"Joint posterior of {worst} and {other} under {', '.join(comparison.posteriors)}",
        "pair",
    )
    return Section(
        "Joint posterior",
        f"{worst}, the quantity on which the methods differ most, against {other}, the one most correlated with it "
        f"under {comparison.reference} (its draws are the dots). Each ellipse holds 90 % of the normal distribution "
        "with a posterior's mean and covariance. An ellipse that stays upright where the dots are aslant ignores the "
        "correlation, and that is what makes it narrow.",
        [figure],
        legend=True,
        wide=True,
    )


def mixture(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> Section | None:
    """The components of Gaussian mixtures over the data; none for other models."""
    mixtures = plots.mixtures_of(comparison.posteriors)
    first = mixtures.get(comparison.reference)
    if x is None or first is None or x.shape[1] != first.loc.shape[1]:
        return None
    chosen = plots.separating_columns(first)
    across, up = (columns[c] if columns else f"column {c}" for c in chosen)
    figures = [
        plots.to_svg(
            figure, f"Components of the mixture under {name} over {across} and {up} of the data", f"mixture{i}"
        )
        for i, (name, figure) in enumerate(plots.plot_mixtures(mixtures, x, chosen, (across, up)).items())
    ]
    return Section(
        "Components of the mixture",
        "The data in the two columns that separate the components best. Each ellipse holds 90 % of a component at the "
        "posterior mean of its parameters, with a thicker line where its weight is larger; a colour marks the "
        "component closest to the reference's. Exchanging components changes nothing, so that there are K! equal "
        "modes; k̂ and the ELBO see only the one that a guide is in.",
        figures,
    )


def profiles(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> Section | None:
    """What the components of a mixture of counts buy; none for other models."""
    found = plots.profiles_of(comparison.posteriors)
    if not found:
        return None
    width = next(iter(found.values())).mean.shape[1]
    names = _names(width, x, columns)
    kind = "expected count" if "rate" in comparison.posteriors[next(iter(found))].draws else "probability"
    figures = [
        plots.to_svg(figure, f"Components of the mixture under {name}: {kind} of each column", f"profile{i}")
        for i, (name, figure) in enumerate(plots.plot_profiles(found, names, kind).items())
    ]
    return Section(
        "Components of the mixture",
        f"The {kind} of each column in each component: dots are posterior means, bars hold 90 % of the posterior, and "
        "points have none. A colour marks the component closest to the reference's. Exchanging components changes "
        "nothing, so that there are K! equal modes; k̂ and the ELBO see only the one that a guide is in.",
        figures,
    )


def shares(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> Section | None:
    """How much of each column the factors account for; none for other models."""
    found = plots.shares_of(comparison.posteriors)
    if not found:
        return None
    names = _names(len(next(iter(found.values())).mean), x, columns)
    figure = plots.plot_shares(found, names, plots.looks(comparison))
    return Section(
        "What the factors explain",
        "Share of each column's variance that the factors account for; the rest is its noise. Dots are posterior "
        "means, bars hold 90 % of the posterior, and points have none. Turning the factors changes no likelihood, so "
        "that loadings by themselves cannot be compared; these shares can.",
        [plots.to_svg(figure, f"Shares of variance explained under {', '.join(found)}", "shares")],
        wide=True,
    )


def topics(comparison: Comparison, columns: Sequence[str] | None) -> Section | None:
    """The most probable words of every topic, method by method; none for other models."""
    found: dict[str, Tensor] = {}
    for name, posterior in comparison.posteriors.items():
        draws = posterior.draws.get("topic_words")
        if draws is not None and draws.dim() == 4:
            anchor = {"topic_words": next(iter(found.values()))[None, None]} if found else None
            found[name] = lda.identify({"topic_words": draws}, anchor)["topic_words"].mean((0, 1))
    if not found:
        return None
    words = columns or [f"word {i}" for i in range(next(iter(found.values())).shape[-1])]
    best = {name: lda.topics({"topic_words": mean}, words, 8) for name, mean in found.items()}
    rows = [[str(k), *(", ".join(lists[k]) for lists in best.values())] for k in range(len(next(iter(best.values()))))]
    return Section(
        "Topics",
        "The words that each topic makes most probable, at the posterior mean, most probable first. A row holds the "
        "topics of all methods that are closest to the reference's; their numbers mean nothing by themselves.",
        tables=[Table(["topic", *best], rows)],
        wide=True,
    )


def images(comparison: Comparison, x: Tensor | None) -> Section | None:
    """Images that an autoencoder gives back and makes up; none for other models."""
    fits = {name: p.params for name, p in comparison.posteriors.items() if _draws_images(p.params, x)}
    if x is None or not fits:
        return None
    shown = x[thin(len(x), 14)].cpu()
    figures = []
    encoders = {name: params for name, params in fits.items() if _has_encoder(params, shown)}
    if encoders:
        back = torch.stack([vae.reconstruct(params, shown) for params in encoders.values()]).numpy()
        figure = plots.plot_reconstructions(shown.numpy(), back, names=list(encoders))
        figures.append(
            plots.to_svg(figure, f"Rows of the data and their reconstructions by {', '.join(encoders)}", "back")
        )
    for i, (name, params) in enumerate(fits.items()):
        made = vae.generate(params, 28, noise=False).numpy()
        figure = plots.plot_samples(made, columns=14)
        figure.axes[0].set_title(f"{name}: generated")
        figures.append(plots.to_svg(figure, f"Images generated by {name}", f"made{i}"))
        if vae.latent_dim_of(params) == 2:
            figure = plots.plot_manifold(vae.manifold(params, 12))
            figure.axes[0].set_title(f"{name}: the plane of factors")
            figures.append(plots.to_svg(figure, f"Grid of factors decoded by {name}", f"plane{i}"))
    return Section(
        "Images",
        "Above, rows of the data and below each what encoder and decoder make of it; then images decoded from draws of "
        "the prior, the same draws for every fit, and of two factors a grid at quantiles of the prior. Decoded "
        "means are shown, without the noise of pixels.",
        figures,
        wide=True,
    )


def _draws_images(params: Mapping[str, Tensor], x: Tensor | None) -> bool:
    decoded = next((params[key] for key in params if re.fullmatch(r"decoder\.(logits|mean)\.bias", key)), None)
    if decoded is None or x is None:
        return False
    return math.isqrt(len(decoded)) ** 2 == len(decoded) == x.shape[1]


def _has_encoder(params: Mapping[str, Tensor], x: Tensor) -> bool:
    try:
        vae.encode(params, x[:1])
    except ValueError:
        return False
    return True


def _names(width: int, x: Tensor | None, columns: Sequence[str] | None) -> Sequence[str]:
    if columns is not None and x is not None and x.shape[1] == width:
        return columns
    return [f"column {i}" for i in range(width)]

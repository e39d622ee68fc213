"""The sections on how each method got where it is."""

from .. import plots
from ..inference.compare import Comparison
from ..inference.info import CaviInfo, EmInfo, McemInfo, SviInfo
from ..inference.verdict import is_sampler
from .words import Section, Table, nats, number


def losses(comparison: Comparison) -> Section | None:
    """What each run of SVI and of Monte Carlo EM gained, step by step."""
    looks = plots.looks(comparison)
    figures = [
        plots.to_svg(plots.plot_losses(name, p.info, looks[name]), f"Negative loss of {name} at each step", f"elbo{i}")
        for i, (name, p) in enumerate(comparison.posteriors.items())
        if isinstance(p.info, SviInfo | McemInfo) and len(p.info.losses)
    ]
    if not figures:
        return None
    return Section(
        "Convergence of gradient steps",
        "The negative loss against steps of the optimiser: faint, one noisy estimate a step; bold, the running mean "
        "over a fiftieth of the run. It should have become level. The first steps lie below the frame where they would "
        "flatten the rest. Dotted, the ELBO at the end, from many draws. A point's loss is a log joint density and not "
        "a bound; so are that of Laplace's approximation, which is put around a point, and that of Monte Carlo EM, "
        "which is taken at one draw of the latent variables: do not compare them with an ELBO.",
        figures,
    )


def objectives(comparison: Comparison) -> Section | None:
    """What each run of EM and of coordinate ascent gained, and where its restarts ended."""
    looks = plots.looks(comparison)
    figures, tables = [], []
    for i, (name, posterior) in enumerate(comparison.posteriors.items()):
        info = posterior.info
        if not isinstance(info, EmInfo | CaviInfo):
            continue
        figure = plots.plot_objective(name, info, looks[name])
        figures.append(plots.to_svg(figure, f"Objective of {name} after each iteration", f"em{i}"))
        rows = [
            [
                nats(b["objective"]),
                str(b["restarts"]),
                f"set aside: {b['degenerate']}" if b["degenerate"] else "an optimum",
            ]
            for b in info.optima
        ]
        tables.append(Table([f"{name} ended at, nats", "restarts", "which is"], rows))
    if not figures:
        return None
    return Section(
        "Convergence of alternating updates",
        "The objective of the best restart after each iteration, a likelihood for EM and a bound on the evidence for "
        "coordinate ascent; it never falls. The table says where all restarts "
        "ended (dotted lines, where they are in the frame): several optima mean that a single start would not have "
        "been enough, and a degenerate one is a likelihood without bound, not a better fit.",
        figures,
        tables,
    )


def chains(comparison: Comparison) -> Section | None:
    """Diagnostics of each run of a sampler."""
    rows = []
    for name, posterior in comparison.posteriors.items():
        info, frame = posterior.info, comparison.quantities[name]
        if not is_sampler(posterior):
            continue
        number_of_chains, length = next(iter(posterior.draws.values())).shape[:2]
        accepted, divergences = getattr(info, "accept_rate", None), info.divergences
        rows.append(
            [
                name,
                f"{number_of_chains} × {length}",
                str(getattr(info, "num_warmup", "–")),
                f"{frame['r_hat'].max():.4f}",
                number(frame["ess"].min()),
                number(frame["ess"].min() / info.seconds),
                "–" if divergences is None else str(int(divergences.sum())),
                "–" if accepted is None else number(float(accepted.mean())),
                ", ".join(number(float(size)) for size in getattr(info, "step_size", ())) or "–",
            ]
        )
    if not rows:
        return None
    heads = [
        "method",
        "chains × draws",
        "warm-up",
        "worst R̂",
        "least ESS",
        "least ESS a second",
        "divergences",
        "share moved",
        "step sizes",
    ]
    return Section(
        "Chains of the samplers",
        "R̂ compares the variance between chains with that within them and should be at most 1.01 for every quantity; "
        "ESS, the bulk effective sample size, should be at least 400 in all. Both are taken on the quantities "
        "compared, not on raw sites, whose order of components may differ between chains. A divergence marks a region "
        "that a Hamiltonian sampler could not enter.",
        tables=[Table(heads, rows)],
    )


def endings(comparison: Comparison) -> Section:
    """Engine, seed, time and end of every run."""
    rows = [
        [name, p.info.method, p.info.engine, str(p.info.seed), number(p.info.seconds), p.info.message]
        for name, p in comparison.posteriors.items()
    ]
    return Section(
        "How each run went",
        "The same seed on the same machine and the same versions gives the same figures again.",
        tables=[Table(["method", "kind", "engine", "seed", "seconds", "how it ended"], rows)],
    )

"""The sections on how each method ran."""

from collections.abc import Iterable, Mapping
from typing import Any

from .. import plots
from ..inference.compare import Comparison
from ..inference.diagnostics import MAX_R_HAT, MIN_ESS
from ..inference.info import CaviInfo, EmInfo, McemInfo, SviInfo
from ..inference.verdict import is_sampler
from ..inference.words import nats, number
from ..plots import Section, Table


def errors(comparison: Comparison) -> Section | None:
    """Show what each method cost and how far off it is; None if no method has a known error."""
    left_out = plots.without_error(comparison)
    if len(left_out) == len(comparison.posteriors) - 1:
        return None
    figure = plots.plot_error_against_seconds(comparison)
    text = (
        "One point per method: its seconds, and the error of its worst quantity, which is the shift of the mean in sds "
        "of the reference, or how far off the sd is (25 % counts as 0.25). Colours are verdicts, which allow for Monte "
        f"Carlo error. Dashed: the seconds of {comparison.reference}."
    )
    if "point" in comparison.table["judgement"].values:
        text += " Crosses are points, without a spread: theirs is the error of the mean alone."
    if left_out:
        text += f" Without a known error: {', '.join(left_out)}."
    description = f"Worst error and seconds of each method beside {comparison.reference}, as in the table"
    return Section("Error against seconds", text, [plots.to_svg(figure, description, "errors")], wide=True)


def losses(comparison: Comparison) -> Section | None:
    """Show the loss of each run of SVI and of Monte Carlo EM."""
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
        "The negative loss at each optimiser step: faint, one noisy estimate per step; bold, the running mean over a "
        "fiftieth of the run, which should have levelled off. Early steps that would flatten the rest are cut off. "
        "Dotted: the final ELBO, from many draws. For points, Laplace approximations (centred on a point) and Monte "
        "Carlo EM (one draw of the latent variables) the loss is a log joint density, not a bound: do not compare it "
        "with an ELBO.",
        figures,
    )


def objectives(comparison: Comparison) -> Section | None:
    """Show the objective of each run of EM and of coordinate ascent, and where its restarts ended."""
    looks = plots.looks(comparison)
    figures, tables = [], []
    for i, (name, posterior) in enumerate(comparison.posteriors.items()):
        info = posterior.info
        if not isinstance(info, EmInfo | CaviInfo):
            continue
        figure = plots.plot_objective(name, info, looks[name])
        figures.append(plots.to_svg(figure, f"Objective of {name} after each iteration", f"em{i}"))
        rows = []
        for basin in info.optima:
            kind = f"set aside: {basin['degenerate']}" if basin["degenerate"] else "an optimum"
            rows.append([kind, nats(basin["objective"]), str(basin["restarts"])])
        tables.append(Table([f"{name} ended in", "objective, nats", "restarts"], rows))
    if not figures:
        return None
    return Section(
        "Convergence of alternating updates",
        "The objective of the best restart after each iteration: a likelihood for EM, a bound on the evidence for "
        "coordinate ascent. It never falls. The table lists where all restarts ended (dotted lines, if within the "
        "frame). Several optima mean that a single start would not have been enough; a degenerate optimum is an "
        "unbounded likelihood, not a better fit.",
        figures,
        tables,
    )


def chains(comparison: Comparison) -> Section | None:
    """Show the diagnostics of each sampler's chains."""
    rows = []
    for name, posterior in comparison.posteriors.items():
        info, frame = posterior.info, comparison.quantities[name]
        if not is_sampler(posterior):
            continue
        num_chains, length = next(iter(posterior.draws.values())).shape[:2]
        accepted, divergences = getattr(info, "accept_rate", None), info.divergences
        row = {
            "method": name,
            "chains × draws": f"{num_chains} × {length}",
            "warm-up": str(getattr(info, "num_warmup", "–")),
            "worst R̂": f"{frame['r_hat'].max():.4f}",
            "least ESS": number(frame["ess"].min()),
            "least ESS per second": number(frame["ess"].min() / info.seconds),
            "divergences": "–" if divergences is None else str(int(divergences.sum())),
            "share moved": "–" if accepted is None else number(float(accepted.mean())),
            "step sizes": _range(getattr(info, "step_size", ())),
        }
        rows.append(row)
    if not rows:
        return None
    return Section(
        "Chains of the samplers",
        "R̂ compares the variance between chains with that within them; it should be at most "
        f"{MAX_R_HAT}, but for what chance does to the largest of many quantities. ESS, the number of effective draws "
        f"of all chains for the mean or for the sd, whichever is less, should likewise be at least {MIN_ESS}. Both are "
        "computed for the quantities compared, not for raw sites, whose order of components may differ between chains. "
        "A divergence marks a region that a Hamiltonian sampler could not enter.",
        tables=[Table(list(rows[0]), [list(row.values()) for row in rows])],
    )


def _range(values: Iterable[Any]) -> str:
    """Return the least and the largest of what chains have, or the one that all share."""
    found = [number(value) for value in sorted(map(float, values))]
    if not found:
        return "–"
    return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def endings(comparison: Comparison, messages: Mapping[str, str]) -> Section:
    """List engine, seed and time of every run, and how it ended, by its name."""
    rows = [
        [name, p.info.method, p.info.engine, str(p.info.seed), number(p.info.seconds), messages[name]]
        for name, p in comparison.posteriors.items()
    ]
    return Section(
        "How each run went" if len(rows) > 1 else "How the run went",
        "The same seed on the same machine with the same versions reproduces these figures.",
        tables=[Table(["method", "kind", "engine", "seed", "seconds", "how it ended"], rows)],
    )

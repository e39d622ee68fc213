"""Which input each model takes: every case of `cases.py`, by the model itself and by its methods.

``python -m reliability.inputs`` writes ``docs/inputs.md``, and with ``--check`` compares it. A cell is in order if the
fit is right (that of plain data, where the numbers are the same; finite otherwise) or refused in one sentence that
begins with the name of the model or the method.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine

from guidebook import guides
from guidebook.inference import cavi, closed_form, dadvi, em, gibbs, svi
from guidebook.models import factor_analysis, gmm, lda, linear, logistic, mixture, ppca, vae

from .cases import CASES, EVERY, Case, base

PAGE = Path(__file__).parents[1] / "docs" / "inputs.md"
Fit = Callable[..., dict[str, torch.Tensor]]
NAMES = (*EVERY, "svi", "dadvi", "em", "cavi", "gibbs", "closed_form")
COMPARED = ("em", "cavi", "gibbs", "closed_form")  # same numbers, same answer: draws of other dtypes differ
FITS, REFUSED, RAW, WRONG = "fits", "refused", "raw", "wrong"


class Outcome(NamedTuple):
    """What came of one case: a kind, and the sentence of a refusal or what went wrong."""

    kind: str
    words: str = ""


def _params(posterior: Any) -> dict[str, torch.Tensor]:
    return dict(posterior.params) or {name: value.double().mean((0, 1)) for name, value in posterior.draws.items()}


def _by(method: Callable, make: Callable, **options: Any) -> Fit:
    return lambda *data: _params(method(make(), *data, **options))


def _gibbs(make: Callable) -> Fit:
    return _by(gibbs, make, num_draws=20, num_warmup=20, num_chains=2, progress=False)


def _density(model: Callable) -> Fit:
    """Return the log density of the data at sites drawn from the prior, by the model as it stands."""

    def run(*data: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        with torch.no_grad(), pyro.get_param_store().scope():
            trace = poutine.trace(model).get_trace(*data)
            return {"log_density": torch.as_tensor(trace.log_prob_sum()).double()}

    return run


def _svi(model: Callable, guide: Callable, **options: Any) -> Fit:
    options = {"num_steps": 20, "num_draws": 10, "progress": False, "engine": "eager"} | options
    return lambda *data: _params(svi(model, guide, *data, **options))


def _dadvi(model: Callable) -> Fit:
    return lambda *data: _params(dadvi(model, *data, num_draws=16, progress=False))


MODELS: dict[str, Callable] = {
    "logistic": logistic.model,
    "linear": linear.model,
    "gmm": partial(gmm.model, num_components=2),
    "mixture": partial(mixture.model, num_components=2),
    "ppca": partial(ppca.model, latent_dim=1),
    "factor_analysis": partial(factor_analysis.model, latent_dim=1),
    "lda": partial(lda.model, num_topics=2, alpha=1.0, eta=1.0),
    "vae": partial(vae.model, likelihood="gaussian", hidden=4),
}
EXACT: dict[str, dict[str, Fit]] = {
    "logistic": {"cavi": _by(cavi, logistic.cavi_steps, num_restarts=1), "gibbs": _gibbs(logistic.gibbs_steps)},
    "linear": {
        "closed_form": lambda *data: _params(closed_form(linear.closed_form, *data)),
        "em": _by(em, linear.em_steps, num_restarts=1),
        "cavi": _by(cavi, linear.cavi_steps, num_restarts=1),
        "gibbs": _gibbs(linear.gibbs_steps),
    },
    "gmm": {
        "em": _by(em, partial(gmm.em_steps, 2), num_restarts=4),
        "cavi": _by(cavi, partial(gmm.cavi_steps, 2), num_restarts=2),
        "gibbs": _gibbs(partial(gmm.gibbs_steps, 2)),
    },
    "mixture": {
        "em": _by(em, partial(mixture.em_steps, 2), num_restarts=4),
        "cavi": _by(cavi, partial(mixture.cavi_steps, 2), num_restarts=2),
        "gibbs": _gibbs(partial(mixture.gibbs_steps, 2)),
    },
    "ppca": {
        "closed_form": lambda *data: _params(closed_form(partial(ppca.maximum_likelihood, latent_dim=1), *data)),
        "em": _by(em, partial(ppca.em_steps, 1), num_restarts=2),
    },
    "factor_analysis": {"em": _by(em, partial(factor_analysis.em_steps, 1), num_restarts=2)},
    "lda": {
        "cavi": _by(cavi, partial(lda.cavi_steps, 2, 1.0, 1.0), num_restarts=1),
        "gibbs": _gibbs(partial(lda.gibbs_steps, 2, 1.0, 1.0)),
    },
    "vae": {"svi": _svi(MODELS["vae"], partial(guides.vae.encoder, hidden=4))},
}
GENERAL: dict[str, dict[str, Fit]] = {
    name: {"svi": _svi(model, guides.mean_field), "dadvi": _dadvi(model)}
    for name, model in MODELS.items()
    if name != "vae"
}


def fits(model: str, *, general: bool = True) -> dict[str, Fit]:
    """Return the ways to fit a model, by name; ``general`` says whether those for any model are among them."""
    of_any = GENERAL.get(model, {}) if general else {}
    return {"model": _density(MODELS[model])} | EXACT[model] | of_any


def outcome(model: str, case: Case, fit: Fit, expected: dict[str, torch.Tensor] | None = None) -> Outcome:
    """Return what comes of a case, beside the ``expected`` answer if the numbers are the same."""
    x, y = case.change(*base(model))
    data = (x,) if y is None and base(model)[1] is None else (x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = fit(*data)
        except (ValueError, ArithmeticError) as error:
            words = str(error).partition("\nTrace Shapes:")[0]  # which Pyro adds to what a model raises
            is_sentence = "\n" not in words and re.match(rf"({'|'.join(NAMES)}): ", words)
            return Outcome(
                REFUSED if is_sentence else RAW, words if is_sentence else f"{type(error).__name__}: {words}"
            )
        except Exception as error:
            return Outcome(RAW, f"{type(error).__name__}: {error}")
    for name, value in found.items():
        if not torch.isfinite(value).all():
            return Outcome(WRONG, f"{name} is not finite")
    return Outcome(FITS) if expected is None else _beside(found, expected)


def _beside(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> Outcome:
    for name, value in expected.items():
        gap = float((found[name].double() - value.double()).abs().max())
        scale = float(value.double().abs().max())
        if gap > (1e-3 if found[name].dtype == torch.float32 else 1e-6) * scale:
            return Outcome(WRONG, f"{name} is off by {gap:.1e} of {scale:.1e}")
    return Outcome(FITS)


def table(models: Iterable[str] = EVERY, *, general: bool = False) -> dict[tuple[str, str, str], Outcome]:
    """Return the outcome by case, model and way to fit it."""
    found = {}
    for model in models:
        ways = fits(model, general=general)
        for way, fit in ways.items():
            plain = None
            for case in (case for case in CASES if model in case.models and not (case.array and way == "model")):
                if plain is None:  # the first case is plain data
                    plain = _plain(model, case, fit)
                same = case.same and way in COMPARED
                found[case.name, model, way] = outcome(model, case, fit, plain if same else None)
    return found


def _plain(model: str, case: Case, fit: Fit) -> dict[str, torch.Tensor]:
    x, y = case.change(*base(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(x) if y is None else fit(x, y)


MARKS = {FITS: "●", REFUSED: "–"}
BEGINNING = """# What a model takes as data

Every case below was tried on every model: on the model as it stands and by its own methods (`logistic` by `cavi` and
`gibbs`, `gmm` by `em`, `cavi` and `gibbs`, and so on). `●` says that the fit is right (that of plain data, where the
numbers are the same), `–` that it is refused in a sentence, `●–` that some methods fit it and others refuse it. Nothing
else happens: no other error, and no answer that is wrong without a word. In Python and by command, data pass through
the same door.

`python -m reliability.inputs` writes this page, and the tests hold it against what happens.

"""
SAID = "## What is said"


def markdown(found: dict[tuple[str, str, str], Outcome]) -> str:
    """Return the page: which case fits which model, and what is said where one is refused."""
    lines = [f"| input | {' | '.join(f'`{model}`' for model in EVERY)} |", f"|---|{':-:|' * len(EVERY)}"]
    for case in CASES:
        cells = []
        for model in EVERY:
            kinds = [one.kind for (name, of, _), one in found.items() if (name, of) == (case.name, model)]
            cells.append("".join(mark for kind, mark in MARKS.items() if kind in kinds))
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    lines += ["", SAID, "", "After the name of the model or the method:", "", "| sentence | input |", "|---|---|"]
    inputs: dict[str, list[str]] = {}
    for (name, _, _), one in found.items():
        if one.kind == REFUSED:
            said = inputs.setdefault(_escaped(one.words.partition(": ")[2]), [])
            said += [] if name in said else [name]
    lines += [f"| {sentence} | {', '.join(names)} |" for sentence, names in inputs.items()]
    return BEGINNING + "\n".join(lines) + "\n"


def _escaped(sentence: str) -> str:
    """Return a sentence for a table, without figures that differ between machines."""
    return re.sub(r"\d+(\.\d+)?e-\d+", "…", sentence).replace("|", "\\|")


def main() -> None:
    """Write the page; exit with 1 if any cell is out of order, and say which."""
    found = table()
    bad = [(cell, one) for cell, one in found.items() if one.kind not in MARKS]
    for cell, one in bad:
        print(*cell, *one, sep=": ")
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(markdown(found), encoding="utf-8")
    elif markdown(found).partition(SAID)[0] != PAGE.read_text(encoding="utf-8").partition(SAID)[0]:
        print(f"{PAGE} is out of date: run python -m reliability.inputs")
        bad.append((("page", "", ""), Outcome(WRONG)))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()

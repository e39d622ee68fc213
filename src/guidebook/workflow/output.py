"""Posteriors and comparisons as JSON and as tables for a person."""

import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from guidebook.inference import Check, Comparison, FitInfo, Posterior
from guidebook.inference.climb import MOVED
from guidebook.inference.diagnostics import disagrees, ess, of_sites, r_hat
from guidebook.inference.info import Info
from guidebook.inference.mcmc.chains import without_raw_disagreement
from guidebook.inference.quantities import Coords, label
from guidebook.inference.verdict import Verdict
from guidebook.inference.words import nats, number
from guidebook.workflow.fit import Task
from guidebook.workflow.own.file import OwnFunction
from guidebook.workflow.own.inputs import inputs_of
from guidebook.workflow.own.leave_one_out import leave_one_out

MOST_ROWS = 100  # printed per site


def run_json(task: Task, posterior: Posterior, found: Verdict | None = None) -> dict[str, Any]:
    """Return what ``guidebook run --json`` prints; likelihoods in nats, in the units fitted.

    ``found`` is what is said of the posterior without a reference.
    """
    info = posterior.info
    quantities = task.quantities(posterior.draws)
    converged, ended = has_converged(info, quantities), info.message
    if converged and not info.converged:
        ended = without_raw_disagreement(posterior)
    return {
        "model": task.row.name,
        "method": info.method,
        "guide": info.guide,
        "data": task.data.name,
        "source": task.source,
        "settings": list(task.settings),
        "encoding": encoding._asdict() if (encoding := task.data.encoding) else None,
        "standardized": task.data.standardized,
        "seed": info.seed,
        "seconds": info.seconds,
        "engine": info.engine,
        "converged": converged,
        "stopped_because": ended,
        "log_likelihood": plain(_log_likelihood(task, quantities, posterior)),
        "log_evidence": plain(info.log_evidence),
        "elbo": plain(info.elbo),
        "k_hat": plain(info.k_hat),
        "judgement": found.judgement if found else None,
        "sentence": found.sentence if found else None,
        "reading": _reading(task).lstrip(",; "),
        "findings": _findings(task, posterior),
        "parameters": {site: parameter_json(draws) for site, draws in quantities.items()},
        **_own_json(task, posterior),
    }


def _findings(task: Task, posterior: Posterior) -> list[str]:
    """Return the few figures that matter; of rows read in blocks, how many of them were in memory at once."""
    if task.stream is not None:
        held = posterior.info.streamed or task.stream.held()
        most = f"{held['rows_held']:,} at most ({held['bytes_held'] / 2**20:.1f} MiB)"
        return [f"{held['rows']:,} rows were read in blocks of {most}"]
    return task.row.findings(posterior, task.data, task.options) if task.row.findings else []


def file_json(own: OwnFunction) -> dict[str, str]:
    """Return where a user's own model is, and what its file was like when it was run."""
    return {"path": str(own.path), "function": own.name, "sha256": own.sha256}


def _own_json(task: Task, posterior: Posterior) -> dict[str, Any]:
    """Return what reading a fit of a user's own model again, and new data for it, takes."""
    if task.own is None or task.row.own is None:
        return {}
    inputs = inputs_of(task.model, task.args, task.own.arguments, task.own.names, posterior.params)
    return {
        "file": file_json(task.row.own),
        "inputs": inputs.as_record(),
        "loo": leave_one_out(task.model, task.args, posterior),
    }


def fit_json(task: Task, posterior: Posterior[FitInfo]) -> dict[str, Any]:
    """Return what ``guidebook fit --json`` prints: that of a run, and what was tried."""
    info = posterior.info
    words = {"judgement": info.judgement, "sentence": info.message, "chosen": info.chosen, "rungs": info.rungs}
    record = run_json(task, posterior) | words
    if info.chosen.endswith(MOVED):  # short chains need not agree: nested R̂ has judged them
        record["parameters"] = {site: figures | {"r_hat": None} for site, figures in record["parameters"].items()}
    return record


def check_json(task: Task, posterior: Posterior, found: Check) -> dict[str, Any]:
    """Return what ``guidebook check --json`` prints."""
    method = ":".join(filter(None, (posterior.info.method, posterior.info.guide)))
    return {
        "model": task.row.name,
        "data": task.data.name,
        "method": method,
        "judgement": found.judgement,
        "sentence": found.sentence,
        "quantities": found.quantities,
    }


def has_converged(info: Info, quantities: dict[str, Tensor]) -> bool:
    """Return whether a run converged; for samplers, no divergences, and chains agree in all identified quantities.

    R̂ of raw sites will not do: a mixture's chains may agree but for the order of the components.
    """
    if info.r_hat is None:
        return info.converged
    diverged = info.divergences is not None and int(info.divergences.sum()) > 0
    return not diverged and not any(
        bool(apart.any()) for apart in disagrees(quantities, of_sites(quantities)[0]).values()
    )


def _log_likelihood(task: Task, quantities: dict[str, Tensor], posterior: Posterior) -> float | None:
    """Return the log likelihood in nats, if the parameters are a point."""
    if task.stream is not None:
        return posterior.info.log_likelihood
    if task.row.log_likelihood is None or not all(_is_constant(draws) for draws in quantities.values()):
        return None
    point = {**posterior.params, **{site: draws[0, 0] for site, draws in posterior.draws.items()}}
    point = {name: value.double() for name, value in point.items()}
    args = [value.double() for value in task.args]
    return float(task.row.log_likelihood(point, *args).sum())


def _is_constant(draws: Tensor) -> bool:
    return bool((draws == draws[:1, :1]).all())


def parameter_json(draws: Tensor) -> dict[str, Any]:
    """Return mean, sd, R̂ and effective sample size of draws shaped (chain, draw, *site), as nested lists."""
    flat = draws.double().flatten(0, 1)
    if _is_constant(draws):
        return {"mean": plain(flat.mean(0)), "sd": None, "r_hat": None, "ess": None}
    figures = {"mean": flat.mean(0), "sd": flat.std(0), "r_hat": r_hat(draws), "ess": ess(draws)}
    return {name: plain(values) for name, values in figures.items()}


def comparison_json(task: Task, comparison: Comparison) -> dict[str, Any]:
    """Return what ``guidebook compare --json`` prints."""
    methods = []
    for name, verdict in comparison.verdicts.items():
        info, frame = comparison.posteriors[name].info, comparison.quantities[name]
        worst, frame = comparison.worst(name), frame.rename(comparison.numbered)
        farthest = _figures(frame, "mean_shift_in_sd", "sd_ratio", "wasserstein_in_sd")[comparison.numbered[worst]]
        methods.append(
            {
                "name": name,
                "seconds": info.seconds,
                "elbo": plain(info.elbo),
                "k_hat": plain(info.k_hat),
                "judgement": verdict.judgement,
                "verdict": verdict.sentence,
                "worst": {"quantity": comparison.numbered[worst], "label": worst} | farthest,
                "quantities": _figures(frame, "mean_shift_in_sd", "sd_ratio", "mcse_in_sd"),
            }
        )
    return {
        "model": task.row.name,
        "data": task.data.name,
        "standardized": task.data.standardized,
        "reference": comparison.reference,
        "headline": comparison.headline,
        "methods": methods,
    }


def _figures(frame: pd.DataFrame, *columns: str) -> dict[str, dict[str, Any]]:
    rows = frame.filter(columns).to_dict("index")
    return {str(label): {column: plain(value) for column, value in row.items()} for label, row in rows.items()}


def plain(value: Any) -> Any:
    """Return tensors as nested lists, and None for what is not finite, which JSON cannot hold."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_run(record: dict[str, Any], coords: Coords) -> None:
    """Print what `run_json` returned as a table, entries of sites by their names in ``coords``."""
    from rich.console import Console
    from rich.table import Table

    guide = f" with guide {record['guide']}" if record["guide"] else ""
    table = Table(title=f"{record['model']} on {record['data']} by {record['method']}{guide}", title_justify="left")
    table.add_column("quantity")
    for column in ("mean", "sd", "r_hat", "ess"):
        table.add_column(column, justify="right")
    for site, figures in record["parameters"].items():
        shape = np.shape(figures["mean"])
        columns = [np.broadcast_to(np.array(figures[c], float), shape) for c in ("mean", "sd", "r_hat", "ess")]
        for index in itertools.islice(np.ndindex(shape), MOST_ROWS):
            table.add_row(
                label(site, index, coords), *("–" if np.isnan(c[index]) else f"{c[index]:.4g}" for c in columns)
            )
        if (left := math.prod(shape) - MOST_ROWS) > 0:
            table.add_row(f"{site}: {left:,} more, in --json", "", "", "", "")
    Console(markup=False).print(table)  # a name in brackets is no style
    for name, unit in (("log_likelihood", " nats"), ("log_evidence", " nats"), ("elbo", " nats"), ("k_hat", "")):
        if record[name] is not None:
            print(f"{name} {record[name]:.6g}{unit}")
    if score := record.get("loo"):
        print(score["sentence"])
    if record["reading"]:
        print(record["reading"])
    for finding in record["findings"]:
        print(finding)
    print(f"{record['seconds']:.1f} s; {record['stopped_because']}")
    if record["sentence"]:
        print(record["sentence"])


def told(task: Task, record: dict[str, Any]) -> Any:
    """Return what a page says of a fit in words."""
    from guidebook.report import Told  # matplotlib is slow to load

    data, encoding = task.data, task.data.encoding
    is_point = all(figures["sd"] is None for figures in record["parameters"].values())
    facts = {
        "Model": f"{task.row.title} ({', '.join(f'{name}={task.options[name]}' for name in task.row.options)})",
        "Method": record.get("chosen") or ":".join(filter(None, (record["method"], record["guide"]))),
        "Data": _size(task) + _reading(task),
        "Log likelihood": _in_nats(record["log_likelihood"]),
        "Log evidence": _in_nats(record["log_evidence"]),
        "ELBO": _in_nats(record["elbo"]),
        "Leave-one-out": (record.get("loo") or {}).get("sentence", ""),
        "k̂": "" if record["k_hat"] is None else number(record["k_hat"]),
        "Identifiers": ", ".join(data.ids),
        "Labels": " and ".join(data.classes or ()),
    }
    categories = {name: levels for name, levels in ((encoding and encoding.sources) or {}).items() if levels}
    if categories:
        facts["Categories"] = "; ".join(f"{name}: {levels[0]} is the reference" for name, levels in categories.items())
    return Told(
        title=f"{task.row.title} on {data.name}",
        judgement=record["judgement"] or ("point" if is_point else "not judged"),
        sentence=record["sentence"] or record["stopped_because"],
        findings=record["findings"],
        columns=data.columns,
        facts=[(term, words) for term, words in facts.items() if words],
        ended=record["stopped_because"],
    )


def _in_nats(value: float | None) -> str:
    return "" if value is None else f"{nats(value)} nats"


def _size(task: Task) -> str:
    data, rows = task.data, len(task.data.x if task.stream is None else task.stream)
    columns = f", {len(data.columns):,} columns" if data.columns else ""  # arguments of a user's own model have none
    return f"{data.name}: {rows:,} rows{columns}"


def _reading(task: Task) -> str:
    """Return what was done to the rows when they were read."""
    words = ", standardized" if task.data.standardized else ""
    if left_out := task.data.left_out:
        words += f"; {f'{left_out:,} rows with gaps are' if left_out > 1 else '1 row with a gap is'} left out"
    if task.options.get("missing") == "impute":
        words += "; gaps are filled in by their means under the model, which makes spreads a little too small"
    return words


def print_fit(record: dict[str, Any], coords: Coords) -> None:
    """Print what `fit_json` returned: the parameters, then what was tried, why it was left, and what it came to."""
    print_run(record | {"sentence": None, "stopped_because": f"chosen: {record['chosen']}"}, coords)
    for rung in record["rungs"]:
        name, judgement, words = rung["method"], rung["judgement"], rung["sentence"]
        if name == record["chosen"]:
            words = f"{name}: {judgement}"
        elif judgement in ("failed", "not tried"):
            words = f"{name}, {judgement}: {words}"
        print(f"{rung['seconds']:5.1f} s  {words}")
    print(record["sentence"])


def facts(task: Task, varied: str | None = None) -> list[tuple[str, str]]:
    """Return terms and words on model and data for the head of a page, but for an option that varies."""
    given = {name: task.options[name] for name in task.row.options if name != varied}
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    units = ", each column standardised" if task.data.standardized else ""
    return [
        ("Model", f"{task.row.title}{' (' + ', '.join(options) + ')' if options else ''}"),
        ("Data", f"{task.data.name}: {' × '.join(map(str, task.data.x.shape))}{units}"),
    ]


def read_reports(folders: Sequence[Path], beside: Path) -> list[dict[str, Any]]:
    """Read what `guidebook.report.write_index` needs from folders that ``guidebook compare --out`` wrote."""
    reports = []
    for folder in folders:
        file = folder / "comparison.json"
        if not file.is_file() or not (folder / "report.html").is_file():
            raise ValueError(f"{folder} holds no comparison: make one with guidebook compare --out {folder}")
        record = json.loads(file.read_text(encoding="utf-8"))
        rows = []
        for method in record["methods"]:
            is_reference = method["judgement"] in ("reference", "refused")
            worst = {} if is_reference else method["worst"]
            named = worst.get("label", worst.get("quantity"))  # earlier versions wrote no label
            rows.append(method | worst | {"method": method["name"], "worst": named})
        reports.append(
            {
                "title": f"{record['model']} on {record['data']}",
                "headline": record.get("headline", ""),  # earlier versions wrote none
                "href": Path(os.path.relpath(folder / "report.html", beside)).as_posix(),
                "verdicts": [(m["judgement"], m["verdict"]) for m in record["methods"]],
                "rows": rows,
            }
        )
    return reports

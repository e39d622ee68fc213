"""Compare the methods of each model, and store what pages and the explorer show: ``python docs/compare.py [MODEL …]``.

For all models it takes half an hour. Networks without a posterior to compare are held against each other by what they
predict, with ``guidebook choose``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from guidebook.workflow.stored import CHOICE, COMPARISON, FIT, MARGINALS

HERE = Path(__file__).parent / "compared"
TOPICS = ("--data", "three_documents", "--set", "num_topics=2", "--set", "alpha=1", "--set", "eta=1")
METHODS = {
    "logistic": "nuts,gibbs,dadvi,laplace,pathfinder,cavi,svi:mean_field,svi:low_rank,svi:full_rank,map",
    "linear": "closed_form,gibbs,nuts,dadvi,cavi,svi:mean_field,svi:full_rank,em",
    "gmm": "nuts,gibbs,dadvi,cavi,svi:mean_field,em,map",
    "mixture": "gibbs,dadvi,cavi,svi:mean_field,em,map",
    "ppca": "nuts,dadvi,svi:mean_field,svi:linear_encoder,em,closed_form",
    "factor_analysis": "nuts,dadvi,svi:mean_field,em",
    "lda": "gibbs,dadvi,cavi,svi:mean_field,svi:mean_field_by_hand",
    "vae": "svi:encoder,svi:full_covariance_encoder",
}
OPTIONS = {
    "linear": ("--reference", "closed_form"),
    "lda": (*TOPICS, "--reference", "gibbs", "--draws", "1000"),
    "vae": ("--steps", "3000"),
}
HELD_OUT = {
    "vae": ("latent_dim=2,5,10,20", "--steps", "2000"),
    "autoregressive": ("network=made,pixelcnn", "--steps", "1000"),
}
KNOWN = (*METHODS, *(model for model in HELD_OUT if model not in METHODS))
FITTED = ("logistic", "linear", "gmm", "mixture")
_KEPT_OF_FIT = ("model", "data", "chosen", "sentence", "judgement", "rungs")


def main(models: list[str]) -> None:
    """Run the commands for these models, or for all, and keep what is shown of their results."""
    for model in models or KNOWN:
        with tempfile.TemporaryDirectory() as folder:
            kept = HERE / model
            kept.mkdir(parents=True, exist_ok=True)
            if model in METHODS:
                compare(model, Path(folder, "compared"), kept)
            if model in FITTED:
                fit(model, Path(folder, "fitted"), kept)
            if model in HELD_OUT:
                choose(model, Path(folder, "chosen"), kept)


def compare(model: str, folder: Path, kept: Path) -> None:
    """Compare a model's methods, and keep the quantities whose curves are shown."""
    command("compare", model, "--methods", METHODS[model], *OPTIONS.get(model, ()), "--out", folder)
    curves = json.loads((folder / MARGINALS).read_text())
    shown = {curve["quantity"] for curve in curves}
    record = json.loads((folder / COMPARISON).read_text()) | {"note": note()}
    for method in record["methods"]:
        method["quantities"] = {name: v for name, v in method["quantities"].items() if name in shown}
    write(kept / COMPARISON, record)
    write(kept / MARGINALS, curves)


def fit(model: str, folder: Path, kept: Path) -> None:
    """Fit a model, and keep what was tried."""
    command("fit", model, "--out", folder)
    found = json.loads((folder / FIT).read_text())
    write(kept / FIT, {key: found[key] for key in _KEPT_OF_FIT})


def choose(model: str, folder: Path, kept: Path) -> None:
    """Choose an option's value by rows held out, and keep how each value does."""
    varied, *options = HELD_OUT[model]
    command("choose", model, "--set", varied, *options, "--out", folder)
    write(kept / CHOICE, json.loads((folder / CHOICE).read_text()) | {"note": note()})


def note() -> str:
    """Return when this was run, and how busy the machine was."""
    today, cores, load = date.today(), os.cpu_count() or 1, os.getloadavg()[1]
    busy = ", busy with other work: fits take several times fewer seconds on a quiet one" if load > 1.5 * cores else ""
    return f"Run on {today.day} {today:%B %Y} on {cores} cores at a load of {load:.0f}{busy}."


def command(*words: Any) -> None:
    """Run ``guidebook`` with these words."""
    subprocess.run([sys.executable, "-m", "guidebook", *map(str, words)], check=True)


def write(file: Path, record: Any) -> None:
    """Write a record in few characters, its figures to five digits."""
    file.write_text(json.dumps(rounded(record), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def rounded(record: Any) -> Any:
    """Return a record with its figures rounded to five digits."""
    if isinstance(record, dict):
        return {key: rounded(value) for key, value in record.items()}
    if isinstance(record, list):
        return [rounded(value) for value in record]
    return float(f"{record:.5g}") if isinstance(record, float) else record


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(KNOWN)}; default: all")
    chosen = options.parse_args().models
    if unknown := sorted({*chosen} - {*KNOWN}):
        options.error(f"no methods are listed for {', '.join(unknown)}")
    main(chosen)

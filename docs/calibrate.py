"""Calibrate the collection's cells and write docs/calibration.md anew: ``make calibrate [CELLS="gmm:gibbs …"]``."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from guidebook.inference import Calibration
from guidebook.plots import plot_calibration
from guidebook.workflow.calibrate import calibrate, with_fixed_prior
from guidebook.workflow.fit import load_task
from guidebook.workflow.names import split_method
from guidebook.workflow.resolve import find_row

HERE = Path(__file__).parent
RESULTS = HERE / "calibration" / "results.json"
PAGE = HERE / "calibration.md"
CHAINS = {"chains": 1, "draws": 400, "warmup": 200}


class Cell(NamedTuple):
    """A method of a model, and how often to fit what to what."""

    method: str
    simulations: int
    rows: int | None
    settings: tuple[str, ...] = ()
    data: str | None = None
    counts: dict[str, Any] = CHAINS

    def name(self, model: str) -> str:
        """Return the name of the cell, such as gmm:gibbs."""
        return f"{model}:{self.method}"


TOPICS = ("num_topics=2", "alpha=1", "eta=1")
CELLS: dict[str, list[Cell]] = {
    "linear": [
        Cell("closed_form", 1000, 60),
        Cell("gibbs", 1000, 60, ("thin=1",)),
        Cell("cavi", 500, 60),
        Cell("dadvi", 500, 60),
        Cell("nuts", 100, 60),
        Cell("svi:mean_field", 100, 60),
    ],
    "logistic": [
        Cell("gibbs", 500, 60, ("thin=1",)),
        Cell("cavi", 200, 60),
        Cell("dadvi", 500, 60),
        Cell("laplace", 200, 60),
        Cell("nuts", 100, 60),
        Cell("svi:mean_field", 100, 60),
    ],
    "gmm": [
        Cell("gibbs", 500, 40, ("num_components=2", "thin=1")),
        Cell("cavi", 200, 40, ("num_components=2",)),
        Cell("nuts", 100, 40, ("num_components=2",)),
    ],
    "mixture": [
        Cell("gibbs", 500, 40, ("num_components=2", "thin=1")),
        Cell("cavi", 200, 40, ("num_components=2",)),
        Cell("nuts", 100, 40, ("num_components=2",)),
    ],
    "ppca": [Cell("nuts", 100, 40, ("latent_dim=1",))],
    "factor_analysis": [Cell("nuts", 100, 40, ("latent_dim=1",))],
    "lda": [
        Cell("gibbs", 500, None, (*TOPICS, "thin=1"), "three_documents"),
        Cell("nuts", 100, None, TOPICS, "three_documents"),
    ],
}


def run(model: str, cell: Cell) -> tuple[Calibration, float]:
    """Calibrate a cell; the CPU seconds of all fits come with it."""
    method, guide = split_method(find_row(model, cell.settings), cell.method)
    task = with_fixed_prior(load_task(model, cell.data, cell.settings, (method, guide)), cell.rows)
    begin = time.process_time()
    found = calibrate(task, method, guide, counts=cell.counts, num_simulations=cell.simulations, progress=False)
    return found, time.process_time() - begin


def record(model: str, cell: Cell, found: Calibration, seconds: float) -> dict[str, Any]:
    """Return a row of the table; figures are those of the quantity that is farthest off."""
    table = found.table
    worst = table["p_value"].idxmin()
    parameters = table.drop(index="log joint", errors="ignore")
    return {
        "model": " ".join([model, *(text for text in cell.settings if text != "thin=1")]),
        "method": cell.method,
        "simulations": found.num_simulations,
        "rows": cell.rows or cell.data,
        "quantities": len(table),
        "judgement": found.judgement,
        "p_value": float(table["p_value"].min()),
        "worst": str(worst),
        "direction": str(table.loc[worst, "direction"]),
        "p_symmetry": float(parameters["p_symmetry"].min()),
        "sd_ratio": [float(parameters["sd_ratio"].min()), float(parameters["sd_ratio"].max())],
        "seconds_per_fit": seconds / cell.simulations,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    heads = ["model", "method", "simulations", "rows", "quantities", "judgement", "p", "worst", "sd ratios"]
    heads += ["p of symmetry", "s per fit"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        low, high = row["sd_ratio"]
        worst = f"{row['worst']}: {row['direction']}" if row["direction"] else "–"
        lines.append(
            f"| {row['model']} | `{row['method']}` | {row['simulations']:,} | {row['rows']} | {row['quantities']} | "
            f"{row['judgement']} | {row['p_value']:.2g} | {worst} | {low:.2f}–{high:.2f} | {row['p_symmetry']:.2g} | "
            f"{row['seconds_per_fit']:.2g} |"
        )
    return "\n".join(lines)


def renew(results: dict[str, dict[str, Any]]) -> None:
    """Put the table of these results into the page, in the order of the cells."""
    order = [cell.name(model) for model, cells in CELLS.items() for cell in cells]
    new = table([results[name] for name in order if name in results])
    PAGE.write_text(re.sub(r"^\| model \|.*(?:\n\|.*)*", lambda _: new, PAGE.read_text(), flags=re.MULTILINE))


def main(wanted: list[str]) -> None:
    """Run the cells that are named, or all, and renew the page after each."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for model, cells in CELLS.items():
        for cell in cells:
            name = cell.name(model)
            if wanted and name not in wanted:
                continue
            found, seconds = run(model, cell)
            print(found, flush=True)
            plot_calibration(found).savefig(HERE / "calibration" / f"{name.replace(':', '-')}.png", dpi=90)
            results[name] = record(model, cell, found, seconds)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            renew(results)


if __name__ == "__main__":
    main(sys.argv[1:])

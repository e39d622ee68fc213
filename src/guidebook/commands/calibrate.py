"""``guidebook calibrate``."""

import sys
from typing import Annotated, Any

import typer

from guidebook.commands.options import (
    Chains,
    Data,
    Device,
    Draws,
    Guide,
    Json,
    Method,
    Model,
    Out,
    Seed,
    Set,
    Steps,
    Warmup,
    Workers,
    check_targets,
    write_json,
)


def calibrate(
    model: Model,
    method: Method = None,
    guide: Guide = None,
    simulations: Annotated[int, typer.Option(min=20, help="Data sets to simulate and to fit.")] = 200,
    ranks: Annotated[int, typer.Option(min=1, help="Draws of a fit that a true value is ranked among.")] = 99,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of each data set.", show_default="as many as the data have")
    ] = None,
    exchangeable: Annotated[
        bool, typer.Option("--exchangeable", help="Of your own model: put components of a mixture in order.")
    ] = False,
    data: Data = None,
    settings: Set = None,
    steps: Steps = None,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    seed: Seed = 0,
    device: Device = None,
    workers: Workers = 1,
    out: Out = None,
    json_file: Json = None,
) -> None:
    """Fit data that the model simulates, many times, and say whether true values rank among draws as they should."""
    from guidebook.workflow.names import check_data, check_settings, find_names, split_method

    names = find_names(model)
    split_method(names, method, guide)
    check_settings(names, settings)
    check_data(model, data)
    check_targets(device, out, json_file)

    from guidebook.plots import plot_calibration
    from guidebook.report import write_calibration
    from guidebook.workflow import calibrate as calibrating
    from guidebook.workflow.files import drafted
    from guidebook.workflow.fit import load_task
    from guidebook.workflow.record import json_sha256, run_record
    from guidebook.workflow.resolve import find_row

    method, guide = split_method(find_row(model, settings), method, guide)
    task = calibrating.with_fixed_prior(load_task(model, data, settings, (method, guide)), rows)
    counts: dict[str, Any] = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
    if not sys.stderr.isatty():
        print(f"fitting {simulations} simulated data sets …", file=sys.stderr, flush=True)
    found = calibrating.calibrate(
        task,
        method,
        guide,
        counts=counts,
        exchangeable=exchangeable,
        num_simulations=simulations,
        num_draws=ranks,
        seed=seed,
        device=device,
        processes=workers,
        progress=sys.stderr.isatty(),
    )
    record = calibrating.calibration_json(task, found, seed)
    if out:
        run = run_record(task, seed, {})
        run["results"] = {"calibration": json_sha256(record)}
        with drafted(out, run) as draft:
            write_json(record, draft / "calibration.json")
            title = f"{found.method}: calibration on the {task.row.title}"
            about = {"facts": calibrating.facts(task, found), "run": run}
            write_calibration(found, draft / "calibration.html", title=title, **about)
            plot_calibration(found).savefig(draft / "calibration.png", dpi=200)
    write_json(record, json_file)
    if str(json_file) != "-":
        print(found)
        if out:
            print(f"\nreport: {out / 'calibration.html'}")

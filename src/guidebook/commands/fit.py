"""``guidebook fit``."""

import sys
from typing import Annotated, Any

import typer

from guidebook.commands.options import (
    Checkpoint,
    Data,
    Device,
    Every,
    Json,
    Model,
    Out,
    Seed,
    Set,
    check_targets,
    write_json,
)


def fit(
    model: Model,
    tolerance: Annotated[
        float, typer.Option(help="How far a mean may be off, in sds of the posterior, and an sd, relatively.")
    ] = 0.1,
    max_seconds: Annotated[
        float | None, typer.Option(help="Begin no other method after this time.", show_default="no limit")
    ] = None,
    data: Data = None,
    settings: Set = None,
    seed: Seed = 0,
    device: Device = None,
    out: Out = None,
    json_file: Json = None,
    checkpoint: Checkpoint = None,
    every: Every = 30.0,
) -> None:
    """Find the cheapest posterior that is good, and say how that is known."""
    given = dict(locals())
    from guidebook.workflow.names import check_data, check_settings, find_names

    check_settings(find_names(model), settings)
    check_data(model, data)
    check_targets(device, out, json_file)
    if checkpoint:
        from guidebook.workflow.resume import note_command

        note_command(checkpoint, "fit", given)

    from guidebook.workflow import output
    from guidebook.workflow.fit import load_task
    from guidebook.workflow.ladder import fit_best
    from guidebook.workflow.resolve import find_row
    from guidebook.workflow.saved import save_fit

    row = find_row(model, settings)
    task = load_task(model, data, settings, row.ladder)
    limits = {"tolerance": tolerance, "max_seconds": max_seconds}
    kept: dict[str, Any] = {"checkpoint": checkpoint, "every": every}
    posterior = fit_best(task, **limits, **kept, seed=seed, device=device, progress=sys.stderr.isatty())
    record = output.fit_json(task, posterior)
    if out:
        save_fit(out, task, posterior, record)
    write_json(record, json_file)
    if str(json_file) != "-":
        output.print_fit(record, task.coords)
        if out:
            print(f"\nreport: {out / 'report.html'}")

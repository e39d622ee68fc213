"""``guidebook compare``."""

import itertools
import json
import sys
from typing import Annotated, Any

import typer

from guidebook.commands.options import (
    Chains,
    Checkpoint,
    Data,
    Device,
    Draws,
    Every,
    Json,
    Model,
    Out,
    Seed,
    Set,
    Steps,
    Warmup,
    check_targets,
    write_json,
)


def compare(
    model: Model,
    methods: Annotated[
        str | None,
        typer.Option(metavar="METHOD,…", help="Such as nuts,svi:mean_field,em.", show_default="the model's"),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The method that the others are judged by.",
            show_default="the model's; nuts, else the first, of --methods",
        ),
    ] = None,
    data: Data = None,
    settings: Set = None,
    steps: Steps = None,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    seed: Seed = 0,
    device: Device = None,
    out: Out = None,
    json_file: Json = None,
    checkpoint: Checkpoint = None,
    every: Every = 30.0,
) -> None:
    """Fit one model by several methods and say which answers are good enough."""
    given = dict(locals())
    from guidebook.workflow.names import check_data, check_settings, find_names, split_methods

    split_methods(find_names(model), methods, reference)
    check_settings(find_names(model), settings)
    check_data(model, data)
    check_targets(device, out, json_file)
    if checkpoint:
        from guidebook.workflow.resume import note_command

        note_command(checkpoint, "compare", given)

    from guidebook.inference import compare as compare_posteriors
    from guidebook.report import marginal_curves, write_html
    from guidebook.workflow import output
    from guidebook.workflow.files import atomic_write, drafted, file_name
    from guidebook.workflow.fit import fit, load_task
    from guidebook.workflow.ladder import judged_alone, with_commands_there_are
    from guidebook.workflow.record import run_record
    from guidebook.workflow.resolve import find_row
    from guidebook.workflow.stored import COMPARISON, MARGINALS

    row = find_row(model, settings)
    names, reference = split_methods(row, methods, reference)
    task = load_task(model, data, settings, itertools.chain(*names.values()))
    counts: dict[str, Any] = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
    posteriors = {}
    for name, (method, guide) in names.items():
        print(f"fitting {model} by {name} …", file=sys.stderr, flush=True)
        kept: dict[str, Any] = {"checkpoint": checkpoint and checkpoint / file_name(name), "every": every}
        shared = counts | kept | {"seed": seed, "device": device, "progress": sys.stderr.isatty()}
        posteriors[name] = fit(task, method, guide, **shared)
    order = [reference, *(name for name in posteriors if name != reference)]
    fits, coords = (posteriors[name] for name in order), task.coords
    comparison = compare_posteriors(*fits, identify=task.identify, names=order, coords=coords)
    comparison = with_commands_there_are(judged_alone(comparison, task, seed), row)
    record = output.comparison_json(task, comparison)
    if out:
        run = run_record(task, seed, {file_name(name): posterior for name, posterior in posteriors.items()})
        with drafted(out, run) as draft:
            for name, posterior in posteriors.items():
                posterior.save(draft / f"{file_name(name)}.safetensors", about=run)
            write_json(record, draft / COMPARISON)
            atomic_write(draft / MARGINALS, json.dumps(marginal_curves(comparison), ensure_ascii=False))
            page: dict[str, Any] = {"columns": task.data.columns or None, "title": f"{row.title} on {task.data.name}"}
            page["run"] = run
            write_html(comparison, draft / "report.html", model=task.model, data=task.args, **page)
    write_json(record, json_file)
    if str(json_file) != "-":
        print(comparison, comparison.headline, sep="\n\n")
        if out:
            print(f"\nreport: {out / 'report.html'}")

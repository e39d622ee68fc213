"""``guidebook choose``."""

import sys
from typing import Annotated

import typer

from guidebook.commands.options import (
    Chains,
    Cluster,
    Data,
    Device,
    Draws,
    Json,
    Model,
    Out,
    Seed,
    Steps,
    Warmup,
    check_targets,
    write_json,
)


def choose(
    model: Model,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=A..B|A,B,…|VALUE",
            help="The option to vary, over whole numbers A to B or a list; and, repeated, options to fix.",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="How each value is fitted: gibbs, nuts, em, …", show_default="the model's")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2, help="Hold out one of so many parts of the rows in turn.", show_default="PSIS-LOO if it can"
        ),
    ] = None,
    data: Data = None,
    steps: Steps = None,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    seed: Seed = 0,
    device: Device = None,
    cluster: Cluster = None,
    out: Out = None,
    json_file: Json = None,
) -> None:
    """Fit one model at several values of one option, and choose by how well it predicts rows it has not seen."""
    from guidebook.workflow.names import check_data, check_settings, find_names, split_method
    from guidebook.workflow.ranges import split_range

    row = find_names(model)
    if method is not None:
        split_method(row, method)
    if row.options:
        check_settings(row, split_range(row, settings or [])[1])
    check_data(model, data)
    check_targets(device, out, json_file)

    from guidebook.plots import plot_choice
    from guidebook.report import write_choice
    from guidebook.workflow import choice_output
    from guidebook.workflow import choose as choosing
    from guidebook.workflow.files import drafted
    from guidebook.workflow.record import json_sha256, run_record

    counts = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
    plan = choosing.plan(
        model,
        settings or [],
        method=method,
        data=data,
        folds=folds,
        seed=seed,
        device=device,
        cluster=cluster,
        **counts,
    )
    if not sys.stderr.isatty():
        print(
            f"fitting {model} at {len(plan.range.values)} values of {plan.range.option} …", file=sys.stderr, flush=True
        )
    choice = choosing.choose(plan, progress=sys.stderr.isatty())
    record = choice_output.choice_json(plan, choice)
    if out:
        run = run_record(plan.task, seed, {})
        run["results"] = {"choice": json_sha256(record["values"])}
        with drafted(out, run) as draft:
            write_json(record, draft / "choice.json")
            title = f"Choosing {choice.option} of the {plan.task.row.title} on {plan.task.data.name}"
            write_choice(choice, draft / "choice.html", title=title, facts=choice_output.facts(plan), run=run)
            plot_choice(choice).savefig(draft / "choice.png", dpi=200)
    write_json(record, json_file)
    if str(json_file) != "-":
        choice_output.print_choice(record)
        if out:
            print(f"\nreport: {out / 'choice.html'}")

"""``guidebook sweep``."""

import sys
from typing import Annotated

import typer

from guidebook.commands.options import (
    Chains,
    Cluster,
    Device,
    Draws,
    Json,
    Out,
    Set,
    Steps,
    Warmup,
    check_targets,
    write_json,
)


def sweep(
    models: Annotated[
        str,
        typer.Argument(
            metavar="MODEL,…", help="Models, separated by commas, also FILE.py:FUNCTION.", show_default=False
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(help="Methods and guides, such as nuts,svi:full_rank,laplace.", show_default="each model's own"),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME|FILE,…", help="Data sets.", show_default="each model's own")
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="A..B|A,B,…", help="Seeds.")] = "0",
    settings: Set = None,
    steps: Steps = None,
    draws: Draws = None,
    warmup: Warmup = None,
    chains: Chains = None,
    device: Device = None,
    judge: Annotated[bool, typer.Option("--judge/--no-judge", help="Say of each fit how good it is.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes to fit in, on this machine.", show_default="one per core")
    ] = None,
    cluster: Cluster = None,
    out: Out = None,
    json_file: Json = None,
) -> None:
    """Fit models by methods to data sets with seeds, every one with every other, into one table and one page."""
    from guidebook.workflow.sweep_cells import sweep_cells

    if cluster and workers:
        raise ValueError("sweep: give --workers, of this machine, or --cluster, which has workers of its own")
    counts = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
    cells, gaps = sweep_cells(models, methods, data, seeds, settings or [], counts=counts, device=device, judged=judge)
    check_targets(device, out, json_file)

    from guidebook.inference.progress import Progress
    from guidebook.workflow.command_line import command_line
    from guidebook.workflow.files import drafted
    from guidebook.workflow.sweep import in_words
    from guidebook.workflow.sweep import sweep as run_sweep
    from guidebook.workflow.sweep_output import as_csv, print_sweep

    if not sys.stderr.isatty():
        print(f"fitting {len(cells)} cells …", file=sys.stderr, flush=True)
    with Progress("sweep", len(cells), sys.stderr.isatty(), is_fixed=True) as bar:
        record = run_sweep(cells, gaps, workers=workers, cluster=cluster, note=bar.update)
    if all(cell["failed"] for cell in record["cells"]):
        raise ArithmeticError(f"sweep: none of {len(cells)} fits succeeded: {in_words(record)[1]}")
    if out:
        from guidebook.report import write_sweep

        with drafted(out) as draft:
            write_json(record, draft / "sweep.json")
            (draft / "sweep.csv").write_text(as_csv(record), encoding="utf-8")
            write_sweep(record, draft / "sweep.html", command=command_line())
    write_json(record, json_file)
    if str(json_file) != "-":
        print_sweep(record)
        if out:
            print(f"\nreport: {out / 'sweep.html'}")

"""The command ``guidebook``: list, run, compare, index. Heavy modules are imported inside the commands."""

import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Probabilistic models in Pyro: fit them by many methods and ask whether the fast answer is good enough.",
)

Model = Annotated[str, typer.Argument(help="A model's name; see `guidebook list`.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="A bundled set, or a .csv, .npy, .npz or .mtx.", show_default="the model's"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="Set an option of the model or the method; repeatable."),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Iterations of optimisers and of EM-like methods.", show_default="the method's"),
]
Draws = Annotated[int | None, typer.Option(min=1, help="Draws per chain, for samplers.", show_default="the method's")]
Warmup = Annotated[int | None, typer.Option(min=1, help="Warm-up iterations per chain.", show_default="the method's")]
Chains = Annotated[int | None, typer.Option(min=1, help="Number of chains, for samplers.", show_default="the method's")]
Seed = Annotated[
    int,
    typer.Option(min=0, max=2**32 - 1, help="Random seed; the same seed on the same machine gives the same numbers."),
]
Device = Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Device to fit on.", show_default="cpu")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to write the results to.", show_default=False)]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE|-", help="File to write JSON to; - for standard output.")
]


@app.command("list")
def list_models(json_file: Json = None) -> None:
    """Show the models with their guides, methods and data, and why cells are empty."""
    from guidebook.catalog.grid import grid_json, print_grid

    if json_file is None:
        print_grid()
    else:
        _write_json(grid_json(), json_file)


@app.command()
def run(
    model: Model,
    method: Annotated[str, typer.Option(help="svi, nuts, em, …, or svi:GUIDE.")] = "svi",
    guide: Annotated[str | None, typer.Option(help="Guide for svi.", show_default="the model's")] = None,
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
) -> None:
    """Fit one model by one method."""
    from guidebook.workflow import output
    from guidebook.workflow.files import drafted
    from guidebook.workflow.fit import fit, load_task
    from guidebook.workflow.resolve import find_row, split_method

    method, guide = split_method(find_row(model), method, guide)
    task = load_task(model, data, settings, (method, guide))
    _check(device, out, json_file)
    counts = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
    posterior = fit(task, method, guide, **counts, seed=seed, device=device, progress=sys.stderr.isatty())
    record = output.run_json(task, posterior)
    if out:
        with drafted(out) as draft:
            posterior.save(draft / "posterior.safetensors")
            _write_json(record, draft / "result.json")
    _write_json(record, json_file)
    if str(json_file) != "-":
        output.print_run(record, task.coords)


@app.command()
def compare(
    model: Model,
    methods: Annotated[
        str | None,
        typer.Option(metavar="METHOD,…", help="Such as nuts,svi:mean_field,em.", show_default="the model's"),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The method that the others are judged by.", show_default="nuts, else the first")
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
) -> None:
    """Fit one model by several methods and say which answers are good enough."""
    from guidebook.inference import compare as compare_posteriors
    from guidebook.report import write_html
    from guidebook.workflow import output
    from guidebook.workflow.files import drafted
    from guidebook.workflow.fit import fit, load_task
    from guidebook.workflow.resolve import find_row, split_methods

    row = find_row(model)
    names, reference = split_methods(row, methods, reference)
    task = load_task(model, data, settings, itertools.chain(*names.values()))
    _check(device, out, json_file)
    counts = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
    posteriors = {}
    for name, (method, guide) in names.items():
        print(f"fitting {model} by {name} …", file=sys.stderr, flush=True)
        posteriors[name] = fit(task, method, guide, **counts, seed=seed, device=device, progress=sys.stderr.isatty())
    order = [reference, *(name for name in posteriors if name != reference)]
    fits, coords = (posteriors[name] for name in order), task.coords
    comparison = compare_posteriors(*fits, identify=task.identify, names=order, coords=coords)
    record = output.comparison_json(task, comparison)
    if out:
        with drafted(out) as draft:
            for name, posterior in posteriors.items():
                posterior.save(draft / f"{name.replace(':', '-')}.safetensors")
            _write_json(record, draft / "comparison.json")
            page = {"columns": task.data.columns, "title": f"{row.title} on {task.data.name}"}
            write_html(comparison, draft / "report.html", model=task.model, data=task.args, **page)
    _write_json(record, json_file)
    if str(json_file) != "-":
        print(comparison)
        if out:
            print(f"\nreport: {out / 'report.html'}")


@app.command("index")
def index_reports(
    folders: Annotated[list[Path], typer.Argument(help="Folders written by `guidebook compare --out`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Page to write.")] = Path("reports/index.html"),
) -> None:
    """Write one page with the verdicts of several comparisons and links to their reports."""
    from guidebook.report import write_index
    from guidebook.workflow.output import read_reports

    write_index(read_reports(folders, out.parent), out)
    print(out)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Print the version if asked to."""
    if show:
        from guidebook import __version__

        print(f"guidebook {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command. User errors exit with status 2, failed fits with status 1; both print one sentence."""
    warnings.showwarning = _show_warning
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", r"[a-z]+: ", UserWarning, r"guidebook\.")  # ours begin with a method's name
    try:
        status = app(standalone_mode=False)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        status = _fail(str(error) if error.strerror is None else where + error.strerror, 2)
    except ValueError as error:
        status = _fail(str(error), 2)
    except ArithmeticError as error:
        status = _fail(str(error), 1)
    except KeyboardInterrupt:
        status = _fail("interrupted", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's usage errors have it; anything else is a defect
            raise
        status = _fail(error.format_message(), 2)  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(status)


def _fail(sentence: str, status: int) -> int:
    print(f"guidebook: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"guidebook: warning: {message}", file=sys.stderr)


def _check(device: str | None, out: Path | None, json_file: Path | None) -> None:
    """Refuse a device or a file that would only fail after a long fit."""
    import torch

    from guidebook.workflow.files import check_writable

    if device not in (None, "cpu"):
        if device.partition(":")[0] != "cuda":
            raise ValueError(f"--device must be cpu or cuda, got {device!r}")
        if not torch.cuda.is_available():
            raise ValueError("--device cuda: torch finds no CUDA device here")
    if out is not None:
        check_writable(out)
    if json_file is not None and str(json_file) != "-":
        if json_file.is_dir():
            raise ValueError(f"--json: {json_file} is a folder")
        if not json_file.parent.is_dir():
            raise ValueError(f"--json: there is no folder {json_file.parent}")
        check_writable(json_file.parent)


def _write_json(record: Any, file: Path | None) -> None:
    from guidebook.workflow.files import atomic_write

    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    if str(file) == "-":
        print(text)
    elif file is not None:
        atomic_write(file, text + "\n")

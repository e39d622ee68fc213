"""The command ``guidebook``: list, run, compare. Nothing heavy is imported before a command needs it."""

import itertools
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Probabilistic models in Pyro: fit them in every way, and ask whether the fast answer is good enough.",
)

Model = Annotated[str, typer.Argument(help="A model's name; see `guidebook list`.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="A bundled data set, or a .csv, .npy or .npz file.", show_default="its own"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="An option of the model or the method; repeat for more."),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Iterations of optimisers and of EM.", show_default="the method's")
]
Draws = Annotated[int | None, typer.Option(min=1, help="Draws a chain, for samplers.", show_default="the method's")]
Warmup = Annotated[int | None, typer.Option(min=1, help="Adaptation steps a chain.", show_default="the method's")]
Chains = Annotated[int | None, typer.Option(min=1, help="Chains, for samplers.", show_default="the method's")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, same machine, same numbers.")]
Device = Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Where to fit.", show_default="cpu")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the results.", show_default=False)]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE|-", help="Write JSON; - for standard output.")]


@app.command("list")
def list_models(json_file: Json = None) -> None:
    """Show the models, with their guides, methods and data; empty cells say why."""
    from guidebook.catalog.grid import grid_json, print_grid

    if json_file is None:
        print_grid()
    else:
        _write_json(grid_json(), json_file)


@app.command()
def run(
    model: Model,
    method: Annotated[str, typer.Option(help="svi, nuts, em, …, or svi:GUIDE.")] = "svi",
    guide: Annotated[str | None, typer.Option(help="Guide of svi.", show_default="mean_field")] = None,
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
    from guidebook.workflow import output as results
    from guidebook.workflow import resolve as cells
    from guidebook.workflow.fit import fit, problem

    row = cells.row(model)
    method, guide = cells.split_method(row, method, guide)
    task = problem(model, data, settings, (method, guide))
    _check_device(device)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(out))
        _check_writable(json_file)
        options: dict[str, Any] = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
        posterior = fit(task, method, guide, **options, seed=seed, device=device, progress=sys.stderr.isatty())
        record = results.run_json(task, posterior)
        if folder:
            posterior.save(folder / "posterior.safetensors")
            _write_json(record, folder / "result.json")
        if json_file:
            _write_json(record, json_file)
        if str(json_file) != "-":
            results.print_run(record)


@app.command()
def compare(
    model: Model,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD,…", help="What to fit, such as nuts,svi:mean_field,em.", show_default="the model's"
        ),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Which of them judges the others.", show_default="nuts")] = None,
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
    from guidebook.workflow import output as results
    from guidebook.workflow import resolve as cells
    from guidebook.workflow.fit import fit, problem

    row = cells.row(model)
    names, reference = cells.split_methods(row, methods, reference)
    task = problem(model, data, settings, itertools.chain(*names.values()))
    _check_device(device)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(out))
        _check_writable(json_file)
        posteriors = {}
        for name, (method, guide) in names.items():
            options: dict[str, Any] = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
            print(f"fitting {model} by {name} …", file=sys.stderr, flush=True)
            posteriors[name] = fit(
                task, method, guide, **options, seed=seed, device=device, progress=sys.stderr.isatty()
            )
        order = [reference, *(name for name in posteriors if name != reference)]
        comparison = compare_posteriors(*(posteriors[n] for n in order), identify=task.identify, names=order)
        record = results.comparison_json(task, comparison)
        if folder:
            for name, posterior in posteriors.items():
                posterior.save(folder / f"{name.replace(':', '-')}.safetensors")
            _write_json(record, folder / "comparison.json")
            title = f"{row.title} on {task.data.name}"
            write_html(
                comparison,
                folder / "report.html",
                model=task.model,
                data=task.args,
                columns=task.data.columns,
                title=title,
            )
        if json_file:
            _write_json(record, json_file)
        if str(json_file) != "-":
            print(comparison)
            if out:
                print(f"\nreport: {out / 'report.html'}")


@app.command("index")
def index_reports(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `guidebook compare --out` wrote.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("reports/index.html"),
) -> None:
    """Write one page that gathers the verdicts of several comparisons and links to their reports."""
    from guidebook.report import write_index
    from guidebook.workflow.output import read_reports

    write_index(read_reports(folders, out.parent), out)
    print(out)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Print the version where asked to."""
    if show:
        from guidebook import __version__

        print(f"guidebook {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; a user's mistake ends in one sentence and exit status 2, a failed fit in one and status 1."""
    warnings.showwarning = _show_warning
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("always", r"(svi|nuts|hmc|metropolis|em|cavi|gibbs|mcem): ")  # ours; they tell what to do
    try:
        status = app(standalone_mode=False)
    except (ValueError, OSError) as error:
        status = _fail(str(error) if not isinstance(error, OSError) else _os_sentence(error), 2)
    except ArithmeticError as error:
        status = _fail(str(error), 1)
    except KeyboardInterrupt:
        status = _fail("interrupted", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own usage errors have it; anything else is a defect
            raise
        status = _fail(error.format_message(), 2)  # pyright: ignore[reportAttributeAccessIssue]
    sys.exit(status)


def _fail(sentence: str, status: int) -> int:
    print(f"guidebook: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _os_sentence(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"guidebook: warning: {message}", file=sys.stderr)


def _check_device(device: str | None) -> None:
    import torch

    if device is None or device == "cpu":
        return
    if device.partition(":")[0] != "cuda":
        raise ValueError(f"--device must be cpu or cuda, got {device!r}")
    if not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here")


@contextmanager
def _folder(path: Path | None) -> Iterator[Path | None]:
    """A temporary folder whose files move to ``path`` if all goes well; a path that cannot be written fails at once."""
    if path is None:
        yield None
        return
    created = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=path, prefix=".guidebook-") as draft:
            yield Path(draft)
            for file in Path(draft).iterdir():
                file.replace(path / file.name)
    except BaseException:
        for folder in created:
            folder.rmdir()
        raise


def _check_writable(file: Path | None) -> None:
    """Fail before a long fit, not after it, where its JSON cannot be written."""
    if file is None or str(file) == "-":
        return
    if file.is_dir():
        raise ValueError(f"--json: {file} is a folder")
    if not file.parent.is_dir():
        raise ValueError(f"--json: there is no folder {file.parent}")
    with tempfile.TemporaryFile(dir=file.parent):
        pass


def _write_json(record: Any, file: Path) -> None:
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    if str(file) == "-":
        print(text)
        return
    _check_writable(file)
    draft = file.with_name(f".{file.name}.draft")
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(file)

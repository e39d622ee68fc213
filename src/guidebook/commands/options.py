"""Arguments and options that commands share, what is refused before a fit begins, and where JSON goes."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="A model's name, see `guidebook list`; or FILE.py:FUNCTION, a Pyro model of your own.", show_default=False
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="svi, nuts, em, …, svi:GUIDE, or svi:FILE.py:GUIDE.", show_default="svi; of your own model, what fit finds"
    ),
]
Guide = Annotated[str | None, typer.Option(help="Guide for svi.", show_default="the model's")]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="A bundled set, or a .csv, .npy, .npz or .mtx, or for run a .parquet; of your own model, a .csv, .npz or "
        ".json by argument name.",
        show_default="the model's",
    ),
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
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder to keep where the fit stands; `resume DIR` goes on from there.", show_default=False
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="ROWS",
        help="Rows per step; a .npy or a sparse .npz is then read in blocks, as Parquet and Arrow files always are.",
        show_default="all, or 128",
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Processes to fit in, on this machine.")]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Address of a dask scheduler whose workers fit.", show_default=False),
]
Every = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Time between two states in --checkpoint.")]


def check_targets(device: str | None, out: Path | None, json_file: Path | None, *, several: bool = False) -> None:
    """Refuse a device or a file that would only fail after a long fit, and keep other runs from the same folder.

    Unless ``several``, refuse processes of torchrun too, which would all do the same.
    """
    from guidebook.workflow.drafts import claim
    from guidebook.workflow.files import check_writable, is_stream
    from guidebook.workflow.ranks import check_alone

    if not several:
        check_alone("this command")
    if device not in (None, "cpu"):
        if device.partition(":")[0] != "cuda":
            raise ValueError(f"--device must be cpu or cuda, got {device!r}")
        import torch  # slow to import

        if not torch.cuda.is_available():
            raise ValueError("--device cuda: torch finds no CUDA device here")
    if json_file is not None and str(json_file) != "-" and not is_stream(json_file):
        if json_file.is_dir():
            raise ValueError(f"--json: {json_file} is a folder")
        folder = Path(os.path.realpath(json_file)).parent
        if not folder.is_dir():
            raise ValueError(f"--json: there is no folder {folder}")
        check_writable(folder)
    if out is not None:
        claim(out)


def write_json(record: Any, file: Path | None) -> None:
    """Write a record to a file, or to standard output for "-"; nowhere for None."""
    from guidebook.workflow.files import as_json, atomic_write

    if str(file) == "-":
        print(as_json(record), end="")
    elif file is not None:
        atomic_write(file, as_json(record))

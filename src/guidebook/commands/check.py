"""``guidebook check``."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from guidebook.commands.options import (
    Data,
    Device,
    Guide,
    Json,
    Method,
    Out,
    Seed,
    Set,
    check_targets,
    write_json,
)


def check(
    fitted: Annotated[
        str,
        typer.Argument(metavar="DIR|MODEL", help="A folder that `guidebook run --out` wrote, or a model to fit first."),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="The model of a saved fit.", show_default="the one fitted"),
    ] = None,
    method: Method = None,
    guide: Guide = None,
    data: Data = None,
    settings: Set = None,
    seed: Seed = 0,
    device: Device = None,
    out: Out = None,
    json_file: Json = None,
) -> None:
    """Judge a fast posterior without a reference, by short chains from its own draws."""
    from guidebook.workflow.fitted import read_record
    from guidebook.workflow.names import MODELS, check_data, check_settings, find_names, split_method

    is_folder = fitted not in MODELS and Path(fitted).is_dir()
    if is_folder:
        read_record(Path(fitted))
    else:
        if model is not None:
            raise ValueError(f"--model names the model of a saved fit, and {fitted} is no folder with one")
        split_method(find_names(fitted), method, guide)
        check_settings(find_names(fitted), settings)
        check_data(fitted, data)
    check_targets(device, out, json_file)

    from guidebook.workflow import output
    from guidebook.workflow.files import drafted
    from guidebook.workflow.fit import fit, load_task
    from guidebook.workflow.ladder import judge, names_of_quantities
    from guidebook.workflow.resolve import find_row
    from guidebook.workflow.saved import load_fit

    if is_folder:
        task, posterior = load_fit(Path(fitted), model)
    else:
        method, guide = split_method(find_row(fitted, settings), method, guide)
        task = load_task(fitted, data, settings, (method, guide))
        posterior = fit(task, method, guide, seed=seed, device=device, progress=sys.stderr.isatty())
    found = judge(task, posterior, seed)
    record = output.check_json(task, posterior, found)
    if out:
        with drafted(out) as draft:
            write_json(record, draft / "check.json")
            if found.improved is not None:
                found.improved.save(draft / "improved.safetensors")
    write_json(record, json_file)
    if str(json_file) != "-":
        print(replace(found, table=found.table.rename(names_of_quantities(task, posterior))))

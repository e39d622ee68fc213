"""``guidebook run``."""

import sys
from typing import Any

from guidebook.commands.fit import fit as fit_command
from guidebook.commands.options import (
    BatchSize,
    Chains,
    Checkpoint,
    Data,
    Device,
    Draws,
    Every,
    Guide,
    Json,
    Method,
    Model,
    Out,
    Seed,
    Set,
    Steps,
    Warmup,
    check_targets,
    write_json,
)


def run(
    model: Model,
    method: Method = None,
    guide: Guide = None,
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
    batch_size: BatchSize = None,
) -> None:
    """Fit one model by one method, and say how good the answer is; your own model by what `fit` finds, by default."""
    given = dict(locals())
    from guidebook.workflow.names import check_data, check_settings, find_names, split_method
    from guidebook.workflow.ranks import check_alone, is_first, is_one_of_several, process_group

    if batch_size is not None:
        settings = [*(settings or []), f"batch_size={batch_size}"]
    if not is_first():
        out = json_file = None
    row = find_names(model)
    by = split_method(row, method, guide)[0]
    if by != "svi":
        check_alone(by)
    check_settings(row, settings)
    check_data(model, data)
    check_targets(device, out, json_file, several=True)
    if row.own and method is None and guide is None:
        shared: dict[str, Any] = {"data": data, "settings": settings, "seed": seed, "device": device}
        fit_command(model, **shared, out=out, json_file=json_file, checkpoint=checkpoint, every=every)
        return
    if checkpoint and is_first():
        from guidebook.workflow.resume import note_command

        note_command(checkpoint, "run", given)

    from guidebook.workflow import output
    from guidebook.workflow.blocks import in_blocks, load_in_blocks
    from guidebook.workflow.fit import fit, load_task
    from guidebook.workflow.ladder import judge_alone
    from guidebook.workflow.resolve import find_row
    from guidebook.workflow.saved import save_fit, save_in_blocks

    method, guide = split_method(find_row(model, settings), method, guide)
    blocks = in_blocks(data, asked=batch_size is not None, several=is_one_of_several())
    task = (
        load_in_blocks(model, data, settings) if blocks and data else load_task(model, data, settings, (method, guide))
    )
    counts: dict[str, Any] = {"steps": steps, "draws": draws, "warmup": warmup, "chains": chains}
    how: dict[str, Any] = {"seed": seed, "device": device, "checkpoint": checkpoint, "every": every}
    with process_group(device):
        posterior = fit(task, method, guide, **counts, **how, progress=sys.stderr.isatty())
    if not is_first():
        return
    record = output.run_json(task, posterior, None if blocks else judge_alone(task, posterior, seed))
    if out:
        (save_in_blocks if blocks else save_fit)(out, task, posterior, record)
    write_json(record, json_file)
    if str(json_file) != "-":
        output.print_run(record, task.coords)
        if out:
            print(f"\nreport: {out / 'report.html'}")

"""``python -m benchmarks [--quick] [--only AREA …] [--out FILE.md]``."""

import argparse
import importlib
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when libraries are imported

AREAS = ("nuts", "tutorials", "svi", "vae", "em", "restarts", "lda", "minibatch", "ranks")
ON_DEVICE = ("svi", "vae", "em")


def main() -> int:
    """Measure, print and write; exit status 1 where an area could not be measured to its end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Guidebook beside its peers, in one run.")
    parser.add_argument("--quick", action="store_true", help="fewer models, sizes and runs: under five minutes")
    parser.add_argument("--only", nargs="+", choices=AREAS, default=AREAS, metavar="AREA", help=", ".join(AREAS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results.md"), help="Markdown file to write")
    given = parser.parse_args()

    import torch

    from . import table

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    warnings.simplefilter("ignore")
    print(table.machine(), flush=True)
    records, notes, failed = [], [], False
    devices = [("cpu", area) for area in given.only]
    if torch.cuda.is_available():
        devices += [("cuda", area) for area in given.only if area in ON_DEVICE]
    elif set(ON_DEVICE) & set(given.only):
        notes.append("There was no CUDA device: its rows were skipped.")
    for device, area in devices:
        begin, found = time.perf_counter(), []
        try:
            measured = importlib.import_module(f"benchmarks.{area}").rows
            for record in measured(given.quick, device) if device != "cpu" else measured(given.quick):
                found.append(record)
                print(" | ".join(table.cells(record)), flush=True)
        except Exception as error:  # the other areas are worth their table
            failed = True
            notes.append(f"{area} ({device}) stopped short: {type(error).__name__}: {str(error).splitlines()[0][:300]}")
            print(notes[-1], file=sys.stderr)
        records += found
        table.show(found, f"{area}, {device}, {time.perf_counter() - begin:.0f} s")
    for note in notes:
        print(note)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(table.markdown(records, notes, quick=given.quick))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

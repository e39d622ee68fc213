"""What a run was: its command, versions, seed, options, and a checksum of the data, from which it can be repeated."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from guidebook.inference import Posterior
from guidebook.inference.digests import data_sha256
from guidebook.inference.versions import versions
from guidebook.workflow.fit import Task
from guidebook.workflow.manifest import without_targets
from guidebook.workflow.own.file import functions_in
from guidebook.workflow.threads import num_threads

BLOCK = 4096  # rows whose checksum is taken together


def run_record(task: Task, seed: int, results: Mapping[str, Posterior]) -> dict[str, Any]:
    """Return what repeating the run of this process takes, and what tells whether it came out the same."""
    words = without_targets(sys.argv[1:])
    return {
        "command": words,
        "directory": os.getcwd(),
        "model": task.row.name,
        "options": {name: value for name, value in task.options.items() if value is not None},
        "seed": seed,
        "data": {"name": task.data.name, "sha256": _data_sha256(task)},
        "code": [{"path": str(function.path), "sha256": function.sha256} for function in functions_in(words)],
        "versions": versions(),
        "threads": num_threads(task.args),
        "results": {name: draws_sha256(posterior) for name, posterior in results.items()},
    }


def _data_sha256(task: Task) -> str:
    """Return the SHA-256 of the data as they are fitted; of rows that are read in blocks, that of the blocks' own."""
    if task.stream is None:
        return data_sha256(task.args)
    return data_sha256(data_sha256(block) for block in task.stream.blocks(BLOCK))


def draws_sha256(posterior: Posterior) -> str:
    """Return the SHA-256 of the draws and the parameters of a posterior, by name."""
    groups = (posterior.draws, posterior.params)
    return data_sha256(part for group in groups for pair in sorted(group.items()) for part in pair)


def json_sha256(value: Any) -> str:
    """Return the SHA-256 of what a command has found, as JSON, but for the seconds that it took."""
    return hashlib.sha256(json.dumps(_without_seconds(value)).encode()).hexdigest()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_seconds(each) for name, each in value.items() if name != "seconds"}
    return [_without_seconds(each) for each in value] if isinstance(value, list) else value

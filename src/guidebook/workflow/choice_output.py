"""A choice as JSON and as a table for a person."""

import math
from typing import Any

from guidebook.inference import Choice
from guidebook.inference.choice import RULE
from guidebook.workflow import output
from guidebook.workflow.choose import Plan

LEAST_WIDTH = 92  # characters: a table with all criteria


def choice_json(made: Plan, choice: Choice) -> dict[str, Any]:
    """Return what ``guidebook choose --json`` prints; criteria in nats, higher is better but for the perplexity."""
    rows = []
    for value, row in zip(choice.table.index, choice.table.to_dict("records"), strict=True):
        figures = {
            str(name): None if math.isnan(figure) else output.plain(float(figure)) for name, figure in row.items()
        }
        rows.append({"value": value, **figures})
    return {
        "model": made.task.row.name,
        "data": made.task.data.name,
        "standardized": made.task.data.standardized,
        "method": f"{made.method}:{made.guide}" if made.guide else made.method,
        "seed": made.seed,
        "rows": len(made.task.data.x),
        "option": choice.option,
        "criterion": made.how,
        "chosen": choice.chosen,
        "best": choice.best,
        "sentence": choice.sentence,
        "notes": list(choice.notes),
        "rule": RULE,
        "values": rows,
    }


def facts(made: Plan) -> list[tuple[str, str]]:
    """Return terms and words for the head of a page."""
    return [
        *output.facts(made.task, varied=made.range.option),
        ("Fitted by", f"{made.method}:{made.guide}" if made.guide else made.method),
        ("Judged by", made.how),
    ]


def print_choice(record: dict[str, Any]) -> None:
    """Print what `choice_json` returned: the sentences and a table."""
    from rich.console import Console
    from rich.table import Table

    title = f"{record['model']} on {record['data']} by {record['method']}: {record['criterion']}, nats"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(str(record["option"]))
    names = [
        name
        for name in record["values"][0]
        if name != "value" and any(row[name] is not None for row in record["values"])
    ]
    shown = [name for name in names if not name.endswith("error")]
    for name in shown:
        table.add_column(str(_HEADS.get(name, name)), justify="right")
    for row in record["values"]:
        mark = " ◂" if row["value"] == record["chosen"] else ""
        table.add_row(f"{row['value']}{mark}", *(_cell(name, row) for name in shown))
    console = Console(markup=False)
    console.width = max(console.width, LEAST_WIDTH)
    console.print(table)
    print("\n".join([record["sentence"], *record["notes"], record["rule"]]))


_HEADS = {
    "num_parameters": "p_loo",
    "num_unreliable": "k̂ high",
    "bic": "BIC",
    "icl": "ICL",
    "laplace_evidence": "evidence",
}


def _cell(name: str, row: dict[str, Any]) -> str:
    value, error = row[name], row.get("error" if name == "elpd" else f"{name}_error")
    if value is None:
        return "–"
    text = f"{value:,.{0 if name == 'num_unreliable' else 1}f}" + (f" ± {error:,.1f}" if error else "")
    return text.replace("-", "−")

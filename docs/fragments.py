"""What pages on models and methods draw from the catalogue and the docstrings, as fragments of Markdown."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from guidebook import models
from guidebook.catalog import ALIASES, FAMILIES, METHODS, ROWS, Row
from guidebook.inference.words import nats, number
from guidebook.plots import model_graph, plot_graph, to_svg
from guidebook.workflow.fit import load_task
from guidebook.workflow.options import Option
from guidebook.workflow.resolve import methods_of, split_method
from guidebook.workflow.stored import CHOICE, COMPARISON

HERE = Path(__file__).parent
STORED = HERE / "compared"
_VALUES = {int: "whole number", float: "number", bool: "`true` `false`", str: "text"}


def of_model(row: Row) -> dict[str, str]:
    """Return the fragments of a model's page by name."""
    story, symbols, papers = docstring_parts(inspect.getdoc(getattr(models, row.name)) or "")
    return {
        "story": story,
        "symbols": symbols,
        "papers": papers,
        "graph": graph(row),
        "source": f"```python\n{source_of(row.model)}\n```",
        "options": options_table(row.options),
        "methods": methods_table(row),
        "reached": reached_table(row.name),
    }


def of_method(name: str) -> dict[str, str]:
    """Return the fragments of a method's page by name."""
    having = [row.name for row in ROWS.values() if name not in row.unavailable]
    lacking = {row.name: row.unavailable[name] for row in ROWS.values() if name in row.unavailable}
    words = f"Of the collection's models, {links(having, 'models')} {'has' if len(having) == 1 else 'have'} it."
    if lacking:
        reasons = [f"- {link(model, 'models')}: {found.reason}." for model, found in lacking.items()]
        words += " The others do not:\n\n" + "\n".join(reasons)
    found = {"models": words}
    return found if name in ALIASES else found | {"options": options_table(METHODS[name].options)}


def link(name: str, folder: str) -> str:
    """Return a link to a model's or a method's page from one beside it."""
    return f"[`{name}`](../{folder}/{name}.md)"


def links(names: list[str], folder: str) -> str:
    """Return links, listed."""
    return ", ".join(link(name, folder) for name in names)


def docstring_parts(text: str) -> tuple[str, str, str]:
    """Return a model's generative story, with its words, its table of symbols and its papers, as Markdown."""
    paragraphs = re.split(r"\n\n+", text)
    table = next(place for place, part in enumerate(paragraphs) if part.startswith("=="))
    first = next(place for place, part in enumerate(paragraphs) if part.startswith("    "))
    story = "\n\n".join(_markdown(part) for part in paragraphs[first:table])
    return story, _markdown_table(paragraphs[table]), text.partition("References\n----------\n")[2].strip()


def _markdown(paragraph: str) -> str:
    is_story = paragraph.startswith("    ")
    return f"```text\n{textwrap.dedent(paragraph)}\n```" if is_story else paragraph.replace("``", "`")


def _markdown_table(table: str) -> str:
    rule, head, _, *rows, _ = table.splitlines()
    starts = [found.start() for found in re.finditer("=+", rule)]
    ends = [*starts[1:], None]
    cells = [
        [line[a:b].strip().replace("``", "`") for a, b in zip(starts, ends, strict=True)] for line in (head, *rows)
    ]
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in cells]
    return "\n".join([lines[0], "|---" * len(starts) + "|", *lines[1:]])


def source_of(function: Callable[..., Any]) -> str:
    """Return a function's source without its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    (found,) = ast.parse(source).body
    assert isinstance(found, ast.FunctionDef)
    text = found.body[0]
    lines = source.splitlines()
    return "\n".join(lines[: text.lineno - 1] + lines[text.end_lineno :])


def graph(row: Row) -> str:
    """Return the graph of a model's function on its own data, as SVG for a page."""
    small = row.data.small.cells[0] if row.data.small else row.default_methods[0]
    task = load_task(row.name, None, [], split_method(row, small))
    figure = plot_graph(model_graph(task.model, task.args))
    return f'<div class="drawn">{to_svg(figure, f"Graph of {row.title}", row.name)}</div>'


def options_table(options: dict[str, Option]) -> str:
    """Return a table of options of the command, for ``--set``."""
    if not options:
        return "It has no options for `--set`."
    lines = ["| `--set` | values | default | |", "|---|---|---|---|"]
    for name, option in options.items():
        values = " ".join(f"`{choice}`" for choice in option.choices) or _VALUES[option.kind]
        default = "its own" if option.default is None else f"`{str(option.default).lower()}`"
        lines.append(f"| `{name}` | {values} | {default} | {option.help} |")
    return "\n".join(lines)


def methods_table(row: Row) -> str:
    """Return what fits a model: methods, guides, and the reasons for what does not."""
    own = [name for name in row.guides if name not in FAMILIES]
    lines = [f"- Methods: {links(methods_of(row), 'methods')}."]
    families = [f"`{name}`" for name in row.guides if name in FAMILIES]
    if families:
        lines.append(f"- Guide families: {', '.join(families)}.")
    if own:
        lines.append("- Its own guides:")
        lines += [f"  - {_guide_link(row, name)}: {_summary(row.guides[name].function)}" for name in own]
    if row.unavailable:
        lines += ["", "| it lacks | because | nearest |", "|---|---|---|"]
        lines += [f"| `{cell}` | {found.reason} | `{found.nearest}` |" for cell, found in row.unavailable.items()]
    return "\n".join(lines)


def _guide_link(row: Row, name: str) -> str:
    function = row.guides[name].function
    function = function.func if isinstance(function, partial) else function
    package = ".".join(function.__module__.split(".")[:3])  # under which the reference has it
    return f"{{py:func}}`{name} <{package}.{function.__name__}>`"


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")


def course(folder: Path) -> str:
    """Return the notebooks of a folder as a list: title and question, with which each of them begins."""
    lines = []
    for file in sorted(folder.glob("*.ipynb")):
        words = "".join(json.loads(file.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, question, *_ = words.split("\n\n")
        number = int(file.name.partition("_")[0])
        lines += [f"{number}. [{title.removeprefix('# ')}](tutorials/{file.name})\\", f"   {question.strip('*')}"]
    return "\n".join(lines)


def reached_table(name: str) -> str:
    """Return what the methods of a model have reached, and how well it predicts rows held out, if that is stored."""
    parts = [
        table(json.loads(file.read_text(encoding="utf-8")))
        for file, table in (
            (STORED / name / COMPARISON, compared_table),
            (STORED / name / CHOICE, held_out_table),
        )
        if file.exists()
    ]
    return "\n\n".join(parts) or "No comparison of its methods is stored."


def compared_table(record: dict[str, Any]) -> str:
    """Return a comparison's verdicts and figures."""
    lines = [
        "| method | verdict | seconds | ELBO, nats | mean shift, sd | sd ratio | at |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for method in record["methods"]:
        judged = method["judgement"] not in ("reference", "refused", "not judged")
        worst = method["worst"] if judged else {}
        figures = [number(worst.get(figure)) for figure in ("mean_shift_in_sd", "sd_ratio")]
        label = f"`{worst['label']}`" if worst else "–"
        cells = [f"[`{method['name']}`](../methods/{method['name'].partition(':')[0]}.md)", method["judgement"]]
        cells += [number(method["seconds"]), nats(method["elbo"]), *figures, label]
        lines.append(f"| {' | '.join(cells)} |")
    words = f"On `{record['data']}`: {record['headline']} {record['note']}"
    return "\n".join([words, "", *lines, "", "The [explorer](../explore.md) shows these posteriors."])


def held_out_table(record: dict[str, Any]) -> str:
    """Return how well each value of an option predicts rows held out."""
    lines = [
        f"| `{record['option']}` | nats per row held out | behind the best, nats per row | seconds |",
        "|---|--:|--:|--:|",
    ]
    rows = record["rows"]
    for value in record["values"]:
        behind = "–" if value["value"] == record["best"] else _with_error(value, "difference", "difference_error", rows)
        cells = [f"`{value['value']}`", _with_error(value, "elpd", "error", rows), behind, number(value["seconds"])]
        lines.append(f"| {' | '.join(cells)} |")
    words = f"On `{record['data']}`, fitted by `{record['method']}`, {record['criterion']}: {record['sentence']}"
    return "\n".join([f"{words} {record['note']}", "", *lines])


def _with_error(value: dict[str, Any], figure: str, error: str, rows: int) -> str:
    return f"{value[figure] / rows:.2f} ± {value[error] / rows:.2f}".replace("-", "−")

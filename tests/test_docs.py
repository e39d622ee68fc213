"""The site's pages: one per model and per method, links that lead somewhere, and no name that does not exist."""

import ast
import json
import re
import sys
from itertools import chain
from pathlib import Path
from pkgutil import resolve_name

import pytest
import typer

from guidebook.catalog import ALIASES, METHODS, ROWS
from guidebook.cli import app
from guidebook.workflow.names import check_settings, find_names, split_method, split_methods
from guidebook.workflow.stored import read_stored

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))

import fragments  # noqa: E402
import links  # noqa: E402
import mathml  # noqa: E402

VERDICTS = ("fit", "check", "compare", "choose", "calibrate", "evidence")
PAGES = sorted(file for file in DOCS.rglob("*.md") if not {"build", "generated", "tutorials"} & {*file.parts})
NAMES = [str(file.relative_to(DOCS)) for file in PAGES]


def test_each_model_and_each_method_has_its_page_and_nothing_else_has() -> None:
    def pages(folder: str) -> set[str]:
        return {file.stem for file in (DOCS / folder).glob("*.md")} - {"index"}

    assert pages("models") == {*ROWS}
    assert pages("methods") == {*METHODS, *ALIASES, *VERDICTS}


def test_each_page_can_be_reached_from_the_start_page() -> None:
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            for line in filter(None, re.sub(r"^:.*$", "", tree, flags=re.MULTILINE).split("\n")):
                if not line.startswith("tutorials/"):
                    found = {*page.parent.glob(f"{line}.md")}
                    assert found, f"{page.name}: {line}"
                    waiting += found - reached
    assert reached == {*PAGES}


@pytest.mark.parametrize("page", sorted((DOCS / "api").glob("*.md")), ids=lambda page: page.stem)
def test_each_module_of_the_reference_has_its_heading_so_that_the_side_bar_leads_to_it(page: Path) -> None:
    text = page.read_text()
    headed = re.findall(r"^##+ [^\n]+\n\n```\{eval-rst\}\n\.\. automodule::", text, re.MULTILINE)
    assert len(headed) == text.count("automodule::") > 0


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_names_nothing_that_does_not_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"\{py:\w+\}`~?(?:[^`<]*<)?(guidebook[\w.]*)", text):
        assert resolve_name(name)
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)(?:#[\w-]+)?\)", text):
        notebooks = "tutorials/" in target  # which are copied there when the site is built
        assert (ROOT / "tutorials" / Path(target).name if notebooks else page.parent / target).exists(), target
    for file, name in re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", text):
        assert re.search(rf"^def {name}\b", (ROOT / file).read_text(), re.MULTILINE), name
    for fragment in re.findall(r"\{include\} \S*generated/(\S+)", text):
        assert re.fullmatch(r"(models|methods)/(\w+)/(\w+)\.md|(contributing|course)\.md", fragment), fragment
        assert page.stem in (*fragment.removesuffix(".md").split("/"), "extend"), fragment
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guidebook"):
                assert all(resolve_name(f"{node.module}:{alias.name}") for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_on_a_page_are_commands(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    for shell in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
        for line in re.findall(r"^(?:\.venv/bin/)?guidebook (.*?)(?:\s+#.*)?$", shell, re.MULTILINE):
            name, *words = line.split()
            assert name in commands, line
            known = {option for parameter in commands[name].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line
            model = words[0] if words else ""
            if model in ROWS:
                given = [words[i + 1] for i, word in enumerate(words) if word == "--set" and name != "choose"]
                check_settings(find_names(model), given)
                for place in (i for i, word in enumerate(words) if word in ("--method", "--methods")):
                    for method in words[place + 1].split(","):
                        split_method(find_names(model), method)


@pytest.mark.parametrize("name", ROWS)
def test_a_models_docstring_gives_its_page_story_symbols_and_papers(name: str) -> None:
    found = fragments.of_model(ROWS[name])
    assert "~" in found["story"]
    assert found["symbols"].count("\n") >= 3
    assert re.match(r"1\. \w+", found["papers"])
    assert "pyro." in found["source"] or "dist." in found["source"]
    assert '"""' not in found["source"]
    assert "<svg" in found["graph"]
    for method in METHODS:
        assert (f"[`{method}`](../methods/{method}.md)" in found["methods"]) == (method not in ROWS[name].unavailable)


def test_what_models_reach_is_that_of_methods_they_have() -> None:
    stored = read_stored([DOCS / "compared"])
    assert {record["model"] for record in chain(*stored)} <= {*ROWS}
    for record in stored.comparisons:
        names = [method["name"] for method in record["methods"]]
        split_methods(find_names(record["model"]), ",".join(names), record["reference"])
        assert all("marginals" in record for record in stored.comparisons)
        table = fragments.reached_table(record["model"])
        assert all(f"[`{name}`]" in table for name in names)


def test_what_models_predict_is_stored_for_options_they_have_and_told_per_row() -> None:
    records = [json.loads(file.read_text()) for file in (DOCS / "compared").glob("*/choice.json")]
    assert len(records) >= 2
    for record in records:
        assert record["option"] in ROWS[record["model"]].options
        split_method(find_names(record["model"]), record["method"])
        table = fragments.reached_table(record["model"])
        assert table.count("nats per row held out") == 1
        for value in record["values"]:
            (line,) = (line for line in table.splitlines() if line.startswith(f"| `{value['value']}` |"))
            assert f"| −{abs(value['elpd']) / record['rows']:.2f} ± " in line
            assert (line.count("±") == 1) == (value["value"] == record["best"])


def test_the_course_lists_each_notebook_with_its_question() -> None:
    notebooks = sorted((ROOT / "tutorials").glob("*.ipynb"))
    lines = fragments.course(ROOT / "tutorials").splitlines()
    assert len(lines) == 2 * len(notebooks)
    for number, notebook in enumerate(notebooks, 1):
        title, question = lines[2 * number - 2 : 2 * number]
        assert re.fullmatch(rf"{number}\. \[\w[^\]*#]+\]\(tutorials/{notebook.name}\)\\", title)
        assert re.fullmatch(r"   \w[^*]+[.?]", question)


def test_formulas_of_pages_and_notebooks_can_be_shown() -> None:
    texts = [re.sub(r"```(?!\{math).*?```", "", page.read_text(), flags=re.DOTALL) for page in PAGES]
    for notebook in (ROOT / "tutorials").glob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    count = 0
    for text in texts:
        for block in re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL):
            count += mathml.as_mathml(block, True).count("<math")
        for inline in re.findall(
            r"(?<![\\$\w])\$([^$\n]+?)\$(?!\d)", re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL)
        ):
            count += mathml.as_mathml(inline, False).count("<math")
    assert count > 500


def test_formulas_are_set_as_tex_sets_them() -> None:
    def tags(tex: str) -> str:
        return " ".join(re.findall(r"<(\w+)", mathml.as_mathml(tex, False)))

    assert tags(r"\tilde x_n") == "math msub mover mi mo mi"  # not n right below x
    assert tags(r"2 \log p") == "math mn mspace mi mspace mi"
    assert tags(r"\log (x)") == "math mi mo mo mi mo"
    assert "mtable" in tags(r"\begin{aligned}a &= b \\ c &= d\end{aligned}")
    with pytest.raises(mathml.MathError):
        mathml.as_mathml(r"\nosuchcommand", True)


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there">x</a><a href="b.html#gone">x</a><img src="no.png">')
    (tmp_path / "b.html").write_text('<h2 id="there">x</h2><a href="https://example.org/">x</a><a href="a.html">x</a>')
    assert links.dead_links(tmp_path) == ["a.html: b.html#gone", "a.html: no.png"]

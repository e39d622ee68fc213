"""The house in order: packages listed, imports in one direction, a row for every model, documents that hold."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import guidebook
from guidebook import datasets, guides, models
from guidebook.catalog import METHODS, ROWS
from guidebook.catalog.grid import empty_markdown, grid_markdown, models_markdown
from guidebook.guides import families

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"guidebook.models": "models", "guidebook.guides": "guides", "guidebook.inference": "inference"}
ROOMS = ("models", "guides", "inference", "guidebook")


def test_every_package_is_listed() -> None:
    found = {"guidebook"}
    for folder, name in [("src/guidebook", "guidebook"), *((f, n) for n, f in FOLDERS.items())]:
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            if not parts or not (ROOT / folder / parts[0]).is_symlink():
                found.add(".".join([name, *parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_links_show_editors_the_installed_tree() -> None:
    for name in FOLDERS.values():
        link = ROOT / "src" / "guidebook" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def rooms_imported(file: Path, text: str) -> set[str]:
    """Which of the four rooms a file imports from, by absolute name or by going up."""
    package = file.relative_to(ROOT).parts[:-1]
    rooms = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            rooms.add(above[0] if above[0] else "guidebook")
        names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            parts = (name or "").split(".")
            if parts[0] == "guidebook":
                rooms.add(parts[1] if len(parts) > 1 and parts[1] in ROOMS else "guidebook")
            elif parts[0] in ROOMS:
                rooms.add(f"top-level {parts[0]}")
    return rooms


MAY_IMPORT = {"models": {"models"}, "guides": {"guides", "models"}, "inference": {"inference"}}


def test_no_import_runs_back_up() -> None:
    """models stands on torch and Pyro; a guide is about a model; inference takes functions, of models only types."""
    for room, allowed in MAY_IMPORT.items():
        for file in (ROOT / room).rglob("*.py"):
            types = r"^( *)from \.+models import (GibbsSteps, Steps|GibbsSteps|OnlineSteps|Steps|ExactPosterior)$"
            text = re.sub(types, r"\1pass", file.read_text(), flags=re.M)
            assert rooms_imported(file, text) <= allowed, file


def test_a_models_package_has_a_file_per_method_named_as_the_method() -> None:
    for row in ROWS.values():
        package = ROOT / "models" / row.name
        if package.is_dir():
            assert (package / "model.py").exists(), row.name
        for method, make in row.steps.items():
            assert make.__module__.split(".")[-1] in (method, row.name), f"{make.__qualname__} in {make.__module__}"


def test_the_top_of_inference_has_methods_and_what_one_does_with_posteriors() -> None:
    """CONTRIBUTING, "Where a line belongs": everything else lies in a room."""
    files = {file.stem for file in (ROOT / "inference").glob("*.py")} - {"__init__"}
    methods = set(METHODS)
    assert methods <= files
    assert files - methods == {
        "calibrate",
        "check",
        "compare",
        "climb",
        "coords",
        "fit",
        "quantities",
        "verdict",
        "words",
        "judge",
        "advice",
        "apply_guide",
        "discrete",
        "log_likelihood",
        "predictive",
        "gradients",
        "posterior",
        "info",
        "diagnostics",
        "exchangeable",
        "headline",
        "options",
        "progress",
        "versions",
        "digests",
    }


def sites_in(function: ast.FunctionDef) -> int:
    """How many ``pyro.sample`` and ``pyro.param`` statements stand in a function."""
    names = [node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)]
    return sum(name in ("sample", "param") for name in names)


def test_every_model_shows_its_sites() -> None:
    for file in [*(ROOT / "models").glob("*/model.py"), *(ROOT / "models").glob("*.py")]:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == "model":
                assert sites_in(node) >= 2, f"{file}: a prior and a likelihood stand in the model"


def test_every_family_is_in_every_row() -> None:
    marked = {name for name, value in vars(families).items() if getattr(value, "is_guide_family", False)}
    for row in ROWS.values():
        assert marked <= set(row.guides) | set(row.unavailable), row.name


def models_on_disk() -> set[str]:
    """Every package in models/ with a model.py, and every file there that has a ``model``."""
    packages = {file.parent.name for file in (ROOT / "models").glob("*/model.py")}
    files = (file for file in (ROOT / "models").glob("*.py") if file.stem != "__init__")
    return packages | {file.stem for file in files if re.search("^def model", file.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("name", sorted(models_on_disk() | {*ROWS}))
def test_a_model_has_all_its_pieces(name: str) -> None:
    """CONTRIBUTING, "Add a model": what is missing is named."""
    grid, readme = (ROOT / "docs" / "grid.md").read_text(), (ROOT / "README.md").read_text()
    documented = {room: (ROOT / "docs" / "api" / f"{room}.md").read_text() for room in ("models", "guides")}
    pieces = {
        f"models/{name}/model.py, or models/{name}.py with a function called model": name in models_on_disk(),
        f"{name} in models/__init__.py": name in models.__all__,
        "its Row in src/guidebook/catalog/, and that in ROWS of src/guidebook/catalog/__init__.py": name in ROWS,
        f"tests/test_{name}.py": (ROOT / "tests" / f"test_{name}.py").exists(),
        f"guidebook.models.{name} in docs/api/models.md": f":: guidebook.models.{name}\n" in documented["models"],
        f"docs/models/{name}.md, its page": (ROOT / "docs" / "models" / f"{name}.md").exists(),
        "its line in the README's table: run make tables": f"| `{name}` |" in readme,
        "its column in docs/grid.md: run make tables": f" `{name}` |" in grid,
    }
    if any((ROOT / "guides" / place).exists() for place in (f"{name}.py", name)):
        shown = f":: guidebook.guides.{name}\n" in documented["guides"]
        pieces |= {f"{name} in guides/__init__.py": name in guides.__all__}
        pieces |= {f"guidebook.guides.{name} in docs/api/guides.md": shown}
    if row := ROWS.get(name):
        pieces["coords of its Row"] = row.coords is not None
        for method, how in METHODS.items():
            has = row.latent_model is not None if how.takes == "latent_model" else method in row.steps
            needs = how.takes in ("steps", "solution", "latent_model") and method not in row.unavailable
            pieces[f"{method} among the steps of its Row, or a reason in unavailable"] = has or not needs
    missing = [piece for piece, there in pieces.items() if not there]
    assert not missing, f"{name} still needs {'; '.join(missing)}"


def test_documents_show_the_catalogue_and_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    assert models_markdown() in readme, "run make tables"
    grid = (ROOT / "docs" / "grid.md").read_text()
    assert grid_markdown() in grid, "run make tables"
    assert empty_markdown() in grid, "run make tables"
    for name in datasets.names():
        assert re.search(rf"bundled \([^)]*{name}", readme), f"{name} among the README's bundled data"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", readme, re.MULTILINE)) <= targets
    for path in re.findall(r"\]\(([^)#]+)\)", readme):
        assert path.startswith("https://") or (ROOT / path).exists(), path


def test_version_is_the_projects() -> None:
    assert PROJECT["project"]["version"] == guidebook.__version__
    assert f"## {guidebook.__version__}" in (ROOT / "CHANGELOG.md").read_text()

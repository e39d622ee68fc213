"""``FILE.py:FUNCTION``: found, read and run as the user's own code. Nothing is imported here that is slow."""

import ast
import contextlib
import hashlib
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from guidebook.workflow.options import Option, unknown

SHOWN = "FILE.py:FUNCTION"
KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


class OwnFunction(NamedTuple):
    """A function in a file, as it was asked for; nothing has been run."""

    given: str  # "models/schools.py:centred"
    path: Path  # absolute
    name: str
    source: bytes  # of the file

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, in hexadecimal."""
        return hashlib.sha256(self.source).hexdigest()


def is_own(name: str | None) -> bool:
    """Whether a name is that of a file, perhaps with a function, rather than of something in the catalogue."""
    return name is not None and (name.endswith(".py") or ".py:" in name)


def find_function(given: str) -> OwnFunction:
    """Find ``FILE.py:FUNCTION`` without running the file.

    Raises
    ------
    ValueError
        If there is no such file, it is no Python, the function is not named, or the file has none of that name.
    """
    file, _, name = given.rpartition(":") if ".py:" in given else (given, "", "")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"no such file: {file}")
    source = path.read_bytes()
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{file}, line {error.lineno}: {error.msg}") from None
    except ValueError as error:  # a null character
        raise ValueError(f"{file} is no Python file: {error}") from None
    functions, others, is_open = _names(tree)
    if not name:
        has = f"; it has {', '.join(functions)}" if functions else ""
        raise ValueError(f"{file}: name the function, as in {file}:{functions[0] if functions else 'FUNCTION'}{has}")
    if name not in functions + others and not is_open:
        raise ValueError(f"{file}: {unknown('function', name, functions or ['none'])}")
    return OwnFunction(given, path.resolve(), name, source)


def functions_in(words: Iterable[str]) -> list[OwnFunction]:
    """Return the functions in users' own files that the words of a command name."""
    parts = (part.strip().removeprefix("svi:") for word in words for part in word.rpartition("=")[2].split(","))
    return [find_function(name) for name in dict.fromkeys(parts) if is_own(name)]


def _names(tree: ast.Module) -> tuple[list[str], list[str], bool]:
    """Return the names that a file defines as functions and classes, other names that it sets, and whether any more."""
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name[0] != "_"]
    others, is_open = [], False
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            others += [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
            is_open = is_open or any(alias.name == "*" for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            others.append(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            others.append(node.name)
    return functions, others, is_open


def options_in(own: OwnFunction) -> dict[str, Option] | None:
    """Return a function's options as they can be read, without running the file; None if they cannot.

    They are the arguments whose default is a number, a truth value or a word.
    """
    found = [node for node in ast.parse(own.source).body if isinstance(node, ast.FunctionDef) and node.name == own.name]
    if len(found) != 1 or found[0].decorator_list:
        return None
    taken = found[0].args
    by_position = taken.posonlyargs + taken.args
    pairs = [*zip(by_position[len(by_position) - len(taken.defaults) :], taken.defaults, strict=True)]
    pairs += [(arg, default) for arg, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if default]
    try:
        return options_of({arg.arg: ast.literal_eval(default) for arg, default in pairs}, own.name)
    except ValueError:
        return None


def options_of(defaults: Mapping[str, Any], name: str) -> dict[str, Option]:
    """Return the options of a function, by its arguments' defaults."""
    return {
        argument: Option(type(default), default, f"argument of {name}, {KINDS[type(default)]}")
        for argument, default in defaults.items()
        if type(default) in KINDS
    }


def load_function(function: OwnFunction) -> Callable[..., Any]:
    """Run a file, once per process, and return its function; of a class of modules, an instance.

    Raises
    ------
    ValueError
        If the file cannot be run, in one sentence with its line; if the name is not that of a function.
    """
    module = _run(function.path, function.source)
    found = getattr(module, function.name, None)
    if found is None:
        raise ValueError(f"{function.path.name} sets no {function.name} when it is run")
    if isinstance(found, type) and _makes_models(found):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(f"{function.given} is a class that cannot be made without arguments: {error}") from None
    if not callable(found):
        raise ValueError(f"{function.given} is no function: it is of type {type(found).__name__}")
    return found


@lru_cache
def _run(path: Path, source: bytes) -> types.ModuleType:
    """Run a file as a module of its own; what it prints goes to standard error."""
    module = types.ModuleType(path.name)  # "schools.py", which no module that can be imported is called
    module.__file__ = str(path)
    sys.modules[path.name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for what lies beside it
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise ValueError(_why(path, error)) from None
    finally:
        del sys.modules[path.name]  # other processes cannot import it: they are sent what it defines
    return module


def _why(path: Path, error: BaseException) -> str:
    """Return why a file cannot be run, with the line that is its own."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    what = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path.name}, line {error.lineno}: {error.msg}"
    where = f" ({path.name}, line {lines[-1].lineno}: {lines[-1].line})" if lines else ""
    return f"{path.name} cannot be run: {what[:200]}{where}"


def _makes_models(found: type) -> bool:
    """Whether a class is one of modules, but not of autoguides, which is a guide family as it is."""
    from pyro.infer.autoguide import AutoGuide  # slow to import
    from torch.nn import Module

    return issubclass(found, Module) and not issubclass(found, AutoGuide)

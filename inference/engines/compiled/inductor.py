"""Everything private to torch's Inductor, and nothing else: see README.md beside this folder.

Nothing is imported before a step is compiled. A name that a release of torch has moved raises here, and `compile_step`
turns whatever is raised into `CannotCompile`.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from .artefacts import DamagedError, with_whole_files

MIN_CHUNK = 16_384  # numbers per thread; smaller loops run on one thread, as waiting for others takes longer
PREFIX = "#include <torch/csrc/inductor/cpp_prefix.h>"


class Kernel:
    """A C++ function that Inductor generated, compiled on its first call unless a loop includes its source.

    ``kinds`` are the C++ types of its arguments; in ``code`` its name is ``kernel``.
    """

    def __init__(self, kinds: list[str], code: str) -> None:
        self.kinds, self.code = kinds, code

    @cached_property
    def function(self) -> Callable[..., None]:
        """The function, compiled on its own."""
        from torch._inductor import codecache

        def load(check: Callable[[str], None]) -> Callable[..., None]:
            headers = whole_headers(codecache._precompile_header, check)
            with _replaced(codecache, "_precompile_header", headers):
                return _checked(codecache.CppPythonBindingsCodeCache, check).load_pybinding(self.kinds, self.code)

        return with_whole_files(load)

    def __call__(self, *arguments: Any) -> None:
        """Call the function."""
        self.function(*arguments)

    def source(self, name: str) -> str:
        """Return the C++ source as a function of that name, to be included in a file that has `PREFIX`."""
        body = self.code.replace(PREFIX, "").replace('extern "C"', "static inline", 1)
        return f"#define kernel {name}\n{body}\n#undef kernel"


def compile_graph(
    graph: GraphModule, examples: list[Any], *, scalar: bool
) -> tuple[Callable[..., Sequence[Tensor]], ModuleType | None]:
    """Compile a graph for arguments shaped like the examples, without vector instructions if ``scalar``.

    With it comes the module that Inductor generated, new or from its cache; None if there is not exactly one.
    """
    from torch._inductor import config, standalone_compile
    from torch._inductor.async_compile import AsyncCompile
    from torch._inductor.codecache import PyCodeCache

    load = PyCodeCache.load_by_key_path

    def compiled(check: Callable[[str], None]) -> tuple[Callable[..., Sequence[Tensor]], ModuleType | None]:
        modules = []

        def load_and_keep(key: str, path: str, *args: Any, **kwargs: Any) -> ModuleType:
            check(path)
            modules.append(load(key, path, *args, **kwargs))
            return modules[-1]

        with _replaced(PyCodeCache, "load_by_key_path", load_and_keep):
            run = standalone_compile(graph, examples, dynamic_shapes="from_example_inputs")
        return run, modules[0] if len(modules) == 1 else None

    options = {"fallback_random": True, "cpp.min_chunk_size": MIN_CHUNK}
    with (
        config.patch(options | ({"cpp.simdlen": 1} if scalar else {})),
        _replaced(AsyncCompile, "cpp_pybinding", lambda _, kinds, code: Kernel(kinds, code)),
    ):
        return with_whole_files(compiled)


def kernels_of(program: ModuleType) -> dict[str, Kernel]:
    """Return the kernels of a generated program by name."""
    return {name: value for name, value in vars(program).items() if isinstance(value, Kernel)}


def call_with(program: ModuleType, names: dict[str, Any], inputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Call a program that sees only ``names`` and its module's checks and views; NameError for any other name."""
    allowed = {k: v for k, v in vars(program).items() if k.startswith("assert_") or k == "reinterpret_tensor"}
    return FunctionType(program.Runner.call.__code__, allowed | names)(None, list(inputs))


def load_cpp(source: str) -> Any:
    """Compile C++ to a shared library, or load it from torch's cache on disk; returns it."""
    from torch._inductor.codecache import CppCodeCache, CppPythonBindingsCodeCache

    class Libraries(CppCodeCache):
        cache = _LOADED
        cpp_compile_command_flags = CppPythonBindingsCodeCache.cpp_compile_command_flags  # links nothing of torch

    def load(check: Callable[[str], None]) -> Any:
        return _checked(Libraries, check).load(source, needs_vec_isa="at::vec::" in source, extra_flags=("-w",))

    return with_whole_files(load)


def _checked(libraries: Any, check: Callable[[str], None]) -> Any:
    """Return a cache of libraries that are checked before they are loaded."""

    class Checked(libraries):
        @classmethod
        def _load_library(cls, path: str, key: str) -> Any:
            check(path)
            return super()._load_library(path, key)

    return Checked


def whole_headers(precompiled: Any, check: Callable[[str], None]) -> Callable[..., str]:
    """Return Inductor's cached function that precompiles a header, such that its file is checked before it is used.

    g++ refuses one that was cut short, in every later run.
    """

    def path_of(*args: Any, **kwargs: Any) -> str:
        path = precompiled(*args, **kwargs)
        for compiled in (f"{path}{ending}" for ending in (".gch", ".pch")):
            if os.path.exists(compiled):
                try:
                    check(compiled)
                except DamagedError:
                    precompiled.cache_clear()
                    raise
        return path

    return path_of


_LOADED: dict[str, Any] = {}


@contextmanager
def trust_cpuid() -> Iterator[None]:
    """Skip Inductor's test compile for vector instructions, which takes seconds; trust cpuid."""
    from torch._inductor import config

    with config.patch(compile_threads=1):
        from torch._inductor import async_compile, cpu_vec_isa  # noqa: F401 (would start compiler processes otherwise)

    base = {"AVX512": cpu_vec_isa.VecAVX512, "AVX2": cpu_vec_isa.VecAVX2}.get(torch.backends.cpu.get_cpu_capability())
    if base is None:
        yield
        return

    class Trusted(base):
        def __bool__(self) -> bool:
            return True

    with _replaced(cpu_vec_isa, "valid_vec_isa_list", lambda: [Trusted()]):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute that must exist for as long as the block runs."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)

"""Which versions compute, and on what: what numbers depend on besides seed, data and options."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("guidebook", "torch", "pyro-ppl", "numpy", "scipy", "scikit-learn", "jax", "numpyro")


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute, and the processor's instructions."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"}

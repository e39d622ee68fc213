"""NUTS at compiled speed: a Pyro model's potential as JAX code, run by NumPyro.

Nothing here imports JAX until a run asks for it: it comes with ``pip install 'guidebook[xla]'``.
"""

from importlib.util import find_spec

INSTALL = "pip install 'guidebook[xla]'"


def installed() -> bool:
    """Whether JAX and NumPyro can be imported."""
    return all(find_spec(package) is not None for package in ("jax", "numpyro"))

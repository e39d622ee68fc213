"""Posteriors in ArviZ's container, a DataTree, and posteriors from draws that other libraries made."""

from .read import read
from .write import GROUPS, write

__all__ = ["GROUPS", "read", "write"]

"""Data that do not fit in memory, read in blocks, pass after pass: what `svi`, `em`, `cavi` and `online` take."""

from .sources import is_source, stream
from .stream import Stream

__all__ = ["Stream", "is_source", "stream"]

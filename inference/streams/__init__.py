"""Data that do not fit in memory, read in blocks, pass after pass: what `svi`, `em`, `cavi` and `online` take."""

from .rows import Stream
from .sources import is_source, stream

__all__ = ["Stream", "is_source", "stream"]

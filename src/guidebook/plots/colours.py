"""Colours by name, on a light page and on a dark one.

Figures are drawn in the light ones; a page switches them by CSS variables. Lines are Okabe and Ito's colours, darkened
on light paper.
"""

from typing import NamedTuple


class Colour(NamedTuple):
    """One colour in hexadecimal, on light paper and on dark."""

    light: str
    dark: str


PALETTE = {
    "paper": Colour("#ffffff", "#1e242a"),
    "ink": Colour("#27313c", "#dde4ea"),
    "soft": Colour("#52606d", "#a5b1bd"),
    "axis": Colour("#7b8794", "#8c98a4"),
    "faint": Colour("#e6eaee", "#333c45"),
    "shaded": Colour("#d3dbe4", "#43505d"),
    "grey": Colour("#aab4c0", "#6b7783"),
    "reference-line": Colour("#616e7c", "#b3bec9"),
    "line-1": Colour("#0072b2", "#58b0e8"),
    "line-2": Colour("#d55e00", "#f08a3c"),
    "line-3": Colour("#009e73", "#36c79b"),
    "line-4": Colour("#b0568c", "#d98abb"),
    "line-5": Colour("#c48a00", "#e0b13a"),
    "line-6": Colour("#3d9bd1", "#8cc9f0"),
    "good": Colour("#1a7f37", "#56c271"),
    "usable": Colour("#8a6100", "#d9a83f"),
    "bad": Colour("#b3261e", "#f2877e"),
    "reference": Colour("#33506e", "#8fb1d4"),
    "point": Colour("#6b4e9b", "#b79de3"),
}

_VARIABLES = {colour.light: f"var(--{name}, {colour.light})" for name, colour in PALETTE.items()}


def css(colour: str) -> str:
    """Return a colour of the palette, given as on light paper, as a CSS variable; any other as it is."""
    return _VARIABLES.get(colour, colour)

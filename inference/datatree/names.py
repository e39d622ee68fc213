"""Names in a DataTree: of variables, which can have no slash; of dimensions, a model's plates; of their entries."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from pyro.poutine import Trace

from ..quantities import Coords
from ..traces.sites import is_deterministic, is_plate, nodes


class Plate(NamedTuple):
    """A plate that a site lies in."""

    name: str
    dim: int  # of the batch shape, from the right
    size: int


Plates = Mapping[str, list[Plate]]  # by site


def safe_names(groups: Iterable[Collection[str]]) -> dict[str, str]:
    """Return for every site a name without a slash, which a DataTree takes for a path: "a/w" becomes "a.w"."""
    found: dict[str, str] = {}
    for site in sorted({site for sites in groups for site in sites}, key=lambda site: ("/" in site, site)):
        name = site.replace("/", ".")
        while name in found.values():
            name += "_"
        found[site] = name
    return found


def plates_of(trace: Trace, taken: Collection[str]) -> dict[str, list[Plate]]:
    """Return the plates of each site whose names can be those of dimensions: none of ``taken``, and of one size."""
    found: dict[str, list[Plate]] = {}
    for name, site in nodes(trace).items():
        if site["type"] == "sample" and not is_plate(site):
            frames = (frame for frame in site["cond_indep_stack"] if frame.vectorized)
            found[name] = [Plate(frame.name, frame.dim, frame.size) for frame in frames]
    known = {plate for plates in found.values() for plate in plates}
    sizes = {plate.name: {other.size for other in known if other.name == plate.name} for plate in known}
    good = {name for name, of in sizes.items() if len(of) == 1 and "/" not in name and name not in taken}
    return {site: [plate for plate in plates if plate.name in good] for site, plates in found.items()}


def event_dim(site: Mapping[str, Any]) -> int:
    """Return how many dimensions of a site's value are no plates'; Pyro calls all of a deterministic one's so."""
    event = site["fn"].event_dim
    return 0 if is_deterministic(site) and event == site["value"].dim() else event


def dimensions(name: str, shape: tuple[int, ...], event: int, plates: Collection[Plate]) -> list[str]:
    """Return the names of a variable's dimensions: those of plates, else "w_dim_0"; the last ``event`` have none."""
    by_dim = {plate.dim - event: plate for plate in plates}
    dims = [f"{name}_dim_{position}" for position in range(len(shape))]
    for dim, plate in by_dim.items():
        if -dim <= len(shape) and shape[dim] == plate.size:
            dims[dim] = plate.name
    return dims


def entries(dims: Mapping[str, list[str]], coords: Coords) -> dict[str, Any]:
    """Return the names of the entries along dimensions, from ``coords``.

    These are by dimension, or by variable, along its last ones.
    """
    known = {dim for of in dims.values() for dim in of}
    found: dict[str, Any] = {name: list(given) for name, given in coords.items() if name in known}
    for name, given in coords.items():
        for dim, labels in zip(reversed(dims.get(name, [])), reversed(given), strict=False):
            found[dim] = list(labels)
    return found

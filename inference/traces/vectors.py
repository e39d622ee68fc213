"""Sites by name ↔ one vector."""

import torch
from torch import Size, Tensor

Sites = dict[str, Tensor]


def as_vector(sites: Sites) -> Tensor:
    """Concatenate the values of all sites, shape (d)."""
    return torch.cat([value.detach().reshape(-1) for value in sites.values()]) if sites else torch.zeros(0)


def as_sites(vectors: Tensor, shapes: dict[str, Size]) -> Sites:
    """Split vectors (…, d) into sites (…, *site)."""
    parts = vectors.split([shape.numel() for shape in shapes.values()], -1)
    leading = vectors.shape[:-1]
    return {name: part.reshape(leading + shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

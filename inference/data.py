"""The data as methods in double precision take them."""


def as_double(data: tuple) -> tuple:
    """Return floating-point tensors in float64, all others as they are."""
    return tuple(value.double() if value.is_floating_point() else value for value in data)

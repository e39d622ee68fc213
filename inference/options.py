"""Checks of options that several methods share."""


def at_least_one(method: str, **counts: int) -> None:
    """Raise ValueError for the first of ``counts`` below one."""
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{method}: {name} must be at least 1, got {value}")

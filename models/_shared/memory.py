"""What a computation takes in memory, asked before it is taken."""

import os


def check_memory(name: str, option: str, numbers: int | float) -> None:
    """Raise ValueError if so many numbers in float64 do not fit into free memory.

    Parameters
    ----------
    name : str
        The model's.
    option : str
        What makes them many, such as "num_topics=1000".
    numbers : float
        How many there are at once.
    """
    needed, free = 8 * numbers, free_memory()
    if needed > free:
        raise ValueError(f"{name}: {option} takes about {needed / 1e9:.3g} GB, and {free / 1e9:.1f} GB are free")


def free_memory() -> int:
    """Return the bytes of memory that can be had without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

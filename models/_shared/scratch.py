"""Tables with a row per row of the data: in memory while they are small, else in a file without a name."""

import os
import tempfile

import numpy as np
import torch
from torch import Tensor

IN_MEMORY = 2**24  # numbers


def table(num_rows: int, num_columns: int) -> Tensor:
    """Return a table in float64 to be filled in.

    With more than `IN_MEMORY` numbers it lies in a file in the system's folder for temporary files (``TMPDIR``), mapped
    into memory, which is gone with the tensor.

    Raises
    ------
    OSError
        If the disk is full.
    """
    shape = (num_rows, num_columns)
    if num_rows * num_columns <= IN_MEMORY:
        return torch.empty(shape, dtype=torch.float64)
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):  # a file with holes would end the process when the disk is full
            os.posix_fallocate(file.fileno(), 0, 8 * num_rows * num_columns)
        return torch.from_numpy(np.memmap(file, np.float64, "w+", shape=shape))

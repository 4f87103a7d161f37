"""Images on disk that are read back row by row: training on more of them than memory holds."""

import tempfile
import threading

import numpy as np


class DiskArray:
    """float32 rows of one shape in a temporary file, which vanishes with the object, or with the process.

    Args:
        row_shape: of each row, such as `(H, W, C)`.
        folder: where the file lies; by default where the system keeps temporary files.
    """

    def __init__(self, row_shape, folder=None):
        self._row_shape = tuple(row_shape)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, open as long as the array lives
        self._lock = threading.Lock()  # between seeking and reading
        self._count, self._rows = 0, None  # None: all of them

    @property
    def shape(self):
        """`(N, ...)`, as of an array."""
        return (len(self), *self._row_shape)

    def __len__(self):
        return self._count if self._rows is None else len(self._rows)

    def append(self, rows):
        """Add rows `[n, ...]`; not to a subset."""
        if self._rows is not None:
            raise ValueError("Rows can be added to the whole array, not to a subset.")
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of shape {rows.shape[1:]}; this array's are {self._row_shape}.")
        with self._lock:
            self._file.seek(0, 2)
            self._file.write(rows.data)
        self._count += len(rows)

    def take(self, rows):
        """The rows of these numbers, `[n, ...]`."""
        taken = np.empty((len(rows), *self._row_shape), np.float32)
        with self._lock:
            for into, row in zip(taken, rows if self._rows is None else self._rows[rows]):
                self._file.seek(int(row) * into.nbytes)
                self._file.readinto(into.data)
        return taken

    def subset(self, rows):
        """Another `DiskArray` of some of the rows, on the same file."""
        subset = DiskArray.__new__(DiskArray)
        subset.__dict__.update(self.__dict__, _rows=(np.arange(self._count) if self._rows is None else self._rows)[rows])
        return subset

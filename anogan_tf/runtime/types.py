"""Kinds of arguments that many public functions take, under names for type checkers and readers."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

PathLike = str | os.PathLike[str]
Array = np.ndarray | Sequence[Any]  # and what NumPy makes one of, such as tensors
PixelArrays = Array  # `[N, h, w]`, `[N, h, w, c]`, or a list of images of any sizes


class Source(Protocol):
    """A set of images, such as `FileSource`, that are read one by one."""

    entries: list[Any]

    def elements(self, rows: Any) -> Any:
        """What `read` needs for each of some rows, as a `tf.data.Dataset` of tuples that begin with the row."""

    def read(self, *element: Any) -> Any:
        """The `DecodedImage` of an element."""

    def masks(self, rows: Any) -> Iterator[np.ndarray | ValueError | None]:
        """Yield the mask of each of some rows."""

    def info(self, row: int) -> Any:
        """What is known of a row before it is read."""

"""The built-in set: real photographs that come with the package."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

EMBEDDED = Path(__file__).parent / "embedded_set" / "fashion_ankle-boot.npz"
EMBEDDED_CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class EmbeddedSet(NamedTuple):
    """Ankle boots (normal) and other garments, from Fashion-MNIST.

    Attributes:
        train: `[2000, 28, 28]` uint8, boots.
        test: `[606, 28, 28]` uint8.
        test_label: `[606]`, 0 boot, 1 anything else.
        test_class: `[606]`, index into `EMBEDDED_CLASSES`.
    """

    train: np.ndarray
    test: np.ndarray
    test_label: np.ndarray
    test_class: np.ndarray


def load_embedded() -> EmbeddedSet:
    """The built-in set, as `EmbeddedSet`."""
    with np.load(EMBEDDED) as arrays:
        return EmbeddedSet(*(arrays[name] for name in EmbeddedSet._fields))

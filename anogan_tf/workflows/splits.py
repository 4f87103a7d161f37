"""Which normal images are trained on and which are held out for the threshold, and what is written down of that."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

HELD_OUT_SHARE, MIN_HELD_OUT, MAX_HELD_OUT, MIN_TRAINED = 0.1, 50, 1000, 50
HELD_OUT, TRAINED = "held_out.txt", "trained.txt"  # names of images, in the training state


class Split(NamedTuple):
    """Rows to train on and rows to calibrate on."""

    trained: np.ndarray
    held_out: np.ndarray


def split_normals(count, seed=0, groups=None):
    """Hold out 10% of the normals, at least 50 and at most 1,000, for the threshold; which ones depends on the seed alone.

    Args:
        count: how many normals there are.
        seed: an integer.
        groups: `[count]`, what is not to be torn apart; by default each is its own. Whole groups are held out, until
            there are enough.
    """
    held_out = min(max(MIN_HELD_OUT, int(count * HELD_OUT_SHARE)), MAX_HELD_OUT)
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(members)
    order = np.random.default_rng(seed).permutation(len(sizes))
    taken, enough = [], 0
    for group in order:
        if enough < held_out and enough + sizes[group] <= 2 * held_out:  # one that holds most of them is trained on
            taken.append(group)
            enough += sizes[group]
    out = np.isin(members, taken)
    if enough < min(held_out, MIN_HELD_OUT) or (~out).sum() < MIN_TRAINED:
        raise ValueError(
            f"{count} normal images are too few: at least {MIN_HELD_OUT} are held out for the threshold and at least "
            f"{MIN_TRAINED} are trained on, so {MIN_HELD_OUT + MIN_TRAINED} are needed"
            + ("." if groups is None else ", and more where a few groups hold most of them.")
            + " Images that are kept for testing, and groups with an anomaly, don't count."
        )
    return Split(np.flatnonzero(~out), np.flatnonzero(out))


def load_training_names(model):
    """What a model was trained on, and what set its threshold: two sets of `absolute_name`; None where it isn't known."""
    notes = [training_state(model) / note for note in (TRAINED, HELD_OUT)]
    if not all(note.exists() for note in notes):
        return None
    return tuple(set(note.read_text(encoding="utf-8").split("\n")) for note in notes)


def training_state(model):
    """The folder beside `MODEL.keras` that keeps its training state: `MODEL.train`."""
    return Path(model).with_suffix(".train")

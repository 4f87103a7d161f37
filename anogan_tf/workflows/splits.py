"""Which normal images are trained on and which are held out for the threshold, and what is written down of that."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

HELD_OUT_SHARE, MIN_HELD_OUT, MAX_HELD_OUT, MIN_TRAINED = 0.1, 50, 1000, 50
MIN_NORMALS, FOLDS = 20, 4  # images that there must be; parts that fewer than `MIN_HELD_OUT` + `MIN_TRAINED` are divided into
HELD_OUT, TRAINED = "held_out.txt", "trained.txt"  # names of images, in the training state


class Split(NamedTuple):
    """Rows to train on and rows to calibrate on.

    Where images are too few to hold some out all are both, and `folds` divides them: each part is scored by a detector that was
    trained on the others.
    """

    trained: np.ndarray
    held_out: np.ndarray
    folds: tuple = ()


def split_normals(count, seed=0, groups=None):
    """Hold out 10% of the normals, at least 50 and at most 1,000, for the threshold; which ones depends on the seed alone.

    Of fewer than 100 none are held out, see `Split`.

    Args:
        count: how many normals there are.
        seed: an integer.
        groups: `[count]`, what is not to be torn apart; by default each is its own. Whole groups are held out, until
            there are enough.

    Raises:
        ValueError: for fewer than 20, or too few groups.
    """
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    if count < MIN_NORMALS:
        raise ValueError(
            f"{count} normal images are too few, at least {MIN_NORMALS} are needed: with fewer no threshold can promise that it "
            "calls only one normal image in twenty anomalous. Images that are kept for testing, and groups with an anomaly, "
            "don't count."
        )
    order = np.random.default_rng(seed).permutation(members.max() + 1)
    held_out = min(max(MIN_HELD_OUT, int(count * HELD_OUT_SHARE)), MAX_HELD_OUT)
    sizes, taken, enough = np.bincount(members), [], 0
    for group in order:
        if enough < held_out and enough + sizes[group] <= 2 * held_out:  # one that holds most of them is trained on
            taken.append(group)
            enough += sizes[group]
    out = np.isin(members, taken)
    if enough < min(held_out, MIN_HELD_OUT) or (~out).sum() < MIN_TRAINED:
        return Split(np.arange(count), np.arange(count), _fold(members, sizes, order, count))
    return Split(np.flatnonzero(~out), np.flatnonzero(out))


def _fold(members, sizes, order, count):
    """Rows of each of `FOLDS` parts of nearly the same size, whole groups in each."""
    if len(order) < FOLDS:
        raise ValueError(
            f"{count} normal images come in {len(order)} groups; at least {FOLDS} are needed, so that what an image is judged by "
            "doesn't show the same thing. Groups are the column group of a table."
        )
    parts: list[list[int]] = [[] for _ in range(FOLDS)]
    filled = np.zeros(FOLDS, int)
    for group in sorted(order, key=lambda group: -sizes[group]):
        smallest = int(filled.argmin())
        parts[smallest].append(group)
        filled[smallest] += sizes[group]
    return tuple(np.flatnonzero(np.isin(members, part)) for part in parts)


def load_training_names(model):
    """What a model was trained on, and what set its threshold: two sets of `absolute_name`; None where it isn't known."""
    notes = [training_state(model) / note for note in (TRAINED, HELD_OUT)]
    if not all(note.exists() for note in notes):
        return None
    return tuple(set(note.read_text(encoding="utf-8").split("\n")) for note in notes)


def training_state(model):
    """The folder beside `MODEL.keras` that keeps its training state: `MODEL.train`."""
    return Path(model).with_suffix(".train")

"""The search step by step: what G(z) looks like after so many of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from anogan_tf.annotations import Array
from anogan_tf.detector import AnoGAN

STEPS = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500)


class Unfolding:
    """G(z) and the loss of images after some numbers of steps.

    >>> unfolding = Unfolding(detector)
    >>> unfolding.steps, unfolding(queries)["reconstruction"]

    Each number of steps is a detector of its own, traced when it is first used.

    Args:
        detector: an `AnoGAN`.
        steps: ascending numbers of steps; by default some from none up to as many as the detector takes.
    """

    def __init__(self, detector: AnoGAN, steps: Sequence[int] | None = None) -> None:
        most = detector.settings.steps or 0
        self.steps = tuple(steps) if steps is not None else (*(count for count in STEPS if count < most), most)
        self._detectors = [detector.with_settings(steps=count, tolerance=0.0, score="loss") for count in self.steps]

    @property
    def titles(self):
        """What to call each number of steps."""
        return [f"{count} step" + "s" * (count != 1) for count in self.steps]

    def __call__(self, images: Array, sizes: Array | None = None) -> Any:
        """For images that the detector's preparation has made, `[N, H, W, C]`, and `sizes` as for `predict_prepared`.

        Returns:
            A dict of `reconstruction` `[S, N, H, W, C]` in [0, 1] and `loss` `[S, N]`, S numbers of steps.
        """
        outs = [detector.predict_prepared(images, sizes) for detector in self._detectors]
        return {
            "reconstruction": np.stack([out["reconstruction"] for out in outs]),
            "loss": np.stack([out["score"] for out in outs]),
        }

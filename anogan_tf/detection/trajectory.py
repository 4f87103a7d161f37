"""The search step by step: what G(z) looks like after so many of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from anogan_tf.detection.detector import AnoGAN
from anogan_tf.runtime.types import Array

SHOWN_STEPS = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500)


class SearchTrajectory:
    """G(z) and the loss of images after some numbers of steps.

    >>> trajectory = SearchTrajectory(detector)
    >>> trajectory.steps, trajectory(queries)["reconstruction"]

    Args:
        detector: an `AnoGAN`.
        steps: ascending numbers of steps; by default some from none up to as many as the detector takes.
    """

    def __init__(self, detector: AnoGAN, steps: Sequence[int] | None = None) -> None:
        max_steps = detector.search_settings.steps or 0
        self.steps = tuple(steps) if steps is not None else (*(count for count in SHOWN_STEPS if count < max_steps), max_steps)
        if not self.steps or min(self.steps) < 0:
            raise ValueError(f"steps={self.steps}: name at least one number of steps, each 0 or more.")
        self._truncated_search = detector.with_settings(steps=max(self.steps), tolerance=0.0, score="loss").truncated_search()

    @property
    def titles(self):
        """What to call each number of steps."""
        return [f"{count} step" + "s" * (count != 1) for count in self.steps]

    def __call__(self, images: Array, sizes: Array | None = None) -> Any:
        """For images that the detector's preprocessing has made, `[N, H, W, C]`, and `sizes` as for `predict_prepared`.

        Returns:
            A dict of `reconstruction` `[S, N, H, W, C]` in [0, 1] and `loss` `[S, N]`, S numbers of steps.
        """
        outs = list(self.follow(images, sizes))
        return {name: np.stack([out[name] for out in outs]) for name in ("reconstruction", "loss")}

    def follow(self, images: Array, sizes: Array | None = None) -> Iterator[dict[str, np.ndarray]]:
        """The same for one number of steps after another, `[N, H, W, C]` and `[N]`."""
        for count in self.steps:
            out = self._truncated_search(count, images, sizes)
            yield {"reconstruction": out["reconstruction"].numpy(), "loss": out["score"].numpy()}

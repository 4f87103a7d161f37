"""What a detector can be expected to do, from normal images alone: the rate that held, what it still finds, how fast it is."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from anogan_tf.data.synthetic import draw_disc
from anogan_tf.detection.calibration import largest_rank
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.runtime.types import Source

IMAGES = 16  # that discs are drawn on, each size and each contrast once on each
SIZES, CONTRASTS = (0.02, 0.04, 0.08, 0.16, 0.32), (0.04, 0.08, 0.16, 0.32, 0.64)
CONTRAST_OF_SIZES, SIZE_OF_CONTRASTS = 0.5, 0.2
HALVINGS = 200  # of the held-out images, in each of which one half sets the threshold for the other
SURE = 0.9  # of the interval that a rate lies in
WIDE = 2.0  # times the rate that was asked for, that it may come to before that is worth a warning


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """What `check_detector` found.

    Attributes:
        images: how many normal images set the threshold.
        asked: the false-positive rate that was asked for.
        held: the rate on one half of these images where the other half sets the threshold, the mean over many halves.
        low, high: between which the rate on new normal images like these lies, see `Calibration.likely_rates`.
        smallest: diameter of a disc of half the image's range in contrast that is found half the time, as a share of the shorter
            side; None where the largest isn't.
        faintest: contrast of a disc of a fifth of the shorter side that is found half the time, likewise.
        images_per_second: of scoring these images.
    """

    images: int
    asked: float
    held: float
    low: float
    high: float
    smallest: float | None
    faintest: float | None
    images_per_second: float

    def lines(self) -> list[str]:
        """What it comes to, in sentences."""
        held = (
            f"Where one half of the {self.images} held-out images sets the threshold for the other, {self.held:.1%} are called "
            f"anomalous, {self.asked:.1%} being asked for; "
        )
        held = ("" if np.isnan(self.held) else held) + (
            f"of new normal images it will be between {self.low:.1%} and {self.high:.1%} (90% sure)."
        )
        size = (
            f"not even discs of {SIZES[-1]:.0%} of the shorter side"
            if self.smallest is None
            else f"discs of {self.smallest:.1%} of the shorter side"
        )
        faint = (
            f"not even {CONTRASTS[-1]:.0%} of the contrast" if self.faintest is None else f"{self.faintest:.0%} of the contrast"
        )
        return [
            held[0].upper() + held[1:],
            f"It finds half of the time: {size} at half of the contrast; at a fifth of the side, {faint}. "
            "Real defects may be subtler.",
            f"It scores {self.images_per_second:.3g} images a second here.",
        ]

    def warnings(self) -> list[str]:
        """What of it is a reason not to rely on the detector."""
        if self.high <= WIDE * self.asked:
            return []
        return [
            f"The threshold rests on {self.images} images: up to {self.high:.0%} of new normal ones may be called anomalous. "
            "More normal images make it surer."
        ]


def check_detector(
    detector: AnoGAN,
    source: Source,
    rows: np.ndarray,
    seed: int = 0,
    on_progress: Callable[..., Any] = lambda count=1: None,
) -> SelfCheck:
    """Find out what a calibrated detector does with normal images and with discs drawn on them.

    Args:
        detector: an `AnoGAN` with a calibration.
        source, rows: the normal images that it was calibrated on.
        seed: of what is drawn.
        on_progress: called with the number of images scored since the last call.
    """
    calibration = detector.calibration
    if calibration is None:
        raise ValueError("The detector has no threshold: call calibrate() first.")
    draw = np.random.default_rng(seed)
    scores, asked = calibration.scores, calibration.false_positive_rate
    images = _read(source, np.sort(draw.permutation(rows)[:IMAGES]))
    found, seconds = {}, np.inf
    drawn = {("size", size): (size, CONTRAST_OF_SIZES) for size in SIZES}
    drawn |= {("contrast", contrast): (SIZE_OF_CONTRASTS, contrast) for contrast in CONTRASTS}
    for key, (size, contrast) in drawn.items():
        changed, started = [draw_disc(image, size, contrast, draw) for image in images], time.perf_counter()
        found[key] = float(np.mean(detector.predict(changed)["is_anomaly"]))
        seconds = min(seconds, (time.perf_counter() - started) / len(images))
        on_progress(len(images))
    low, high = calibration.likely_rates(SURE)
    return SelfCheck(
        len(scores),
        asked,
        held_rate(scores, asked, draw),
        low,
        high,
        found_half(SIZES, [found["size", size] for size in SIZES]),
        found_half(CONTRASTS, [found["contrast", contrast] for contrast in CONTRASTS]),
        1.0 / seconds,
    )


def held_rate(scores, asked, draw):
    """The share of one half of scores `[n]` above the threshold of the other, the mean over many halves; NaN for too few."""
    half = len(scores) // 2
    rank = largest_rank(half, asked)
    if not rank:
        return float("nan")
    rates = []
    for _ in range(HALVINGS):
        shuffled = draw.permutation(scores)
        rates.append(np.mean(shuffled[half:] > np.sort(shuffled[:half])[-rank]))
    return float(np.mean(rates))


def found_half(strengths, shares):
    """The strength at which half are found, between those that were tried on a logarithmic scale; None beyond the last.

    What is found of weak ones by chance doesn't count: from the strongest down, as long as half are found.
    """
    if shares[-1] < 0.5:
        return None
    last = len(shares) - 1
    while last and shares[last - 1] >= 0.5:
        last -= 1
    if not last:
        return float(strengths[0])
    part = (0.5 - shares[last - 1]) / (shares[last] - shares[last - 1])
    return float(np.exp(np.interp(part, (0, 1), np.log(strengths[last - 1 : last + 1]))))


def _read(source, rows):
    """Pixels `[h, w, c]` of some rows, without those that can't be read."""
    pictures = (source.read(*element) for element in source.elements(rows).as_numpy_iterator())
    return [picture.pixels for picture in pictures if picture.pixels is not None]

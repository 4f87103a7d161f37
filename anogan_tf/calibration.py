"""What held-out normal images teach: threshold, p-values, how large a normal residual is, and the loss of how busy an image."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf import maps

FALSE_POSITIVE_RATE = 0.05
VALUES_KEPT = 4096  # of the smoothed residual of each normal image
BUSIEST = 0.99  # share of normals up to whose complexity a line is followed
FLATTEST = 1e-4  # complexity below which images aren't told apart
ALIKE = 0.02  # deviation of log complexity; normals that differ less say little about what it costs
TERMS = ("surprise", "neighbours", "typicality")  # what may be added to a loss above its line, each with its weight
LEAST_SURPRISE = 1e-2  # nats; less is certainty
LEAST_LOSS = 1e-6  # of a reconstruction without a fault, so that it has a logarithm
LEAST_ALIKE = 30  # tiles at the same sides of their images that have a line of their own
WHOLE = 15  # all four sides: an image that isn't cut into tiles


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scores of held-out normals, and what follows from them.

    Attributes:
        scores: `[n]` float32, ascending.
        false_positive_rate: share of normal images that may be called anomalous.
        heat_low, heat_high: smoothed residuals that a heatmap shows as 0 and as 1.
        settings: of the search that gave the scores; with other settings the calibration is void.
        complexity: the `Complexity` that the scores are relative to, or None where they are losses.
    """

    scores: np.ndarray
    false_positive_rate: float
    heat_low: float
    heat_high: float
    settings: dict
    complexity: "Complexity | None" = None

    @classmethod
    def fit(
        cls,
        scores: np.ndarray,
        smoothed: "np.ndarray | list[np.ndarray]",
        false_positive_rate: float,
        settings: dict[str, Any],
        complexity: "Complexity | None" = None,
    ) -> "Calibration":
        """Learn from held-out normals.

        Args:
            scores: `[n]`.
            smoothed: n arrays, the smoothed residuals of each or `thinned` ones.
            false_positive_rate: between 0 and 1.
            settings: a dict.
            complexity: a `Complexity` or None.
        """
        check_count(len(scores), false_positive_rate)
        scores = np.sort(np.asarray(scores, np.float32))
        if not np.isfinite(scores).all():
            raise ValueError("Some of the calibration images have no finite score; the networks' weights may hold NaN.")
        # 0 is what 95% of normal pixels stay below, 1/2 the brightest spot of all but `false_positive_rate` of normal images.
        low = float(np.quantile(np.concatenate([np.ravel(one) for one in smoothed]), 0.95))
        half = float(np.quantile([np.max(one) for one in smoothed], 1.0 - false_positive_rate))
        return cls(scores, false_positive_rate, low, low + 2.0 * (half - low), dict(settings), complexity)

    @property
    def threshold(self) -> float:
        """An image is anomalous when its score is above this: the order statistic at which p <= false_positive_rate."""
        return float(self.scores[-largest_rank(len(self.scores), self.false_positive_rate)])

    def p_values(self, scores: tf.Tensor) -> tf.Tensor:
        """(1 + #{normals with this score or more}) / (n + 1), `[N]` float32, for scores `[N]`. TensorFlow ops only."""
        below = tf.searchsorted(tf.constant(self.scores), scores, side="left")
        count = len(self.scores)
        # Looked up, not divided: a graph's division can be a last bit off, and 1 is to be 1.
        return tf.gather(tf.constant((1.0 + np.arange(count, -1, -1)) / (count + 1.0), tf.float32), below)

    def is_anomaly(self, scores: tf.Tensor) -> tf.Tensor:
        """Whether p <= false_positive_rate, `[N]` bool. TensorFlow ops only."""
        return scores > self.threshold

    def heatmap(self, residual: tf.Tensor) -> tf.Tensor:
        """Residuals `[N, H, W, C]` smoothed, on the scale of normal images, `[N, H, W]` in [0, 1]. TensorFlow ops only."""
        return maps.heatmap(maps.smooth(residual), self.heat_low, self.heat_high)

    def get_config(self) -> dict[str, Any]:
        """JSON-ready; float32 survives it exactly."""
        return {**dataclasses.asdict(self), "scores": [float(score) for score in self.scores]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Calibration":
        scores, complexity = np.asarray(config["scores"], np.float32), config.get("complexity")
        complexity = complexity and Complexity.from_config(complexity)
        settings = {"score": "loss", **config["settings"]}  # files from before there was another
        return cls(**{**config, "scores": scores, "settings": settings, "complexity": complexity})


@dataclasses.dataclass(frozen=True)
class Complexity:
    """What loss a normal image leaves that is as busy, and a score relative to that.

    Edges and texture are hard to generate, normal or not: a busy normal image leaves a larger loss than a plain anomaly. So on
    held-out normals a line is fitted, log loss = intercept + slope * log `mean_variation`, and the score is how many standard
    deviations of these normals the logarithm of a loss lies above the line. Serra et al. 2020 (arXiv 1909.11480) correct
    likelihoods by the complexity of the input. Tiles have a line for each choice of sides of their image that they touch,
    since what an image shows at its edges is a thing of its own. The lines are fitted to the very normals that set the threshold,
    which makes their scores a little less spread than those of others: by some percent for 50 images.

    Where the discriminator was trained to tell transforms apart, how surprised it is by those of the image (the logarithm of its
    mean cross-entropy, standardised) is added with a weight. So is, for a detector with a `Memory`, how far the distance to the
    nearest normal images lies above a line of its own, fitted like that of the losses. And so may be how untypical the complexity
    itself is: the distance of its logarithm from the normals' mean, either way. The sum is brought to deviation 1.

    Attributes:
        intercepts, slopes, deviations: `[16]`, by `sides` (the sum of 1 top, 2 bottom, 4 left, 8 right); slopes are 0 or more.
        most: `[16]`, the log complexity of 99% of the normals: beyond, the line isn't followed.
        surprise: mean, standard deviation and weight of the log surprise, or None.
        neighbours: the `Complexity` of distances in place of losses, or None.
        neighbours_weight: of it.
        typicality: mean and standard deviation of the log complexity and the weight of its distance from that mean, or None.
        level, spread: mean and standard deviation over normal images of what the scores, or those of their tiles, come to.
    """

    intercepts: list
    slopes: list
    deviations: list
    most: list
    surprise: list | None = None
    neighbours: "Complexity | None" = None
    neighbours_weight: float = 0.0
    typicality: list | None = None
    level: float = 0.0
    spread: float = 1.0

    @classmethod
    def fit(cls, losses, complexities, sides, surprises=None, distances=None, *, surprise=1.0, neighbours=1.0, typicality=0.0):
        """Learn from held-out normals, or their tiles.

        Args:
            losses: `[T]`.
            complexities: `[T]`, see `mean_variation`.
            sides: `[T]` integers.
            surprises, distances: `[T]`, or None.
            surprise, neighbours, typicality: weights of these and of how untypical the complexities are.
        """
        x = np.log(np.asarray(complexities, np.float64))
        y = np.log(np.maximum(np.asarray(losses, np.float64), LEAST_LOSS))
        lines = [_line(x, y)] * (WHOLE + 1)
        for side in np.unique(sides):
            members = np.asarray(sides) == side
            if members.sum() >= LEAST_ALIKE:
                lines[side] = _line(x[members], y[members])
        intercepts, slopes, deviations, most = (list(values) for values in zip(*lines))
        return cls(
            intercepts,
            slopes,
            deviations,
            most,
            surprise=None if surprises is None else _standard(np.log(np.add(surprises, LEAST_SURPRISE, dtype=float)), surprise),
            neighbours=None if distances is None else cls.fit(distances, complexities, sides),
            neighbours_weight=float(neighbours),
            typicality=_standard(x, typicality) if typicality else None,
        )

    @classmethod
    def from_config(cls, config):
        neighbours = config.get("neighbours")
        return cls(**{**config, "neighbours": neighbours and cls(**neighbours)})

    def of_tiles(self, losses, complexities, sides, surprises=None, distances=None):
        """Scores `[T]` of tiles, or whole images, from what `fit` takes. TensorFlow ops only."""
        line = tf.gather(tf.constant(np.stack([self.intercepts, self.slopes, self.most], axis=1), tf.float32), sides)
        expected = line[:, 0] + line[:, 1] * tf.minimum(tf.math.log(complexities), line[:, 2])
        scale = tf.gather(tf.constant(1.0 / np.asarray(self.deviations), tf.float32), sides)
        scores = (tf.math.log(tf.maximum(losses, LEAST_LOSS)) - expected) * scale
        if self.surprise is not None:
            mean, deviation, weight = self.surprise
            scores += (tf.math.log(surprises + LEAST_SURPRISE) - mean) * (weight / deviation)
        if self.neighbours is not None:
            scores += self.neighbours_weight * self.neighbours.of_tiles(distances, complexities, sides)
        if self.typicality is not None:
            mean, deviation, weight = self.typicality
            scores += tf.abs(tf.math.log(complexities) - mean) * (weight / deviation)
        return scores

    def of_images(self, pooled):
        """Scores `[N]` of images from the pooled ones of their tiles, or from their own. TensorFlow ops only."""
        return (pooled - self.level) * (1.0 / self.spread)

    def pooled_to(self, pooled):
        """This, with the pooled scores of normal images at mean 0 and deviation 1."""
        return dataclasses.replace(self, level=float(np.mean(pooled)), spread=max(float(np.std(pooled)), 1e-6))


def mean_variation(images):
    """How busy images `[N, H, W, C]` are, `[N]`: the mean over pixels of |differences| from the next, across and down.

    TensorFlow ops only.
    """
    return tf.image.total_variation(images) * (1.0 / images.shape[1:].num_elements()) + FLATTEST


def _line(x, y):
    """`(intercept, slope, standard deviation, where it ends)` of y over x, flatter where the x are alike (ridge regression)."""
    most = float(np.quantile(x, BUSIEST))
    x = np.minimum(x, most)
    slope = max(0.0, float(np.cov(x, y, bias=True)[0, 1] / (x.var() + ALIKE**2)))
    rest = y - slope * x
    return float(rest.mean()), slope, max(float(rest.std()), 1e-6), most


def _standard(logs, weight):
    return [float(np.mean(logs)), max(float(np.std(logs)), 1e-6), float(weight)]


def thinned(smoothed):
    """Of a smoothed residual what `Calibration.fit` needs, in bounded memory: evenly spaced values, and the largest."""
    values = np.ravel(smoothed)
    step = -(-len(values) // VALUES_KEPT)
    return values if step == 1 else np.append(values[::step], values.max())


def largest_rank(count, false_positive_rate):
    """Largest k with k / (count + 1) <= rate: an image above the k-th largest normal score has p <= rate."""
    # The tolerance keeps 0.05 * 20 at 1 where floating point falls below.
    return math.floor(false_positive_rate * (count + 1) + 1e-9)


def check_count(count, false_positive_rate):
    """Raise a ValueError unless so many normals can hold the rate."""
    if not 0.0 < false_positive_rate < 1.0:
        raise ValueError(f"false_positive_rate={false_positive_rate} must lie between 0 and 1.")
    if largest_rank(count, false_positive_rate) < 1:
        needed = math.ceil(1.0 / false_positive_rate - 1.0 - 1e-9)
        raise ValueError(
            f"{count} normal images are too few for false_positive_rate={false_positive_rate}: at least {needed} are needed. "
            "Pass more images that were not trained on, or a larger rate."
        )

"""A score relative to normal images as busy: what loss a complexity explains, and what else is unusual, in deviations."""

import dataclasses

import numpy as np
import tensorflow as tf

BUSIEST = 0.99  # share of normals up to whose complexity a line is followed
MIN_COMPLEXITY = 1e-4  # complexity below which images aren't told apart
ALIKE = 0.02  # deviation of log complexity; normals that differ less say little about what it costs
MIN_PRETEXT_LOSS = 1e-2  # nats; less is certainty
MIN_LOSS = 1e-6  # of a reconstruction without a fault, so that it has a logarithm
MIN_TILES_ALIKE = 30  # tiles at the same borders of their images that have a line of their own
ALL_BORDERS = 15  # an image that isn't cut into tiles
NO_WEIGHTS = {
    "pretext": 0.0,
    "neighbours": 0.0,
    "complexity_deviation": 0.0,
    "anomaly_map": 0.0,
}  # of what may be added to a loss above its line


@dataclasses.dataclass(frozen=True)
class Complexity:
    """What loss a normal image leaves that is as busy, and a score relative to that.

    Edges and texture are hard to generate, normal or not: a busy normal image leaves a larger loss than a plain anomaly. So on
    held-out normals a line is fitted, log loss = intercept + slope * log `image_complexity`, and the score is how many standard
    deviations of these normals the logarithm of a loss lies above the line. Serra et al. 2020 (arXiv 1909.11480) correct
    likelihoods by the complexity of the input. Tiles have a line for each choice of borders of their image that they touch,
    since what an image shows at its edges is a thing of its own. The lines are fitted to the very normals that set the threshold,
    which makes their scores a little less spread than those of others: by some percent for 50 images.

    Where the discriminator was trained to tell transforms apart, its loss in that pretext task (the logarithm of its mean
    cross-entropy, standardized) is added with a weight. So is, for a detector with a `MemoryBank`, how far the distance to the
    nearest normal images lies above a line of its own, fitted like that of the losses. And so may be how untypical the complexity
    itself is: the distance of its logarithm from the normals' mean, either way. The sum is brought to deviation 1. What an
    image's anomaly map comes to is added to that, and the sum brought to deviation 1 again. Where images are cut into tiles it is
    the score by itself: their loss is in the map, at its place, and pooled over tiles it tells little (benchmarks).

    Attributes:
        intercepts, slopes, deviations: `[16]` each, by `borders` (the sum of 1 top, 2 bottom, 4 left, 8 right); slopes are 0
            or more.
        max_complexity: `[16]`, the log complexity of 99% of the normals: beyond, the line isn't followed.
        pretext: mean, standard deviation and weight of the log pretext loss, or None.
        neighbours: the `Complexity` of distances in place of losses, or None.
        neighbours_weight: the weight of the neighbours' deviations.
        complexity_deviation: mean and standard deviation of the log complexity, and the weight of the distance from that mean,
            or None.
        mean, std: over normal images, of what the scores, or those of their tiles, come to.
        anomaly_map: mean and standard deviation over normal images of what their anomaly maps come to, and its weight, or None.
        map_alone: whether that is all of the score.
        spread: the standard deviation of the sum with it.
    """

    intercepts: list
    slopes: list
    deviations: list
    max_complexity: list
    pretext: list | None = None
    neighbours: "Complexity | None" = None
    neighbours_weight: float = 0.0
    complexity_deviation: list | None = None
    mean: float = 0.0
    std: float = 1.0
    anomaly_map: list | None = None
    map_alone: bool = False
    spread: float = 1.0

    @classmethod
    def fit(cls, loss, complexity, borders, pretext=None, neighbours=None, weights=NO_WEIGHTS):
        """Learn from held-out normals, or their tiles.

        Args:
            loss: `[T]`.
            complexity: `[T]`, see `image_complexity`.
            borders: `[T]` integers.
            pretext, neighbours: `[T]`, pretext losses and distances, or None.
            weights: a dict of the weights of pretext, neighbours and complexity_deviation, as in `NO_WEIGHTS`.
        """
        x = np.log(np.asarray(complexity, np.float64))
        y = np.log(np.maximum(np.asarray(loss, np.float64), MIN_LOSS))
        lines = [_line(x, y)] * (ALL_BORDERS + 1)
        for border in np.unique(borders):
            members = np.asarray(borders) == border
            if members.sum() >= MIN_TILES_ALIKE:
                lines[border] = _line(x[members], y[members])
        intercepts, slopes, deviations, ends = (list(values) for values in zip(*lines))
        if pretext is not None:
            pretext = _standard(np.log(np.add(pretext, MIN_PRETEXT_LOSS, dtype=float)), weights["pretext"])
        deviation = weights["complexity_deviation"]
        return cls(
            intercepts,
            slopes,
            deviations,
            ends,
            pretext=pretext,
            neighbours=None if neighbours is None else cls.fit(neighbours, complexity, borders),
            neighbours_weight=float(weights["neighbours"]),
            complexity_deviation=_standard(x, deviation) if deviation else None,
        )

    @classmethod
    def from_config(cls, config):
        """From what `dataclasses.asdict` made of one."""
        neighbours = config.get("neighbours")
        return cls(**{**config, "neighbours": neighbours and cls(**neighbours)})

    def score_tiles(self, loss, complexity, borders, pretext=None, neighbours=None):
        """Scores `[T]` of tiles, or whole images, from what `fit` takes. TensorFlow ops only."""
        line = tf.gather(tf.constant(np.stack([self.intercepts, self.slopes, self.max_complexity], axis=1), tf.float32), borders)
        expected = line[:, 0] + line[:, 1] * tf.minimum(tf.math.log(complexity), line[:, 2])
        scale = tf.gather(tf.constant(1.0 / np.asarray(self.deviations), tf.float32), borders)
        scores = (tf.math.log(tf.maximum(loss, MIN_LOSS)) - expected) * scale
        if self.pretext is not None:
            mean, deviation, weight = self.pretext
            scores += (tf.math.log(pretext + MIN_PRETEXT_LOSS) - mean) * (weight / deviation)
        if self.neighbours is not None:
            scores += self.neighbours_weight * self.neighbours.score_tiles(neighbours, complexity, borders)
        if self.complexity_deviation is not None:
            mean, deviation, weight = self.complexity_deviation
            scores += tf.abs(tf.math.log(complexity) - mean) * (weight / deviation)
        return scores

    def normalize(self, pooled, mapped=None):
        """Scores `[N]` of images from the pooled ones of their tiles, or from their own. TensorFlow ops only.

        Args:
            pooled: `[N]`.
            mapped: `[N]`, what their anomaly maps come to, where that was learned.
        """
        # One factor each: a graph makes one of two, and its last bit would not be that of `calibrate`.
        scores = (pooled - self.mean) * (1.0 / (self.std * self.spread))
        if self.anomaly_map is None:
            return scores
        mean, deviation, weight = self.anomaly_map
        of_map = (mapped - mean) * (weight / (deviation * self.spread))
        return of_map if self.map_alone else scores + of_map

    def with_normalization(self, pooled, mapped=None, weight=0.0, map_alone=False):
        """This, with the scores `[N]` of normal images at mean 0 and deviation 1; arguments as for `normalize`."""
        own = dataclasses.replace(self, mean=float(np.mean(pooled)), std=max(float(np.std(pooled)), 1e-6))
        if mapped is None or not weight:
            return own
        own = dataclasses.replace(own, anomaly_map=_standard(mapped, weight), map_alone=map_alone)
        return dataclasses.replace(own, spread=max(float(np.std(own.normalize(np.asarray(pooled), np.asarray(mapped)))), 1e-6))


def image_complexity(images):
    """How busy images `[N, H, W, C]` are, `[N]`: the mean over pixels of |differences| from the next, across and down.

    TensorFlow ops only.
    """
    return tf.image.total_variation(images) * (1.0 / images.shape[1:].num_elements()) + MIN_COMPLEXITY


def _line(x, y):
    """`(intercept, slope, standard deviation, where it ends)` of y over x, flatter where the x are alike (ridge regression)."""
    end = float(np.quantile(x, BUSIEST))
    x = np.minimum(x, end)
    slope = max(0.0, float(np.cov(x, y, bias=True)[0, 1] / (x.var() + ALIKE**2)))
    rest = y - slope * x
    return float(rest.mean()), slope, max(float(rest.std()), 1e-6), end


def _standard(values, weight):
    """`[mean, standard deviation, weight]`."""
    return [float(np.mean(values)), max(float(np.std(values)), 1e-6), float(weight)]

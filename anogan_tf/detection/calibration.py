"""What held-out normal images teach: threshold, p-values, how large a normal residual is, and the loss of how busy an image."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import stats

from anogan_tf.data.batching import unpad
from anogan_tf.detection import maps
from anogan_tf.detection.anomaly_map import PIXELS_FOR_SCALE, MapScale, map_each
from anogan_tf.detection.complexity import Complexity
from anogan_tf.detection.terms import ScoreTerms, pool_scores

FALSE_POSITIVE_RATE = 0.05
VALUES_KEPT = 4096  # of the anomaly map of each normal image
FEW = 50  # images; of fewer each is scored by what the others teach


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Scores of held-out normals, and what follows from them.

    Attributes:
        scores: `[n]` float32, ascending.
        false_positive_rate: share of normal images that may be called anomalous.
        heat_low, heat_high: values of an anomaly map that a heatmap shows as 0 and as 1.
        settings: of the search that gave the scores; with other settings the calibration is void.
        complexity: the `Complexity` that the scores are relative to, or None where they are losses.
        map_scale: the `MapScale` of a detector with a comparator, or None where anomaly maps are smoothed residuals.
    """

    scores: np.ndarray
    false_positive_rate: float
    heat_low: float
    heat_high: float
    settings: dict
    complexity: "Complexity | None" = None
    map_scale: "MapScale | None" = None

    @classmethod
    def fit(
        cls,
        scores: np.ndarray,
        anomaly_maps: "np.ndarray | list[np.ndarray]",
        false_positive_rate: float,
        settings: dict[str, Any],
        complexity: "Complexity | None" = None,
        map_scale: "MapScale | None" = None,
    ) -> "Calibration":
        """Learn from held-out normals.

        Args:
            scores: `[n]`.
            anomaly_maps: n arrays, or what `subsample` keeps of them.
            false_positive_rate: between 0 and 1.
            settings: a dict.
            complexity, map_scale: as in the class.
        """
        check_count(len(scores), false_positive_rate)
        scores = np.sort(np.asarray(scores, np.float32))
        if not np.isfinite(scores).all():
            raise ValueError("Some of the calibration images have no finite score; the networks' weights may hold NaN.")
        # 0 is what 95% of normal pixels stay below, 1/2 the brightest spot of all but `false_positive_rate` of normal images.
        low = float(np.quantile(np.concatenate([np.ravel(one) for one in anomaly_maps]), 0.95))
        half = float(np.quantile([np.max(one) for one in anomaly_maps], 1.0 - false_positive_rate))
        return cls(scores, false_positive_rate, low, low + 2.0 * (half - low), dict(settings), complexity, map_scale)

    @property
    def threshold(self) -> float:
        """An image is anomalous when its score is above this: the order statistic at which p <= false_positive_rate."""
        return float(self.scores[-largest_rank(len(self.scores), self.false_positive_rate)])

    def likely_rates(self, sure: float) -> tuple[float, float]:
        """Between which the false-positive rate on other normal images of the same kind lies, with a probability of `sure`.

        The k-th largest of n scores is the threshold; the share of all normal images above it is then distributed as
        Beta(k, n + 1 - k).
        """
        rank = largest_rank(len(self.scores), self.false_positive_rate)
        low, high = stats.beta.interval(sure, rank, len(self.scores) + 1 - rank)
        return float(low), float(high)

    def p_values(self, scores: tf.Tensor) -> tf.Tensor:
        """(1 + #{normals with this score or more}) / (n + 1), `[N]` float32, for scores `[N]`. TensorFlow ops only."""
        below = tf.searchsorted(tf.constant(self.scores), scores, side="left")
        count = len(self.scores)
        # Looked up, not divided: a graph's division can be a last bit off, and 1 is to be 1.
        return tf.gather(tf.constant((1.0 + np.arange(count, -1, -1)) / (count + 1.0), tf.float32), below)

    def is_anomaly(self, scores: tf.Tensor) -> tf.Tensor:
        """Whether p <= false_positive_rate, `[N]` bool. TensorFlow ops only."""
        return scores > self.threshold

    def heatmap(self, anomaly_map: tf.Tensor) -> tf.Tensor:
        """Anomaly maps on the scale of normal images, in [0, 1]. TensorFlow ops only."""
        return maps.heatmap(anomaly_map, self.heat_low, self.heat_high)

    def get_config(self) -> dict[str, Any]:
        """JSON-ready; float32 survives it exactly."""
        return {**dataclasses.asdict(self), "scores": [float(score) for score in self.scores]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Calibration":
        scores, complexity = np.asarray(config["scores"], np.float32), config.get("complexity")
        complexity = complexity and Complexity.from_config(complexity)
        scale = config.get("map_scale")
        return cls(**{**config, "scores": scores, "complexity": complexity, "map_scale": scale and MapScale(**scale)})


def subsample(anomaly_map):
    """Of an anomaly map what `Calibration.fit` needs, in bounded memory: evenly spaced values, and the largest."""
    values = np.ravel(anomaly_map)
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


class CalibrationRun:
    """What is gathered of held-out normals, batch by batch, until a `Calibration` follows from it.

    Args:
        settings: `ScoreSettings`.
        tiling: a `Tiling`, or None.
        block: as in `ExecutionSettings`.
        of_terms: whether what maps are made of is gathered, and not the maps.
    """

    def __init__(self, settings, tiling, block, of_terms=False):
        self._settings, self._tiling, self._block, self._of_terms = settings, tiling, block, of_terms
        self._scale: MapScale | None = None
        self._terms: list[ScoreTerms] = []
        self._waiting: list[tuple] = []  # maps and sizes of batches, until there are enough for the scale
        self._mapped: list[np.ndarray] = []
        self._maps: list[np.ndarray] = []

    def update(self, terms, maps, sizes):
        """Add a batch: its `ScoreTerms`, and its maps `[N, H, W, ...]`, of which `sizes` `[N, 2]` are image.

        Maps are anomaly maps `[N, H, W, 1]`, or their terms `[N, H, W, 3]` where the scale of those is to be learned too.
        """
        self._terms.append(terms)
        if not self._of_terms:
            self._keep(maps, sizes)
            return
        self._waiting.append((maps, sizes))
        if self._scale or sum(maps[..., 0].size for maps, _ in self._waiting) > PIXELS_FOR_SCALE:
            self._combine()

    def compute(self, settings, false_positive_rate):
        """The `Calibration`; `settings` is the dict of those that it holds for."""
        if not self._terms:
            raise ValueError("There are no images to calibrate on.")
        self._combine()
        if self._settings.score != "complexity":
            return Calibration.fit(self._pooled(None), self._maps, false_positive_rate, settings, None, self._scale)
        complexity = self._learn()
        count = len(self._maps)
        scores = self._pooled(complexity, self._mapped) if count >= FEW else self._scores_by_others(count)
        return Calibration.fit(scores, self._maps, false_positive_rate, settings, complexity, self._scale)

    def _learn(self, without=None):
        """The `Complexity` of all images, or of all but one."""
        columns = [terms.columns() for terms in self._terms]
        joined = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
        if without is not None:
            counts = [int(terms.segment_ids[-1]) + 1 for terms in self._terms]  # each image has a tile at least
            firsts = np.cumsum([0, *counts])
            owners = np.concatenate([first + np.asarray(terms.segment_ids) for first, terms in zip(firsts, self._terms)])
            joined = {name: values[owners != without] for name, values in joined.items()}
        complexity = Complexity.fit(**joined, weights=self._settings.weights)
        pooled, mapped = self._pooled(complexity), np.concatenate(self._mapped) if self._mapped else None
        if without is not None:
            pooled, mapped = (None if values is None else np.delete(values, without) for values in (pooled, mapped))
        weighed = {"weight": self._settings.anomaly_map, "map_alone": self._tiling is not None}
        return complexity.with_normalization(pooled, mapped, **weighed)

    def _scores_by_others(self, count):
        """`[count]`, each image's score by the `Complexity` of the others (jackknife+, Barber et al. 2021).

        Of few images its own lines would lie too near to each of them, and what is new would score higher.
        """
        return np.stack([self._pooled(self._learn(without=image), self._mapped)[image] for image in range(count)])

    def _combine(self):
        """Make maps of the terms that wait."""
        if not self._waiting:
            return
        if self._scale is None:
            pixels = [one.reshape(-1, one.shape[-1]) for batch in self._waiting for one in unpad(*batch)]
            self._scale = MapScale.fit(np.concatenate(pixels), self._settings.map_weights)
        for terms, sizes in self._waiting:
            maps, numbers = map_each(self._scale.combine, (tf.constant(terms),), tf.constant(sizes), self._tiling, self._block, 1)
            self._mapped.append(numbers.numpy())
            self._keep(maps.numpy(), sizes)
        self._waiting.clear()

    def _keep(self, maps, sizes):
        self._maps += map(subsample, unpad(maps, sizes))

    def _pooled(self, complexity, mapped=None):
        mapped = mapped or [None] * len(self._terms)
        return np.concatenate(
            [pool_scores(terms, complexity, self._tiling, self._block, each)[0] for terms, each in zip(self._terms, mapped)]
        )

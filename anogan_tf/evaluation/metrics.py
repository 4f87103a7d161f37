"""How well scores tell anomalies from normals, and maps the pixels of anomalies from the others."""

from typing import Any

import numpy as np
from scipy import ndimage
from sklearn import metrics

from anogan_tf.runtime.types import Array

BOOTSTRAP_SAMPLES = 1000  # of a bootstrap
CONFIDENCE = (0.025, 0.975)
PRO_LIMIT = 0.3  # of the false-positive rate (Bergmann et al. 2021, section 5)
_DROPPED_BITS = 12  # of a float's 23 of the fraction: bins of pixels are 0.05% wide
_BINS = 1 << (32 - _DROPPED_BITS)


def auroc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve: the share of (anomaly, normal) pairs that the scores put in order.

    Args:
        labels: `[N]`, 1 anomaly, 0 normal; both must occur.
        scores: `[N]`, higher is more anomalous.
    """
    _check_labels(labels)
    return float(metrics.roc_auc_score(labels, scores))


def auprc(labels: Array, scores: Array) -> float:
    """Area under the precision-recall curve, as average precision; chance is the share of anomalies. Arguments as for `auroc`."""
    _check_labels(labels)
    return float(metrics.average_precision_score(labels, scores))


def best_f1(labels, scores):
    """`(F1, threshold)`: the highest F1 of any threshold, and the lowest score that is then called anomalous.

    It has seen the labels: no threshold that is set without them can do better. Arguments as for `auroc`.
    """
    _check_labels(labels)
    precision, recall, thresholds = metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))
    return float(f1[best]), float(thresholds[best])


def roc_curve(labels, scores):
    """`(false-positive rate, true-positive rate)`, two ascending arrays from 0 to 1."""
    _check_labels(labels)
    false_positives, true_positives, _ = metrics.roc_curve(labels, scores)
    return false_positives, true_positives


def precision_recall_curve(labels, scores):
    """`(recall, precision)`, by descending threshold: recall ascends from 0 to 1."""
    _check_labels(labels)
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    return recall[::-1], precision[::-1]


def confusion(labels, flagged):
    """What became of the images, as counts: a dict of true_positive, false_negative, false_positive and true_negative.

    Args:
        labels: `[N]`, 1 anomaly, 0 normal.
        flagged: `[N]`, whether each was called anomalous.
    """
    (true_negative, false_positive), (false_negative, true_positive) = metrics.confusion_matrix(
        labels, np.asarray(flagged, int), labels=(0, 1)
    )
    counts = (true_positive, false_negative, false_positive, true_negative)
    return dict(zip(("true_positive", "false_negative", "false_positive", "true_negative"), map(int, counts)))


def f1_score(labels, flagged):
    """2 TP / (2 TP + FP + FN); 0 where nothing is flagged. Arguments as for `confusion`."""
    return float(metrics.f1_score(labels, np.asarray(flagged, int), zero_division=0.0))


def rates(labels, flagged):
    """`(false-positive rate, true-positive rate)` of one threshold. Arguments as for `confusion`."""
    counts = confusion(labels, flagged)
    negatives = counts["false_positive"] + counts["true_negative"]
    positives = counts["true_positive"] + counts["false_negative"]
    return counts["false_positive"] / max(negatives, 1), counts["true_positive"] / max(positives, 1)


def image_metrics(
    labels: Array, scores: Array, flagged: Array, samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Every number of images, with the 95% interval of a bootstrap over images (normals and anomalies drawn by themselves).

    Args:
        labels: `[N]`, 1 anomaly, 0 normal; both must occur.
        scores: `[N]`, higher is more anomalous.
        flagged: `[N]`, whether each was called anomalous at the calibrated threshold.
        samples: of the bootstrap.
        seed: of the samples.

    Returns:
        A dict of `(value, low, high)` by name, for auroc, auprc, best_f1, f1, false_positive_rate and true_positive_rate.
    """
    labels, scores, flagged = np.asarray(labels, int), np.asarray(scores), np.asarray(flagged, bool)
    values = (auroc(labels, scores), auprc(labels, scores), best_f1(labels, scores)[0], f1_score(labels, flagged))
    values += rates(labels, flagged)
    # By counts of equal scores, highest first: a thousand samples need no thousand sorts.
    _, ranks = np.unique(-scores, return_inverse=True)
    drawn = (_counted_metrics(labels[rows], ranks[rows], flagged[rows]) for rows in resamples(labels, samples, seed))
    low, high = np.quantile(list(drawn), CONFIDENCE, axis=0)
    names = ("auroc", "auprc", "best_f1", "f1", "false_positive_rate", "true_positive_rate")
    return {name: (value, float(least), float(most)) for name, value, least, most in zip(names, values, low, high)}


def _counted_metrics(labels, ranks, flagged):
    """The numbers of `image_metrics` from the ranks of the scores, 0 the highest, equal ones alike."""
    by_rank = (np.bincount(ranks[labels == label], minlength=ranks.max() + 1) for label in (1, 0))
    true_positives, false_positives = (np.cumsum(counts) for counts in by_rank)
    positives, negatives = true_positives[-1], false_positives[-1]
    area = metrics.auc(np.append(0, false_positives) / negatives, np.append(0, true_positives) / positives)
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    average = np.sum(np.diff(true_positives, prepend=0) * precision) / positives
    best = np.max(2 * true_positives / (positives + true_positives + false_positives))
    found, false = (flagged & (labels == 1)).sum(), (flagged & (labels == 0)).sum()
    return area, average, best, 2 * found / (positives + found + false), false / negatives, found / positives


def resamples(labels, samples=BOOTSTRAP_SAMPLES, seed=0):
    """Yield rows drawn with replacement, normals and anomalies by themselves: a sample keeps their numbers."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(np.asarray(labels) == label) for label in (0, 1)]
    for _ in range(samples):
        yield np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])


def auroc_change(labels, before, after, samples=2 * BOOTSTRAP_SAMPLES, seed=0):
    """How the AUROC changes from one scoring of the same images to another: a paired bootstrap.

    Args:
        labels: `[N]`, 0 normal, 1 anomalous.
        before, after: `[N]` scores, higher is more anomalous.
        samples: bootstrap samples of images; both scorings are compared on each.
        seed: of the samples.

    Returns:
        `(change, low, high)`: the change on all images, and its 95% interval.
    """
    labels, before, after = (np.asarray(values) for values in (labels, before, after))
    changes = [auroc(labels[rows], after[rows]) - auroc(labels[rows], before[rows]) for rows in resamples(labels, samples, seed)]
    low, high = np.quantile(changes, CONFIDENCE)
    return auroc(labels, after) - auroc(labels, before), float(low), float(high)


class PixelMetrics:
    """How well maps find the pixels of anomalies, over any number of maps of any size, in 24 MB.

    >>> pixels = PixelMetrics()
    >>> for scores, mask in maps:
    ...     pixels.add(scores, mask)
    >>> pixels.auroc(), pixels.auprc(), pixels.pro()

    Pixels are counted by their score, in bins that follow the bits of a float32: each is 0.05% of its score wide, whatever
    the range. So no map is kept, and no range has to be known before.
    """

    def __init__(self) -> None:
        self._normal, self._anomalous = np.zeros((2, _BINS), np.int64)
        self._overlap = np.zeros(_BINS)  # pixels of regions, each weighted by 1 / the region's size
        self.regions = 0

    def add(self, scores: Array, mask: Array | None = None) -> None:
        """Count the pixels of one map.

        Args:
            scores: `[H, W]`, higher is more anomalous; finite.
            mask: `[H, W]` bool, true where the anomaly is; None for a map without any.

        Raises:
            ValueError: if a score isn't finite, or the mask has another shape.
        """
        scores = np.asarray(scores, np.float32)
        if not np.isfinite(scores).all():
            raise ValueError("a map holds NaN or infinity.")
        bins = _bins(scores)
        if mask is None:
            _count(self._normal, bins.ravel())
            return
        mask = np.asarray(mask, bool)
        if mask.shape != scores.shape:
            raise ValueError(f"the mask has shape {mask.shape}, the map {scores.shape}.")
        _count(self._normal, bins[~mask])
        _count(self._anomalous, bins[mask])
        # Pixels that touch at a corner are of one region, as in the reference implementation.
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        weights = 1.0 / np.maximum(np.bincount(regions.ravel()), 1)
        np.add.at(self._overlap, bins[mask], weights[regions[mask]])
        self.regions += count

    def __add__(self, other):
        """The pixels of both."""
        both = PixelMetrics()
        both._normal, both._anomalous = self._normal + other._normal, self._anomalous + other._anomalous
        both._overlap, both.regions = self._overlap + other._overlap, self.regions + other.regions
        return both

    @property
    def complete(self):
        """Whether there are pixels of both kinds; without them there is nothing to measure."""
        return bool(self.regions and self._normal.any())

    def auroc(self) -> float:
        """Area under the ROC curve of pixels."""
        false_positives, true_positives = self._curve(self._normal), self._curve(self._anomalous)
        return float(metrics.auc(false_positives, true_positives))

    def auprc(self) -> float:
        """Area under the precision-recall curve of pixels, as average precision."""
        true_positives, false_positives = (np.cumsum(counts[::-1]) for counts in (self._anomalous, self._normal))
        precision = true_positives / np.maximum(true_positives + false_positives, 1)
        return float(np.sum(precision * self._anomalous[::-1]) / self._total(self._anomalous))

    def pro(self, limit: float = PRO_LIMIT) -> float:
        """Per-region overlap: the mean share of a region that is found, so that small regions count like large ones.

        The area under its curve over the false-positive rate of pixels, up to `limit` and divided by it (Bergmann et al. 2021,
        "The MVTec Anomaly Detection Dataset", section 5). 1 is perfect, `limit` / 2 is chance.
        """
        false_positives, overlap = self._curve(self._normal), self._curve(self._overlap)
        within = false_positives <= limit
        rates = np.append(false_positives[within], limit)
        overlaps = np.append(overlap[within], np.interp(limit, false_positives, overlap))
        return float(metrics.auc(rates, overlaps) / limit)

    def _curve(self, counts):
        """The share of `counts` at or above each threshold, from the highest on: from 0 to 1."""
        return np.append(0.0, np.cumsum(counts[::-1]) / self._total(counts))

    def _total(self, counts):
        if not self.complete:
            raise ValueError("There must be pixels of anomalies, by masks, and normal ones.")
        return counts.sum()


def _bins(scores):
    """The bin of each float32 score: in the order of the scores, of either sign."""
    bits = (scores + np.float32(0.0)).view(np.uint32)  # -0 becomes 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> _DROPPED_BITS).astype(np.int64)


def _count(counts, bins):
    """Add 1 to the count of each bin."""
    if len(bins) < _BINS // 16:
        np.add.at(counts, bins, 1)
    else:
        counts += np.bincount(bins, minlength=_BINS)


def _check_labels(labels):
    found = set(np.unique(labels).tolist())
    if found != {0, 1}:
        raise ValueError(f"labels hold {sorted(found)}; both 0 (normal) and 1 (anomaly) must occur, and nothing else.")

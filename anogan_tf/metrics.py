"""How well scores tell anomalies from normals."""

import numpy as np
from sklearn import metrics


def auroc(labels, scores):
    """Area under the ROC curve: the share of (anomaly, normal) pairs that the scores put in order.

    Args:
        labels: `[N]`, 1 anomaly, 0 normal; both must occur.
        scores: `[N]`, higher is more anomalous.
    """
    _check_labels(labels)
    return float(metrics.roc_auc_score(labels, scores))


def roc_curve(labels, scores):
    """`(false-positive rate, true-positive rate)`, two ascending arrays from 0 to 1."""
    _check_labels(labels)
    false_positives, true_positives, _ = metrics.roc_curve(labels, scores)
    return false_positives, true_positives


def _check_labels(labels):
    found = set(np.unique(labels).tolist())
    if found != {0, 1}:
        raise ValueError(f"labels hold {sorted(found)}; both 0 (normal) and 1 (anomaly) must occur, and nothing else.")


def auroc_change(labels, before, after, samples=2000, seed=0):
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
    rng, changes = np.random.default_rng(seed), []
    kinds = [np.flatnonzero(labels == label) for label in (0, 1)]
    for _ in range(samples):
        # Normals and anomalies by themselves: a sample keeps their numbers.
        rows = np.concatenate([rng.choice(kind, len(kind)) for kind in kinds])
        changes.append(auroc(labels[rows], after[rows]) - auroc(labels[rows], before[rows]))
    low, high = np.quantile(changes, [0.025, 0.975])
    return auroc(labels, after) - auroc(labels, before), float(low), float(high)

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

import numpy as np
import pytest

from anogan_tf import metrics


def test_auroc_is_the_share_of_ordered_pairs():
    labels, scores = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8, 0.4])
    pairs = [(scores[a] > scores[n]) + 0.5 * (scores[a] == scores[n]) for a in (2, 3, 4) for n in (0, 1)]
    np.testing.assert_allclose(metrics.auroc(labels, scores), np.mean(pairs))


def test_roc_curve_ends_at_the_corners():
    false_positives, true_positives = metrics.roc_curve([0, 1, 0, 1], [0.1, 0.9, 0.5, 0.4])
    assert (false_positives[0], true_positives[0], false_positives[-1], true_positives[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [0, 2]])
def test_labels_of_one_kind_are_an_error(labels):
    with pytest.raises(ValueError, match="both 0 .normal. and 1 .anomaly."):
        metrics.auroc(labels, [0.1, 0.2])


def test_auroc_change_between_paired_scores():
    labels = np.repeat([0, 1], 100)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=200) + labels
    change, low, high = metrics.auroc_change(labels, scores, scores, samples=50)
    assert (change, low, high) == (0.0, 0.0, 0.0)
    change, low, high = metrics.auroc_change(labels, scores, scores + labels, samples=200)
    assert change == pytest.approx(metrics.auroc(labels, scores + labels) - metrics.auroc(labels, scores))
    assert 0.0 < low < change < high < 0.35
    # paired: a noise that both share doesn't widen the interval
    assert high - low < 0.15

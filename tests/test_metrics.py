import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from anogan_tf.evaluation import metrics


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


def test_f1_and_rates_by_counting():
    labels, flagged = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([1, 0, 0, 0, 1, 1, 0])
    counts = {"true_positive": 2, "false_negative": 1, "false_positive": 1, "true_negative": 3}
    assert metrics.confusion(labels, flagged) == counts
    assert metrics.f1_score(labels, flagged) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert metrics.rates(labels, flagged) == (pytest.approx(1 / 4), pytest.approx(2 / 3))
    assert metrics.f1_score(labels, np.zeros(7)) == 0.0


def test_the_best_threshold_is_a_score_that_is_flagged():
    labels, scores = np.array([0, 0, 1, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    f1, threshold = metrics.best_f1(labels, scores)
    assert threshold == 3.0
    assert f1 == metrics.f1_score(labels, scores >= threshold) == max(metrics.f1_score(labels, scores >= s) for s in scores)


def test_intervals_hold_the_value_and_narrow_with_the_images():
    def measured(count):
        rng = np.random.default_rng(0)
        labels = np.repeat([0, 1], count)
        scores = rng.normal(size=2 * count) + labels
        return metrics.image_metrics(labels, scores, scores > 1.0, samples=100)

    few, many = measured(30), measured(600)
    for name, (value, low, high) in few.items():
        assert low <= value <= high, name
        assert many[name][2] - many[name][1] < high - low, name


def test_the_width_of_an_interval():
    """Against Hanley and McNeil's standard error of an AUROC (1982)."""
    rng, count = np.random.default_rng(0), 150
    labels = np.repeat([0, 1], count)
    scores = rng.normal(size=2 * count) + labels
    area, low, high = metrics.image_metrics(labels, scores, scores > 1.0, samples=300)["auroc"]
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = np.sqrt((area * (1 - area) + (count - 1) * (q1 + q2 - 2 * area**2)) / count**2)
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.2)


def drawn_maps(count=12, seed=0):
    """Maps of differing sizes; masks with none to several regions, some touching at a corner alone."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask = np.zeros((40 + number, 60), bool)
        for _ in range(number % 4):
            row, column = rng.integers(0, 30, 2)
            mask[row : row + rng.integers(1, 9), column : column + rng.integers(1, 9)] = True
        if number == 3:
            mask[35:38, 50:53] = mask[38:40, 53:55] = True
        yield rng.gamma(2.0, size=mask.shape).astype(np.float32) * 10.0 ** (number % 3) + mask * rng.uniform(0, 30), mask


def counted(maps):
    pixels = metrics.PixelMetrics()
    for scores, mask in maps:
        pixels.add(scores, mask if mask.any() else None)
    return pixels


def test_pixels_against_scikit_learn_on_all_of_them():
    maps = list(drawn_maps())
    scores, labels = (np.concatenate([one[index].ravel() for one in maps]) for index in (0, 1))
    pixels = counted(maps)
    assert pixels.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-4)
    assert pixels.auprc() == pytest.approx(average_precision_score(labels, scores), abs=1e-4)


def plain_pro(maps, limit):
    """Threshold by threshold, region by region."""
    normal = np.sort(np.concatenate([scores[~mask] for scores, mask in maps]))
    regions = []
    for scores, mask in maps:
        numbered, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [np.sort(scores[numbered == number]) for number in range(1, count + 1)]
    thresholds = np.unique(np.concatenate([scores.ravel() for scores, _ in maps]))[::-1]
    rates = 1.0 - np.searchsorted(normal, thresholds) / len(normal)
    overlaps = np.mean([1.0 - np.searchsorted(region, thresholds) / len(region) for region in regions], axis=0)
    places = np.linspace(0.0, limit, 30001)
    values = np.interp(places, np.append(0.0, rates), np.append(0.0, overlaps))
    return np.mean((values[1:] + values[:-1]) / 2.0), len(regions)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_region_overlap_against_a_plain_computation(limit):
    maps = list(drawn_maps())
    pixels = counted(maps)
    expected, regions = plain_pro(maps, limit)
    assert pixels.pro(limit) == pytest.approx(expected, abs=1e-3)
    assert pixels.regions == regions


def test_region_overlap_worked_out_by_hand():
    """Two regions in 15 normal pixels: one of 4 is found at once, one of a single pixel after 3 false positives."""
    mask = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]], bool)
    scores = np.zeros((4, 5), np.float32)
    scores[2:, 3:] = 9.0
    scores[1, :3] = 5.0
    scores[0, 0] = 3.0
    pixels = counted([(scores, mask)])
    assert pixels.regions == 2
    # the curve: overlap 1/2 from rate 0 to 3/15, then 1; up to a limit of 0.3 it is 0.5 * 0.2 + 1 * 0.1
    assert pixels.pro(0.3) == pytest.approx((0.5 * 0.2 + 0.1) / 0.3)
    # pixels: 4 of 5 are above all normals, 1 is below 3 of 15
    assert pixels.auroc() == pytest.approx((4 * 15 + 12) / (5 * 15))
    assert pixels.pro(0.2) == pytest.approx(0.5)


def test_perfect_and_constant_maps():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 2:4] = True
    assert counted([(mask * 2.0 - 7.0, mask)]).pro() == 1.0  # of either sign
    constant = counted([(np.full((10, 10), 3.0), mask)])
    assert constant.auroc() == pytest.approx(0.5)
    assert constant.pro() == pytest.approx(0.15)  # half the limit


def test_corners_join_a_region():
    assert counted([(np.zeros((3, 3)), np.eye(3, dtype=bool))]).regions == 1


def test_parts_add_up():
    maps = list(drawn_maps())
    parts = counted(maps[:5]) + counted(maps[5:])
    whole = counted(maps)
    assert (parts.auroc(), parts.auprc(), parts.regions) == (whole.auroc(), whole.auprc(), whole.regions)
    assert parts.pro() == pytest.approx(whole.pro(), abs=1e-12)


def test_what_can_t_be_counted_is_an_error():
    pixels = metrics.PixelMetrics()
    with pytest.raises(ValueError, match="NaN"):
        pixels.add(np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="shape"):
        pixels.add(np.zeros((3, 3)), np.zeros((3, 4), bool))
    pixels.add(np.zeros((3, 3)))
    assert not pixels.complete
    with pytest.raises(ValueError, match="masks"):
        pixels.auroc()

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.detection.calibration import Calibration, check_count
from anogan_tf.detection.complexity import ALL_BORDERS, NO_WEIGHTS, Complexity, image_complexity

SETTINGS = {"steps": 5, "score": "loss"}


def fit(scores, rate=0.05, smoothed=None):
    smoothed = np.ones((len(scores), 2, 2)) if smoothed is None else smoothed
    return Calibration.fit(np.asarray(scores, np.float32), smoothed, rate, SETTINGS)


def test_p_values_count_normals_at_least_as_high():
    calibration = fit([3.0, 1.0, 2.0, 2.0], rate=0.4)
    np.testing.assert_allclose(calibration.p_values([0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0]), np.array([5, 5, 4, 4, 2, 2, 1]) / 5)


@pytest.mark.parametrize("count", [19, 20, 38, 39, 59, 99, 100, 199, 200, 1000])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_label_threshold_and_p_value_say_the_same(count, rate):
    rng = np.random.default_rng(count)
    scores = rng.normal(size=count).round(1).astype(np.float32)  # rounded: with ties
    calibration = fit(scores, rate)
    queries = np.concatenate([scores, rng.normal(size=500).astype(np.float32)])
    p = np.array([(1 + (scores >= s).sum()) for s in queries]) / (count + 1)
    np.testing.assert_allclose(calibration.p_values(queries), p, rtol=1e-6)
    np.testing.assert_array_equal(calibration.is_anomaly(queries), p <= rate + 1e-12)
    np.testing.assert_array_equal(queries > calibration.threshold, p <= rate + 1e-12)


def test_the_rate_holds_on_new_normals():
    rng = np.random.default_rng(0)
    shares = [np.mean(fit(rng.normal(size=100)).is_anomaly(rng.normal(size=500).astype(np.float32))) for _ in range(100)]
    assert 0.035 < np.mean(shares) <= 0.055


def test_too_few_normals_say_how_many_are_needed():
    with pytest.raises(ValueError, match="18 normal images are too few for false_positive_rate=0.05: at least 19"):
        check_count(18, 0.05)
    check_count(19, 0.05)
    with pytest.raises(ValueError, match="at least 99"):
        check_count(50, 0.01)
    with pytest.raises(ValueError, match="between 0 and 1"):
        check_count(50, 0.0)


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="no finite score"):
        fit([np.nan] * 30)


def test_heat_range_is_that_of_normal_images():
    smoothed = np.zeros((100, 10, 10))
    smoothed[:, 0, 0] = np.arange(100)  # the brightest pixel of each
    calibration = fit(np.arange(100), smoothed=smoothed)
    assert calibration.heat_low == 0.0 and 93 < calibration.heat_high / 2 < 95


def test_config_keeps_every_bit():
    calibration = fit(np.random.default_rng(0).normal(size=50))
    again = Calibration.from_config(calibration.get_config())
    np.testing.assert_array_equal(again.scores, calibration.scores)
    assert again.scores.dtype == np.float32 and again.threshold == calibration.threshold and again.settings == SETTINGS


def busy_normals(count=4000, slope=1.5):
    rng = np.random.default_rng(0)
    x = rng.normal(-2.0, 0.5, count)
    return np.exp(3.0 + slope * x + rng.normal(0.0, 0.2, count)), np.exp(x)


def test_a_score_is_deviations_above_normals_as_busy():
    losses, complexities = busy_normals()
    fitted = Complexity.fit(losses, complexities, np.full(len(losses), ALL_BORDERS))
    line = [getattr(fitted, name)[ALL_BORDERS] for name in ("intercepts", "slopes", "deviations")]
    np.testing.assert_allclose(line, [3.0, 1.5, 0.2], rtol=0.02)
    scores = np.asarray(
        fitted.score_tiles(losses.astype(np.float32), complexities.astype(np.float32), [ALL_BORDERS] * len(losses))
    )
    assert scores.mean() == pytest.approx(0.0, abs=1e-4) and scores.std() == pytest.approx(1.0, abs=1e-4)
    # e^0.4, two deviations, above a plain and a busy normal image
    queries = np.float32([np.exp(3.4 - 1.5 * 3.0), np.exp(3.4 - 1.5 * 1.2)])
    found = fitted.score_tiles(queries, np.exp(np.float32([-3.0, -1.2])), [ALL_BORDERS, ALL_BORDERS])
    np.testing.assert_allclose(found, [2.0, 2.0], atol=0.15)


def test_no_image_is_excused_for_being_busier_than_normals_are():
    losses, complexities = busy_normals()
    fitted = Complexity.fit(losses, complexities, np.full(len(losses), ALL_BORDERS))
    most = np.quantile(complexities, 0.99)
    one, other = np.asarray(fitted.score_tiles(np.float32([5.0, 5.0]), np.float32([most, 100.0]), [ALL_BORDERS, ALL_BORDERS]))
    assert one == pytest.approx(other, abs=1e-4)


def test_normals_that_are_alike_say_nothing_about_complexity():
    rng = np.random.default_rng(0)
    losses, complexities = np.exp(rng.normal(0.0, 0.2, 50)), np.exp(rng.normal(-2.0, 0.005, 50))
    fitted = Complexity.fit(losses, complexities, np.full(50, ALL_BORDERS))
    plain = np.asarray(fitted.score_tiles(np.float32([1.0]), np.exp(np.float32([-2.5])), [ALL_BORDERS]))
    assert abs(plain[0]) < 1.0


def test_a_loss_of_0_has_a_score_and_spoils_no_other():
    losses, complexities = busy_normals(100)
    losses[0] = 0.0
    fitted = Complexity.fit(losses, complexities, np.full(100, ALL_BORDERS))
    scores = fitted.score_tiles(losses.astype(np.float32), complexities.astype(np.float32), [ALL_BORDERS] * 100)
    assert np.isfinite(scores).all() and np.argmin(scores) == 0


def test_surprise_is_added_with_its_weight_and_the_sum_brought_to_deviation_1():
    losses, complexities = busy_normals(500)
    pretext_losses = np.exp(np.random.default_rng(1).normal(0.0, 0.5, 500))
    normals = (losses, complexities, np.full(500, ALL_BORDERS))
    alone, both = Complexity.fit(*normals), Complexity.fit(*normals, pretext_losses, weights={**NO_WEIGHTS, "pretext": 2.0})
    columns = [values.astype(np.float32) for values in (losses, complexities)]
    scores, sums = (
        alone.score_tiles(*columns, [ALL_BORDERS] * 500),
        both.score_tiles(*columns, [ALL_BORDERS] * 500, np.float32(pretext_losses)),
    )
    logs = np.log(pretext_losses + 0.01)
    np.testing.assert_allclose(sums, scores + 2.0 * (logs - logs.mean()) / logs.std(), atol=1e-4)
    images = np.asarray(both.with_normalization(sums).normalize(sums))
    assert images.mean() == pytest.approx(0.0, abs=1e-4) and images.std() == pytest.approx(1.0, abs=1e-4)


def test_neighbours_have_a_line_of_their_own():
    losses, complexities = busy_normals(500)
    distances, sides = np.exp(np.random.default_rng(1).normal(1.0, 0.3, 500)) * complexities, np.full(500, ALL_BORDERS)
    alone, far, both = (
        Complexity.fit(losses, complexities, sides),
        Complexity.fit(distances, complexities, sides),
        Complexity.fit(losses, complexities, sides, neighbours=distances, weights={**NO_WEIGHTS, "neighbours": 0.5}),
    )
    columns = [np.float32(losses), np.float32(complexities), sides]
    expected = alone.score_tiles(*columns) + 0.5 * far.score_tiles(np.float32(distances), *columns[1:])
    again = Complexity.from_config(dataclasses.asdict(both))
    for fitted in (both, again):
        np.testing.assert_allclose(fitted.score_tiles(*columns, neighbours=np.float32(distances)), expected, atol=1e-4)


def test_what_is_untypically_plain_or_busy_is_the_higher_for_it():
    losses, complexities = busy_normals(500)
    sides, logs = np.full(500, ALL_BORDERS), np.log(complexities)
    alone, both = (
        Complexity.fit(losses, complexities, sides, weights={**NO_WEIGHTS, "complexity_deviation": weight})
        for weight in (0.0, 0.5)
    )
    queries = np.exp(np.float32([logs.mean(), logs.mean() - 4 * logs.std(), logs.mean() + 4 * logs.std()]))
    columns = [np.ones(3, np.float32), queries, [ALL_BORDERS] * 3]
    np.testing.assert_allclose(both.score_tiles(*columns) - alone.score_tiles(*columns), [0.0, 2.0, 2.0], atol=1e-3)


def test_losses_that_fall_with_complexity_are_taken_as_they_are():
    losses, complexities = busy_normals(slope=-1.0)
    fitted = Complexity.fit(losses, complexities, np.full(len(losses), ALL_BORDERS))
    assert fitted.slopes == [0.0] * 16
    scores = np.asarray(
        fitted.score_tiles(losses.astype(np.float32), complexities.astype(np.float32), [ALL_BORDERS] * len(losses))
    )
    assert np.diff(scores[np.argsort(losses)]).min() > -1e-5


def test_tiles_at_an_edge_have_a_line_of_their_own_where_they_are_many():
    losses, complexities = busy_normals()
    sides = np.zeros(len(losses), int)
    sides[:2000], sides[2000:2010] = 1, 2
    losses[:2000] *= 10.0
    fitted = Complexity.fit(losses, complexities, sides)
    assert fitted.intercepts[1] - fitted.intercepts[0] == pytest.approx(np.log(10.0), abs=0.1)
    assert fitted.intercepts[2] == fitted.intercepts[15]  # too few: the line of all


def test_complexity_is_the_mean_difference_of_neighbours():
    images = np.random.default_rng(0).random((3, 8, 6, 2)).astype(np.float32)
    expected = [sum(np.abs(np.diff(image, axis=axis)).sum() for axis in (0, 1)) / image.size for image in images]
    np.testing.assert_allclose(image_complexity(tf.constant(images)), expected, rtol=1e-2)
    assert np.isfinite(np.log(image_complexity(tf.zeros((1, 8, 8, 1))))).all()


def test_a_config_of_json_keeps_the_complexity():
    losses, complexities = busy_normals(100)
    fitted = Complexity.fit(losses, complexities, np.full(100, ALL_BORDERS)).with_normalization([1.0, 3.0])
    calibration = Calibration.fit(np.arange(30.0), np.ones((30, 2, 2)), 0.05, SETTINGS, fitted)
    again = Calibration.from_config(json.loads(json.dumps(calibration.get_config())))
    assert again.complexity == fitted and (fitted.mean, fitted.std) == (2.0, 1.0)

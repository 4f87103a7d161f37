import numpy as np
import pytest

from anogan_tf.calibration import Calibration, check_count

SETTINGS = {"steps": 5}


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

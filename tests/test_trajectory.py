import numpy as np
import pytest

from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.trajectory import SearchTrajectory
from anogan_tf.networks.architectures import build_encoder


@pytest.fixture
def detector(tiny_gan):
    return AnoGAN.from_gan(tiny_gan, build_encoder((16, 16, 1), 4, base_filters=4), steps=2)


def test_the_search_unfolds_from_its_start_to_its_end(detector, pixels):
    trajectory = SearchTrajectory(detector)
    found = trajectory(detector.preprocessing(pixels[:4]))
    assert trajectory.titles == ["0 steps", "1 step", "2 steps"]
    assert trajectory.steps == (0, 1, 2) and found["reconstruction"].shape == (3, 4, 16, 16, 1)
    assert (np.diff(found["loss"], axis=0) <= 0.0).all()
    for row in range(3):
        end = detector.with_settings(steps=row, tolerance=0.0).predict(pixels[:4], verbose=0)
        np.testing.assert_array_equal(found["loss"][row], end["score"])
        np.testing.assert_array_equal(found["reconstruction"][row], end["reconstruction"])


def test_numbers_of_steps_are_followed_one_by_one(detector, pixels):
    images = detector.preprocessing(pixels[:20])
    one_by_one = list(SearchTrajectory(detector, [1, 5]).follow(images))
    at_once = SearchTrajectory(detector, [5, 1])(images)
    for row, out in enumerate(reversed(one_by_one)):
        np.testing.assert_array_equal(at_once["loss"][row], out["loss"])
        np.testing.assert_array_equal(at_once["reconstruction"][row], out["reconstruction"])


@pytest.mark.parametrize("steps", [(), (-1, 3)])
def test_numbers_that_are_no_numbers_of_steps_are_refused(detector, steps):
    with pytest.raises(ValueError, match="at least one number of steps, each 0 or more"):
        SearchTrajectory(detector, steps)

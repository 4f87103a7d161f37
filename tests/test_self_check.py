import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.data.sources import ArraySource
from anogan_tf.data.synthetic import draw_disc
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.evaluation.self_check import SelfCheck, check_detector, found_half, held_rate


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_disc_is_as_large_and_as_strong_as_asked_for(dtype):
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    image = np.full((100, 140, 1), 0.5 * top).astype(dtype)
    image[0, 0], image[0, 1] = 0, top  # its range
    changed = draw_disc(image, 0.2, 0.25, np.random.default_rng(0))
    assert changed.dtype == dtype and changed.shape == image.shape
    difference = np.abs(changed.astype(float) - image) / top
    assert difference.sum() / 0.25 == pytest.approx(np.pi * 10**2, rel=0.05) and difference.max() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    "shares, expected",
    [
        ([0.0, 0.0, 0.5, 1.0], 4.0),
        ([0.0, 0.25, 0.75, 1.0], np.sqrt(8.0)),
        ([0.9, 0.1, 0.5, 1.0], 4.0),  # the first is chance
        ([0.6, 0.7, 0.8, 0.9], 1.0),
        ([0.0, 0.6, 0.8, 0.4], None),
    ],
)
def test_where_half_is_found(shares, expected):
    found = found_half((1.0, 2.0, 4.0, 8.0), shares)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_rate_that_held():
    scores = np.random.default_rng(0).normal(size=2000)
    assert held_rate(scores, 0.05, np.random.default_rng(1)) == pytest.approx(0.05, abs=0.005)
    assert np.isnan(held_rate(scores[:30], 0.05, np.random.default_rng(1)))  # 15 can't set such a threshold


def test_what_it_comes_to_in_words():
    known = SelfCheck(200, 0.05, 0.048, 0.027, 0.077, 0.031, 0.12, 213.4)
    assert known.warnings() == [] and "4.8% are called anomalous, 5.0%" in known.lines()[0]
    assert "discs of 3.1% of the shorter side" in known.lines()[1] and "12% of the contrast" in known.lines()[1]
    assert known.lines()[2] == "It scores 213 images a second here."
    blind = SelfCheck(20, 0.05, float("nan"), 0.003, 0.14, None, None, 1.0)
    assert blind.lines()[0].startswith("Of new normal images it will be between 0.3% and 14.0%")
    assert "not even discs of 32%" in blind.lines()[1] and "not even 64% of the contrast" in blind.lines()[1]
    assert blind.warnings() == [
        "The threshold rests on 20 images: up to 14% of new normal ones may be called anomalous. "
        "More normal images make it surer."
    ]


@pytest.mark.usefixtures("networks")
def test_a_detector_that_sees_brightness(tiny_gan, pixels):
    detector = AnoGAN.from_gan(tiny_gan, steps=0, mode="search")
    with pytest.raises(ValueError, match="has no threshold"):
        check_detector(detector, ArraySource(pixels, np.zeros(len(pixels))), np.arange(10))
    detector.calibrate(pixels, 0.1)
    tf.random.set_seed(0)
    calls = []
    check = check_detector(detector, ArraySource(pixels, np.zeros(len(pixels))), np.arange(len(pixels)), on_progress=calls.append)
    assert check.images == len(pixels) and sum(calls) == 160 and check.images_per_second > 0.0
    assert 0.0 < check.low < 0.1 < check.high and 0.0 <= check.held < 0.3

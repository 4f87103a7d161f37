import numpy as np

from anogan_tf.detector import AnoGAN
from anogan_tf.networks import build_encoder
from anogan_tf.unfolding import Unfolding


def test_the_search_unfolds_from_its_start_to_its_end(tiny_gan, pixels):
    detector = AnoGAN.from_gan(tiny_gan, build_encoder((16, 16, 1), 4, width=4), steps=2)
    unfolding = Unfolding(detector)
    found = unfolding(detector.preparation(pixels[:4]))
    assert unfolding.titles == ["0 steps", "1 step", "2 steps"]
    assert unfolding.steps == (0, 1, 2) and found["reconstruction"].shape == (3, 4, 16, 16, 1)
    assert (np.diff(found["loss"], axis=0) <= 0.0).all()
    end = detector.with_settings(tolerance=0.0).predict(pixels[:4], verbose=0)
    np.testing.assert_array_equal(found["loss"][-1], end["score"])

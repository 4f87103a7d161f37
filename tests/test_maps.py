import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from anogan_tf.detection import maps

rng = np.random.default_rng(0)


def test_residual_image_is_absolute():
    np.testing.assert_array_equal(maps.residual_image(np.array([1.0, -1.0]), np.array([-1.0, 0.5])), [2.0, 1.5])


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.5])
def test_smooth_against_scipy(sigma):
    residual = rng.uniform(size=(2, 20, 24, 3)).astype(np.float32)
    expected = [gaussian_filter(image.mean(-1), sigma, mode="reflect", radius=int(np.ceil(3 * sigma))) for image in residual]
    np.testing.assert_allclose(maps.smooth(residual, sigma), expected, atol=1e-5)


def test_smooth_without_sigma_is_the_mean_of_channels():
    residual = rng.uniform(size=(2, 5, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(maps.smooth(residual, 0), residual.mean(-1), rtol=1e-6)


def test_smooth_keeps_constants_at_the_border():
    np.testing.assert_allclose(maps.smooth(np.full((1, 16, 16, 1), 0.3, np.float32), 2.0), 0.3, rtol=1e-5)


def test_heatmap_is_cut_to_its_range():
    np.testing.assert_allclose(maps.heatmap(np.array([0.0, 1.0, 2.0, 3.0, 9.0]), 1.0, 3.0), [0, 0, 0.5, 1, 1])


def test_overlay_shows_the_image_where_nothing_is_hot():
    pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
    heat = np.zeros((6, 5))
    np.testing.assert_array_equal(maps.overlay(pixels, heat), pixels)
    heat[0, 0] = 1.0
    laid = maps.overlay(pixels, heat)
    assert laid.shape == (12, 10, 3) and laid.dtype == np.uint8
    assert (laid[0, 0] != pixels[0, 0]).any() and np.array_equal(laid[6:, 5:], pixels[6:, 5:])


def test_overlay_makes_grey_images_colour():
    assert maps.overlay(rng.uniform(size=(8, 8, 1)), np.ones((8, 8))).shape == (8, 8, 3)

"""Losses against NumPy."""

import numpy as np
import pytest

from anogan_tf.networks import losses

rng = np.random.default_rng(0)
X, G = rng.uniform(-1, 1, (2, 5, 4, 6, 3)).astype(np.float32)
REAL, FAKE = rng.normal(size=(2, 5, 1)).astype(np.float32)


def cross_entropy(target, logits):
    p = 1 / (1 + np.exp(-logits))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def test_residual_loss_is_the_sum_for_each_image():
    np.testing.assert_allclose(losses.residual_loss(X, G), [np.abs(x - g).sum() for x, g in zip(X, G)], rtol=1e-6)


def test_sums_grow_with_the_image():
    """A mean would stay, and weight = 0.1 would mean something else for each image size."""
    once, twice = losses.residual_loss(X, G), losses.residual_loss(np.tile(X, (1, 2, 1, 1)), np.tile(G, (1, 2, 1, 1)))
    np.testing.assert_allclose(twice, 2 * np.asarray(once), rtol=1e-6)


def test_discrimination_loss_is_the_sum_over_features():
    flat_x, flat_g = X.reshape(5, -1), G.reshape(5, -1)
    np.testing.assert_allclose(losses.discrimination_loss(flat_x, flat_g), np.abs(flat_x - flat_g).sum(1), rtol=1e-6)


def test_reference_loss_is_the_cross_entropy_of_real():
    np.testing.assert_allclose(losses.reference_loss(FAKE), cross_entropy(1.0, FAKE)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(losses.generator_loss(FAKE), losses.reference_loss(FAKE))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_discriminator_loss_smooths_the_real_side_only(smoothing):
    expected = cross_entropy(1.0 - smoothing, REAL) + cross_entropy(0.0, FAKE)
    np.testing.assert_allclose(losses.discriminator_loss(REAL, FAKE, smoothing), expected[:, 0], rtol=1e-5)


def test_hinge_loss():
    expected = np.maximum(0, 1 - REAL)[:, 0] + np.maximum(0, 1 + FAKE)[:, 0]
    np.testing.assert_allclose(losses.hinge_discriminator_loss(REAL, FAKE), expected, rtol=1e-6)


def test_wasserstein_losses():
    np.testing.assert_allclose(losses.wasserstein_discriminator_loss(REAL, FAKE), (FAKE - REAL)[:, 0], rtol=1e-6)
    np.testing.assert_allclose(losses.critic_generator_loss(FAKE), -FAKE[:, 0], rtol=1e-6)


def test_gradient_penalty_is_of_the_norm_of_each_image():
    expected = [(np.sqrt((x**2).sum()) - 1.0) ** 2 for x in X]
    np.testing.assert_allclose(losses.gradient_penalty(X), expected, rtol=1e-5)
    assert np.isfinite(losses.gradient_penalty(np.zeros_like(X))).all()

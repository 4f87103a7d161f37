"""What several test modules call."""

import numpy as np

from anogan_tf.training.gan import GAN


def make_gan(image_shape=(16, 16, 1), latent_dim=4, **options):
    """A GAN so small that nothing takes long but tracing it; a test takes the fixture of this name."""
    gan = GAN(image_shape, latent_dim, base_filters=4, **options)
    gan.compile()
    return gan


def train_on(boots, **options):
    """A GAN after some hundred steps on real boots: far enough that boots come out as boots."""
    gan = GAN((28, 28, 1), **options)
    gan.compile()
    gan.fit(boots.train[:1800], epochs=8, verbose=0)
    return gan


def assert_same(one, other):
    """Two lists of arrays are the same to the last bit."""
    assert len(one) == len(other)
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


def all_state(trainer):
    """What a trainer has learned and what its optimizer remembers."""
    return [*trainer.get_weights(), *(variable.numpy() for variable in trainer.optimizer.variables)]

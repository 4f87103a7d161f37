"""Training that goes wrong says so, and leaves the last good weights."""

import warnings

import keras
import numpy as np
import pytest

from anogan_tf.training.callbacks import Checkpoint, TrainingMonitor, spread
from anogan_tf.training.gan import GAN
from anogan_tf.workflows import parts


def watch(gan, normals=None, steps=1000):
    """A watch of a GAN that is taken to have made so many steps; and what it tells."""
    told = []
    watching = TrainingMonitor(normals, told.append)
    watching.set_model(gan)
    gan.discriminator_optimizer.iterations.assign(steps)
    return watching, told


@pytest.mark.parametrize("loss", [np.nan, np.inf, -2e6])
@pytest.mark.parametrize("name", ["generator_loss", "discriminator_loss"])
def test_losses_that_are_none_end_training(tiny_gan, loss, name):
    watching, _ = watch(tiny_gan, steps=7)
    watching.on_train_batch_end(0, {"generator_loss": 3.0})
    watching.on_train_batch_end(49, {name: loss})  # looked at every 50 steps
    with pytest.raises(ValueError, match=f"at step 7: {name} .*smaller learning rate"):
        watching.on_train_batch_end(50, {name: loss})


@pytest.mark.usefixtures("networks")
def test_weights_that_are_no_numbers_are_not_saved(pixels, tmp_path):
    gan = GAN((16, 16, 1), 4, base_filters=4)
    gan.compile(keras.optimizers.SGD(1e30), keras.optimizers.SGD(1e30))
    gan.save(tmp_path / "gan.keras")
    good = (tmp_path / "gan.keras").read_bytes()
    with pytest.raises(ValueError, match="Training went wrong"):
        gan.fit(pixels, epochs=3, verbose=0, callbacks=[TrainingMonitor(), Checkpoint(tmp_path / "gan.keras", 1e9)])
    assert not all(np.isfinite(weights).all() for weights in gan.get_weights())
    checkpoint = Checkpoint(tmp_path / "gan.keras", 0.0)
    checkpoint.set_model(gan)
    checkpoint.on_train_end()
    assert (tmp_path / "gan.keras").read_bytes() == good


def test_a_generator_that_has_collapsed_is_told_of_once(tiny_gan, pixels):
    normals = np.asarray(tiny_gan.preprocessing.prepare(pixels))
    kernel = tiny_gan.ema_generator.layers[1].kernel
    scores = {"real_score": 0.6, "fake_score": 0.4}
    watching, told = watch(tiny_gan, normals)
    kernel.assign(kernel * 1000.0)
    watching.on_epoch_end(4, scores)
    assert spread(tiny_gan.generate(32)) > 0.1 * spread(normals) and not told
    kernel.assign(kernel * 0.0)  # whatever z is
    for epoch in (5, 6):
        watching.on_epoch_end(epoch, scores)
    assert len(told) == 1 and "After pass 6" in told[0] and "collapsed" in told[0]
    early, nothing = watch(tiny_gan, normals, steps=499)
    early.on_epoch_end(0, scores)
    unaware, none = watch(tiny_gan)
    unaware.on_epoch_end(0, scores)
    assert not nothing and not none


def test_a_discriminator_that_has_won_is_told_of(make_gan, tiny_gan):
    watching, told = watch(tiny_gan)
    won, open_still = {"real_score": 0.999, "fake_score": 0.001}, {"real_score": 0.9, "fake_score": 0.1}
    for scores in (won, won, open_still, won, won):
        watching.on_epoch_end(0, scores)
    assert not told
    watching.on_epoch_end(0, won)
    assert len(told) == 1 and "without fail for 3 passes" in told[0]
    critic, nothing = watch(make_gan(objective="wgan-gp"))
    for _ in range(5):
        critic.on_epoch_end(0, {"real_score": 9.0, "fake_score": -9.0})
    assert not nothing


@pytest.mark.usefixtures("networks")
def test_a_training_that_goes_well_is_not_told_of(boots, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        parts.train_gan(boots.train[:500], tmp_path, (16, 16, 1), epochs=17)


@pytest.mark.usefixtures("networks")
def test_what_was_noticed_reaches_whoever_trains(pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingMonitor, "SETTLED", 0)
    with pytest.warns(UserWarning, match="has collapsed"):
        parts.train_gan(pixels, tmp_path, (16, 16, 1), epochs=1, base_filters=4, latent_dim=4)

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import all_state, assert_same
from keras import layers

from anogan_tf.data.preprocessing import to_pixels
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.networks import architectures
from anogan_tf.training.encoder import ENCODER_METHODS, EncoderTrainer

pytestmark = pytest.mark.usefixtures("networks")


def make_trainer(gan=None, **options):
    trainer = EncoderTrainer.from_gan(gan or helpers.make_gan(), **{"base_filters": 4, **options})
    trainer.compile()
    return trainer


@pytest.mark.parametrize("method", ENCODER_METHODS)
def test_the_encoder_learns_and_nothing_else_moves(method):
    trainer = make_trainer(method=method)
    for part in (trainer.generator, trainer.discriminator):  # as they are drawn, all their images are nearly grey
        part.set_weights([6 * weight if weight.ndim > 1 else weight for weight in part.get_weights()])
    pixels = np.asarray(to_pixels(trainer.generator(tf.random.stateless_normal((40, 4), (0, 0)), training=False)))
    frozen = [*trainer.generator.get_weights(), *trainer.discriminator.get_weights()]
    history = trainer.fit(pixels, batch_size=8, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
    assert_same(frozen, [*trainer.generator.get_weights(), *trainer.discriminator.get_weights()])


def test_losses_against_numpy(make_gan, pixels):
    """The loss of a first step, before anything has moved, in the encoder's training mode."""
    images = np.asarray(make_gan().preprocessing(pixels[:8]))
    for method in ENCODER_METHODS:
        trainer = make_trainer(method=method, kappa=0.5)
        encoder = keras.models.clone_model(trainer.encoder)
        encoder.set_weights(trainer.encoder.get_weights())
        loss = trainer.train_on_images(tf.constant(images))["loss"]
        z = np.asarray(tf.random.stateless_normal((8, 4), (0, 0), alg="philox"))
        if method == "ziz":
            wanted = np.mean((z - encoder(trainer.generator(z, training=False), training=True)) ** 2)
        else:
            made = trainer.generator(encoder(images, training=True), training=False)
            f = architectures.feature_extractor(trainer.discriminator)
            wanted = np.mean((images - made) ** 2)
            if method == "izi_f":
                wanted += 0.5 * np.mean((f(images, training=False) - np.asarray(f(made, training=False))) ** 2)
        np.testing.assert_allclose(loss, wanted, rtol=1e-4)


def test_the_gan_is_copied(make_gan, pixels):
    gan = make_gan()
    before = gan.get_weights()
    trainer = make_trainer(gan)
    trainer.fit(pixels, batch_size=8, verbose=0)
    assert_same(before, gan.get_weights())
    assert gan.generator.trainable and gan.discriminator.trainable


@pytest.mark.parametrize("method", ENCODER_METHODS)
def test_two_and_two_epochs_across_a_save_are_four(method, pixels, tmp_path):
    whole, first = (make_trainer(method=method) for _ in range(2))
    whole.fit(pixels, batch_size=8, epochs=4, verbose=0)
    first.fit(pixels, batch_size=8, epochs=2, verbose=0)
    first.save(tmp_path / "encoder.keras")
    second = EncoderTrainer.load(tmp_path / "encoder.keras")
    assert_same(all_state(first), all_state(second))
    assert (second.method, second.kappa, second.prior) == (method, 1.0, "normal")
    second.fit(pixels, batch_size=8, epochs=4, initial_epoch=2, verbose=0)
    assert_same(all_state(whole), all_state(second))


def test_callbacks_see_the_loss(pixels, tmp_path):
    trainer = make_trainer()
    trainer.fit(pixels, batch_size=8, epochs=2, verbose=0, callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")])
    assert (tmp_path / "log.csv").read_text().startswith("epoch,loss")


@pytest.mark.promise("search")
def test_it_starts_nearer_than_chance(trained_gan, trained_encoder, boots):
    """On boots that nobody trained on, E(x) beats the best of 32 random starts, and the search goes on from there."""
    pixels = boots.test[boots.test_label == 0][:40]
    encoded = AnoGAN.from_gan(trained_gan, encoder=trained_encoder, mode="encoder").predict(pixels, verbose=0)
    chosen = AnoGAN.from_gan(trained_gan, steps=0, candidates=32).predict(pixels, verbose=0)
    refined = AnoGAN.from_gan(trained_gan, encoder=trained_encoder).predict(pixels, verbose=0)
    assert np.median(encoded["score"]) < 0.9 * np.median(chosen["score"])
    assert np.median(refined["score"]) < 0.9 * np.median(encoded["score"])
    assert (refined["score"] <= encoded["score"]).all()


def test_errors(tiny_gan):
    with pytest.raises(ValueError, match="method='zizi' is not one of"):
        EncoderTrainer.from_gan(tiny_gan, method="zizi")
    with pytest.raises(ValueError, match="kappa=-1"):
        EncoderTrainer.from_gan(tiny_gan, kappa=-1)
    with pytest.raises(ValueError, match="no layer named 'x'"):
        EncoderTrainer.from_gan(tiny_gan, features="x")
    images = layers.Input((16, 16, 1))
    wrong = keras.Model(images, layers.Dense(5)(layers.Flatten()(images)))
    with pytest.raises(ValueError, match=r"The encoder maps \(16, 16, 1\) to \(5,\).*\(16, 16, 1\) to \(4,\)"):
        EncoderTrainer.from_gan(tiny_gan, encoder=wrong)
    with pytest.raises(ValueError, match="compile"):
        EncoderTrainer.from_gan(tiny_gan).fit(np.zeros((4, 16, 16), np.uint8))


@pytest.mark.parametrize("method", ENCODER_METHODS)
def test_validation_is_logged_and_nothing_is_learned_from_it(method, pixels):
    alone, watched = (make_trainer(method=method) for _ in range(2))
    alone.fit(pixels, batch_size=8, epochs=2, verbose=0)
    history = watched.fit(pixels, batch_size=8, epochs=2, validation_data=255 - pixels, verbose=0).history
    assert len(history["val_loss"]) == 2
    assert_same(all_state(alone), all_state(watched))
    assert watched.evaluate(255 - pixels, batch_size=8, verbose=0) == pytest.approx(history["val_loss"][-1], rel=1e-5)


def test_it_predicts_z_of_pixels(pixels):
    trainer = make_trainer()
    z = trainer.predict(pixels, verbose=0)
    np.testing.assert_allclose(z, trainer(trainer.preprocessing(pixels)), atol=1e-5)
    with pytest.raises(NotImplementedError, match=r"call predict\(\), which prepares the pixels"):
        trainer.predict_on_batch(pixels)


def linear_images(count, seed=0):
    """Images that a PCA of as many components as z has can draw without a fault."""
    basis = np.random.default_rng(9).normal(0, 0.08, (4, 256))
    z = np.random.default_rng(seed).normal(0, 1, (count, 4))
    return np.clip(z @ basis + 0.5, 0, 1).reshape(count, 16, 16, 1).astype(np.float32)


def test_linear_paths_begin_as_if_they_were_not_there(make_gan, pixels):
    gan = make_gan()
    encoder = architectures.build_encoder((16, 16, 1), 4, base_filters=4)
    generator, longer = architectures.with_linear_paths(gan.generator, encoder)
    x, z = gan.preprocessing(pixels), np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(longer(x), encoder(x))
    np.testing.assert_allclose(generator(z), gan.generator(z), atol=1e-6)
    assert longer.output_shape == encoder.output_shape and generator.output_shape == gan.generator.output_shape


def test_together_they_draw_what_a_pca_draws(make_gan, tmp_path):
    """The GAN stays as it is; what they have learned is saved, and a detector takes it."""
    gan = make_gan()
    before, alone, together = gan.get_weights(), make_trainer(gan), make_trainer(gan, joint=True, method="izi")
    for trainer in (alone, together):
        trainer.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
        trainer.fit(linear_images(256), batch_size=16, epochs=12, verbose=0)
    assert_same(before, gan.get_weights())
    others = linear_images(64, seed=1)
    spread = 4 * others.var(axis=0).mean()  # what the mean image alone would leave, in network units
    left = {}
    for name, trainer in (("alone", alone), ("together", together)):
        detector = AnoGAN.from_gan(gan, trainer.encoder, generator=trainer.generator, mode="encoder")
        left[name] = np.square(detector.predict(others, verbose=0)["residual"]).mean() / spread
    assert left["together"] < 0.15 < 0.5 < left["alone"]
    together.save(tmp_path / "joint.keras")
    loaded = EncoderTrainer.load(tmp_path / "joint.keras")
    assert loaded.joint
    assert_same(all_state(together), all_state(loaded))
    detector.save(tmp_path / "detector.keras")
    again = AnoGAN.load(tmp_path / "detector.keras")
    assert_same(*([one.predict(others, verbose=0)["score"]] for one in (detector, again)))


def test_together_needs_images():
    with pytest.raises(ValueError, match="joint=True learns from images: take method='izi_f' or 'izi'"):
        make_trainer(joint=True, method="ziz")

"""The comparator and its training: shapes, learning, resuming, and what is said of networks that don't fit."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import all_state, assert_same

from anogan_tf.data.defects import draw_defects
from anogan_tf.data.disk import DiskArray
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.networks.architectures import build_encoder
from anogan_tf.networks.comparator import build_comparator, comparator_input, sees_reconstruction
from anogan_tf.networks.losses import dice_loss, mask_cross_entropy
from anogan_tf.training.comparator import ComparatorTrainer

pytestmark = pytest.mark.usefixtures("networks")
SHAPE = (16, 16, 1)


def make_trainer(reconstruct=False, steps=20, **options):
    gan = helpers.make_gan()
    encoder = build_encoder(SHAPE, 4, base_filters=4) if reconstruct else None
    trainer = ComparatorTrainer.from_gan(gan, encoder, **{"base_filters": 4, **options})
    trainer.compile(steps=steps)
    return trainer


def noisy(count, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(0.5, 0.05, (count, *shape)).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 16, 1), (28, 28, 3), (20, 36, 1)], ids=str)
@pytest.mark.parametrize("reconstruct", [True, False])
def test_one_logit_for_each_pixel_of_any_size(shape, reconstruct):
    comparator = build_comparator(shape, 4, with_reconstruction=reconstruct)
    channels = (3 if reconstruct else 1) * shape[2] + 1
    for more in (0, 16, 48):
        size = (shape[0] + more, shape[1] + 2 * more)
        logits = comparator(np.zeros((2, *size, channels), np.float32))
        assert logits.shape == (2, *size, 1) and logits.dtype == "float32"
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in comparator.layers)


def test_its_weights():
    assert 300_000 < build_comparator((64, 64, 1)).count_params() < 410_000
    one, same, other = (build_comparator(SHAPE, 4, seed=seed).get_weights() for seed in (0, 0, 1))
    assert_same(one, same)
    assert (one[0] != other[0]).any()
    with pytest.raises(ValueError, match="base_filters=0 must be a whole number from 1"):
        build_comparator(SHAPE, 0)


def test_it_begins_with_few_defects():
    logits = build_comparator(SHAPE, 4)(np.zeros((1, 16, 16, 4), np.float32))
    assert np.mean(logits) == pytest.approx(-3, abs=0.5)


def test_what_it_is_shown():
    x, made, ones = noisy(2, seed=1), noisy(2, seed=2), np.ones((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(comparator_input(tf.constant(x), made), np.concatenate([x, made, np.abs(x - made), ones], -1))
    np.testing.assert_array_equal(comparator_input(x), np.concatenate([x, ones], -1))
    for sees in (True, False):
        assert sees_reconstruction(build_comparator(SHAPE, 4, with_reconstruction=sees), 1) is sees


@pytest.mark.parametrize("reconstruct", [True, False])
def test_beyond_an_image_all_it_is_shown_is_0(reconstruct):
    x, made = noisy(2, seed=1), noisy(2, seed=2)
    x[0, 5:], x[1, :, :3] = np.nan, np.nan
    shown = comparator_input(x, made if reconstruct else None).numpy()
    assert not shown[0, 5:].any() and not shown[1, :, :3].any()
    np.testing.assert_array_equal(shown[..., :1][shown[..., -1:] > 0], x[~np.isnan(x)])


def test_losses_against_numpy():
    rng = np.random.default_rng(0)
    logits, masks = rng.normal(0, 2, (3, 4, 5, 1)).astype(np.float32), (rng.random((3, 4, 5, 1)) < 0.3).astype(np.float32)
    masks[2] = 0
    p = 1 / (1 + np.exp(-logits))
    wanted = -(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean((1, 2, 3))
    np.testing.assert_allclose(mask_cross_entropy(logits, masks), wanted, rtol=1e-5)
    both, sums = (p * masks).sum((1, 2, 3)), (p + masks).sum((1, 2, 3))
    np.testing.assert_allclose(dice_loss(logits, masks), [*(1 - (2 * both + 1) / (sums + 1))[:2], 0.0], rtol=1e-5)
    np.testing.assert_allclose(dice_loss(200 * masks - 100, masks), 0, atol=1e-6)


@pytest.mark.parametrize("reconstruct", [False, True])
def test_it_learns_where_defects_are(reconstruct):
    """On images that nobody trained on, and nothing but the comparator moves."""
    families = ["spot", "bite"]  # which are easy
    trainer = make_trainer(reconstruct, base_filters=16, steps=80, families=families)
    frozen = [] if not reconstruct else [*trainer.generator.get_weights(), *trainer.encoder.get_weights()]
    history = trainer.fit(noisy(128), batch_size=32, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.85 * history["loss"][0] and set(history) == {"loss", "cross_entropy", "dice"}
    others = noisy(32, seed=1)
    drawn, masks = zip(*(draw_defects(one, others, np.random.default_rng(row), families) for row, one in enumerate(others)))
    logits, masks = trainer.predict(np.stack(drawn), verbose=0)[..., 0], np.stack(masks)
    assert logits[masks].mean() > logits[~masks].mean() + 1.0
    assert_same(frozen, [] if not reconstruct else [*trainer.generator.get_weights(), *trainer.encoder.get_weights()])


@pytest.mark.parametrize("reconstruct", [False, True])
def test_two_and_two_epochs_across_a_save_are_four(reconstruct, pixels, tmp_path):
    whole, first = (make_trainer(reconstruct) for _ in range(2))
    whole.fit(pixels, batch_size=8, epochs=4, verbose=0)
    first.fit(pixels, batch_size=8, epochs=2, verbose=0)
    first.save(tmp_path / "comparator.keras")
    second = ComparatorTrainer.load(tmp_path / "comparator.keras")
    assert_same(all_state(first), all_state(second))
    second.fit_on(pixels, batch_size=8, epochs=4, verbose=0)
    assert_same(all_state(whole), all_state(second))
    assert any((mean != now).any() for mean, now in zip(whole.ema_comparator.get_weights(), whole.comparator.get_weights()))


def test_what_was_set_is_in_the_file(tmp_path):
    trainer = make_trainer(families=["spot", "line"], fillings=("flat",), seed=5)
    trainer.compile(keras.optimizers.SGD(0.1), ema_momentum=0.5)
    trainer.save(tmp_path / "comparator.keras")
    loaded = ComparatorTrainer.load(tmp_path / "comparator.keras")
    assert (loaded.families, loaded.fillings, loaded.seed) == (["spot", "line"], ["flat"], 5)
    assert loaded.ema_momentum == 0.5 and isinstance(loaded.optimizer, keras.optimizers.SGD)
    assert loaded.generator is None and loaded.image_shape == SHAPE


def test_defects_are_a_function_of_seed_and_step():
    trainer, other = make_trainer(), make_trainer(seed=1)
    images = tf.constant(2 * noisy(6) - 1)
    one, masks = trainer._draw(images, 3)
    same, same_masks = trainer._draw(images, 3)
    assert_same([one, masks], [same, same_masks])
    assert masks.shape == (6, 16, 16, 1) and np.isin(masks, (0, 1)).all()
    for changed in (trainer._draw(images, 4), other._draw(images, 3)):
        assert (changed[0] != one).numpy().any()


def test_a_drawn_image_is_normalized_as_it_would_be_when_it_is_scored():
    trainer = ComparatorTrainer(preprocessing=Preprocessing(SHAPE, normalize=True), base_filters=4)
    drawn, _ = trainer._draw(trainer.preprocessing(noisy(6)), 0)
    np.testing.assert_allclose(np.mean(drawn, axis=(1, 2, 3)), 0, atol=0.05)
    np.testing.assert_allclose(drawn, trainer.preprocessing.arrange(drawn * 0.5 + 0.5) * 2 - 1, atol=0.1)


def scene(rows=slice(None), columns=slice(None)):
    """An image with nothing around it."""
    image = np.full((48, 64, 1), np.nan, np.float32)
    image[rows, columns] = noisy(1, (48, 64, 1))[0, rows, columns]
    return image


def test_tiles_of_what_is_larger_lie_in_the_image_and_its_margin_mostly_at_a_defect():
    preprocessing = Preprocessing((48, 64, 1))
    trainer = ComparatorTrainer(preprocessing=preprocessing, tile=(16, 16), families=["spot"], base_filters=4)
    images = tf.constant(2 * np.stack([scene(), scene(slice(20, 40), slice(30, 64)), scene(columns=slice(0, 17))]) - 1)
    with_defect = []
    for step in range(40):
        drawn, masks = (values.numpy() for values in trainer._draw(images, step))
        assert drawn.shape == masks.shape == (3, 16, 16, 1)
        beyond = np.isnan(drawn)
        assert not beyond[0].any() and not masks[beyond].any()
        assert np.nanmin(drawn) >= -1 and np.nanmax(drawn) <= 1
        with_defect.append(masks.any((1, 2, 3)))
    assert 0.55 < np.mean(with_defect) < 0.9


def test_nothing_but_the_defect_and_the_contrast_changes_in_a_tile():
    """Normalized again, an image has its mean and deviation; NaN stays where it was."""
    given = scene(slice(5, 40), slice(3, 60))
    trainer = ComparatorTrainer(preprocessing=Preprocessing((48, 64, 1)), tile=(48, 64), normalized=True, base_filters=4)
    drawn, _ = trainer._draw(tf.constant(2 * given[np.newaxis] - 1), 1)
    for one in drawn.numpy() / 2 + 0.5:
        np.testing.assert_array_equal(np.isnan(one), np.isnan(given))
        assert np.nanmean(one) == pytest.approx(np.nanmean(given), abs=0.01)
        assert np.nanstd(one) == pytest.approx(np.nanstd(given), rel=0.1)


def test_it_learns_from_tiles_of_images_on_disk_and_goes_on_after_a_save(tmp_path):
    images = DiskArray((48, 64, 1))
    images.append(np.stack([scene(slice(row, None)) for row in range(16)]))

    def make():
        trainer = ComparatorTrainer(preprocessing=Preprocessing((48, 64, 1), augment=("mirror",)), tile=(16, 32), base_filters=4)
        trainer.compile(steps=8)
        return trainer

    whole, first = make(), make()
    whole.fit_on(images, batch_size=4, epochs=2, verbose=0)
    first.fit_on(images, batch_size=4, epochs=1, verbose=0)
    first.save(tmp_path / "comparator.keras")
    second = ComparatorTrainer.load(tmp_path / "comparator.keras")
    assert second.tile == (16, 32) and second.image_shape == (16, 32, 1)
    second.fit_on(images, batch_size=4, epochs=2, verbose=0)
    assert_same(all_state(whole), all_state(second))
    assert all(np.isfinite(weight).all() for weight in whole.get_weights())
    assert whole.predict(noisy(2, (48, 64, 1)), verbose=0).shape == (2, 48, 64, 1)


def test_validation_draws_the_same_each_time_and_nothing_is_learned_from_it(pixels):
    alone, watched = (make_trainer() for _ in range(2))
    alone.fit(pixels, batch_size=8, epochs=2, verbose=0)
    history = watched.fit(pixels, batch_size=8, epochs=2, validation_data=255 - pixels, verbose=0).history
    assert_same(all_state(alone), all_state(watched))
    found = watched.evaluate(255 - pixels, batch_size=8, verbose=0, return_dict=True)
    assert {f"val_{name}": pytest.approx(value, rel=1e-5) for name, value in found.items()} == {
        name: values[-1] for name, values in history.items() if name.startswith("val_")
    }


def test_the_gan_is_copied(pixels):
    gan, encoder = helpers.make_gan(), build_encoder(SHAPE, 4, base_filters=4)
    before = [*gan.get_weights(), *encoder.get_weights()]
    trainer = ComparatorTrainer.from_gan(gan, encoder, base_filters=4)
    trainer.compile(run_eagerly=True)  # what isn't traced takes less time here
    trainer.fit(pixels, batch_size=20, verbose=0)
    assert_same(before, [*gan.get_weights(), *encoder.get_weights()])
    assert gan.generator.trainable and encoder.trainable


def test_errors(tiny_gan):
    encoder = build_encoder(SHAPE, 4, base_filters=4)
    with pytest.raises(ValueError, match="give both, or neither"):
        ComparatorTrainer(encoder=encoder, preprocessing=Preprocessing(SHAPE))
    with pytest.raises(ValueError, match=r"tile=\(32, 16\) must lie within images of \(16, 16\)"):
        ComparatorTrainer.from_gan(tiny_gan, tile=(32, 16))
    with pytest.raises(ValueError, match="without a generator: x is seen alone"):
        ComparatorTrainer.from_gan(tiny_gan, encoder, tile=(16, 16))
    with pytest.raises(ValueError, match="pass preprocessing="):
        ComparatorTrainer()
    with pytest.raises(ValueError, match="takes 4 channels, it would be shown 2: x alone.* Build it with_reconstruction=False"):
        ComparatorTrainer.from_gan(tiny_gan, comparator=build_comparator(SHAPE, 4))
    with pytest.raises(ValueError, match="takes 2 channels, it would be shown 4.*or give it no networks"):
        ComparatorTrainer.from_gan(tiny_gan, encoder, comparator=build_comparator(SHAPE, 4, with_reconstruction=False))
    image = keras.Input((16, 16, 2))
    with pytest.raises(ValueError, match="must give one logit for each pixel"):
        ComparatorTrainer.from_gan(tiny_gan, comparator=keras.Model(image, keras.layers.AveragePooling2D(2)(image)))
    with pytest.raises(ValueError, match=r"families=\['rust'\] must be one or more of"):
        ComparatorTrainer.from_gan(tiny_gan, families=["rust"])
    with pytest.raises(ValueError, match=r"must be \(height, width, channels\), not \(None"):
        ComparatorTrainer(preprocessing=Preprocessing((None, None, 1)), base_filters=4)
    trainer = ComparatorTrainer.from_gan(tiny_gan, base_filters=4)
    with pytest.raises(ValueError, match=r"Call compile\(\) before fit"):
        trainer.fit(noisy(4))
    with pytest.raises(ValueError, match="steps=0 must be 1 or more"):
        trainer.compile(steps=0)
    with pytest.raises(ValueError, match="ema_momentum=1.5"):
        trainer.compile(ema_momentum=1.5)
    with pytest.raises(NotImplementedError, match=r"call predict\(\), which prepares the pixels"):
        trainer.predict_on_batch(noisy(4))

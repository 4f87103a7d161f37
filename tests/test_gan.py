import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_same
from keras import layers

from anogan_tf.data.augmentation import AUGMENTATIONS
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.data.sources import Images
from anogan_tf.networks import architectures
from anogan_tf.training.gan import GAN

pytestmark = pytest.mark.usefixtures("networks")


def all_state(gan):
    return [*gan.get_weights(), *(v.numpy() for v in gan.optimizer.variables + gan.discriminator_optimizer.variables)]


def test_a_stop_in_the_middle_of_a_pass_changes_nothing(make_gan, pixels):
    """An epoch of two steps ends after 16 of the 40 images; the next goes on with the others."""
    whole, halves = make_gan(), make_gan()
    whole.fit(pixels, batch_size=8, epochs=3, steps_per_epoch=2, verbose=0)
    for _ in range(3):
        halves.fit(pixels, batch_size=8, epochs=1, steps_per_epoch=2, verbose=0)
    assert_same(all_state(whole), all_state(halves))


@pytest.mark.parametrize("continued", [{"epochs": 2}, {"epochs": 4, "initial_epoch": 2}])
@pytest.mark.promise("resumes")
def test_two_and_two_epochs_across_a_save_are_four(make_gan, pixels, tmp_path, continued):
    whole, first = make_gan(), make_gan()
    whole.fit(pixels, batch_size=8, epochs=4, verbose=0)
    first.fit(pixels, batch_size=8, epochs=2, verbose=0)
    first.save(tmp_path / "gan.keras")
    second = GAN.load(tmp_path / "gan.keras")
    assert_same(all_state(first), all_state(second))
    second.fit(pixels, batch_size=8, verbose=0, **continued)
    assert_same(all_state(whole), all_state(second))


def test_same_seed_same_run_and_each_epoch_has_its_order(make_gan, pixels):
    one, other = make_gan(seed=1), make_gan(seed=1)
    for gan in (one, other):
        gan.fit(pixels, batch_size=8, epochs=1, verbose=0)
    assert_same(all_state(one), all_state(other))
    batches = list(one._shuffled_rows(40, 8).take(5))  # as the second epoch would see them
    assert sorted(np.concatenate(batches)) == list(range(40))
    first_epoch = list(make_gan(seed=1)._shuffled_rows(40, 8).take(5))
    assert not np.array_equal(np.concatenate(batches), np.concatenate(first_epoch))


def test_dcgan_defaults(tiny_gan):
    for optimizer in (tiny_gan.optimizer, tiny_gan.discriminator_optimizer):
        assert isinstance(optimizer, keras.optimizers.Adam)
        np.testing.assert_allclose([optimizer.learning_rate, optimizer.beta_1], [2e-4, 0.5])


def test_fit_takes_arrays_and_datasets_of_any_pixels(make_gan, pixels):
    for x in (pixels, pixels[..., 0], pixels / 255.0, np.repeat(pixels, 3, -1), np.pad(pixels, ((0, 0), (4, 0), (0, 9), (0, 0)))):
        history = make_gan().fit(x, epochs=1, verbose=0)
        assert all(np.isfinite(value).all() for value in history.history.values())
    labelled = tf.data.Dataset.from_tensor_slices((pixels, np.zeros(40))).batch(8)
    history = make_gan().fit(labelled, epochs=1, verbose=0)
    assert sorted(history.history) == ["discriminator_loss", "fake_score", "generator_loss", "real_score"]


def test_a_dataset_trains_as_the_same_batches_of_an_array(make_gan, pixels):
    from_array, from_dataset = make_gan(), make_gan()
    batches = from_dataset._shuffled_rows(40, 8).take(5).map(lambda rows: tf.gather(pixels, rows))
    from_array.fit(pixels, batch_size=8, verbose=0)
    from_dataset.fit(batches, verbose=0)
    assert_same(all_state(from_array), all_state(from_dataset))


def spy_on(seen):
    """A layer that notes the batch size and the mode of each pass it is traced for."""

    class Spy(layers.Layer):
        def call(self, x, training=None):
            seen.append((x.shape[0], training))
            return x

    return Spy()


def test_real_and_generated_images_pass_apart_and_in_training_mode(pixels):
    seen = []
    images = layers.Input((16, 16, 1))
    x = spy_on(seen)(images)
    x = layers.BatchNormalization()(layers.Conv2D(2, 4, 2, name="features")(x))
    discriminator = keras.Model(images, layers.Dense(1)(layers.Flatten()(x)))
    gan = GAN(generator=architectures.build_generator((16, 16, 1), 4, base_filters=4), discriminator=discriminator)
    gan.compile()
    seen.clear()
    before = [v.numpy() for v in gan.non_trainable_variables]
    gan.fit(pixels, batch_size=8, verbose=0)
    # real and generated for the discriminator's step, generated for the generator's; never both in one pass
    assert len(seen) % 3 == 0 and set(seen) == {(8, True)}
    moved = [not np.array_equal(a, b) for a, b in zip(before, gan.non_trainable_variables)]
    assert any(moved)


def test_moving_statistics_of_both_networks_move(pixels, tiny_gan):
    def statistics(network):
        return [v.numpy() for v in network.non_trainable_variables if "moving" in v.path]

    networks_ = (tiny_gan.generator, tiny_gan.discriminator)
    before = [statistics(network) for network in networks_]
    tiny_gan.fit(pixels, batch_size=8, verbose=0)
    for old, network in zip(before, networks_):
        assert old and all(not np.array_equal(a, b) for a, b in zip(old, statistics(network)))


def test_label_smoothing_reaches_the_loss(make_gan, pixels):
    losses = []
    for smoothing in (0.0, 0.5):
        gan = make_gan()
        gan.compile(label_smoothing=smoothing)
        losses.append(gan.fit(pixels[:8], batch_size=8, verbose=0).history["discriminator_loss"][0])
    # untrained logits are near 0: the cross-entropy is log 2 whatever the target, plus (target - 1) * logit
    assert losses[0] != losses[1] and abs(losses[0] - losses[1]) < 0.05


def test_generate_and_call_draw_from_the_average(pixels, tiny_gan):
    tiny_gan.fit(pixels, verbose=0)
    tiny_gan.ema_generator.set_weights([0 * weight for weight in tiny_gan.ema_generator.get_weights()])
    np.testing.assert_array_equal(tiny_gan.generate(2), 0.5)


@pytest.mark.parametrize("x", ["array", "dataset"])
def test_xla_trains_on_other_sizes_and_still_refuses_bad_pixels(pixels, tiny_gan, x):
    """XLA has no antialiased resize and drops assertions: both are done before it."""
    large = np.pad(pixels, ((0, 0), (8, 8), (0, 16), (0, 0)))

    def of(array):
        return array if x == "array" else tf.data.Dataset.from_tensor_slices(array).batch(8, drop_remainder=True)

    tiny_gan.compile(jit_compile=True)
    assert np.isfinite(tiny_gan.fit(of(large), batch_size=8, verbose=0).history["generator_loss"]).all()
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="divide by|Divide by"):
        tiny_gan.fit(of(large.astype(np.float32)), batch_size=8, verbose=0)


def test_the_average_follows_the_generator(make_gan, pixels):
    gan = make_gan()
    start = gan.generator.get_weights()[0]
    gan.fit(pixels[:8], batch_size=8, verbose=0)  # one step: keeps 1/10
    expected = 0.1 * start + 0.9 * gan.generator.get_weights()[0]
    np.testing.assert_allclose(gan.ema_generator.get_weights()[0], expected, rtol=1e-5)


def test_it_learns(boots):
    """Generated boots have the mean picture of real ones, far nearer than other garments do."""
    made = helpers.train_on(boots).generate(256).mean(0)[..., 0]
    real = boots.train.mean(0) / 255.0
    others = boots.test[boots.test_label == 1].mean(0) / 255.0
    assert np.abs(made - real).mean() < 0.3 * np.abs(others - real).mean()


def test_generate_is_deterministic_and_in_range(tiny_gan):
    one, other = tiny_gan.generate(5), tiny_gan.generate(5)
    assert one.shape == (5, 16, 16, 1) and one.min() >= 0.0 and one.max() <= 1.0
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, tiny_gan.generate(5, seed=1))


def test_uniform_prior_and_label_smoothing_are_saved(pixels, tmp_path):
    gan = GAN((16, 16, 1), 4, base_filters=4, prior="uniform")
    gan.compile(keras.optimizers.SGD(0.1), label_smoothing=0.1, ema_momentum=0.9)
    gan.fit(pixels, verbose=0)
    gan.save(tmp_path / "gan.keras")
    again = GAN.load(tmp_path / "gan.keras")
    assert (again.prior, again.label_smoothing, again.ema_momentum, again.seed) == ("uniform", 0.1, 0.9, 0)
    assert isinstance(again.optimizer, keras.optimizers.SGD)


def test_mixed_bfloat16_trains_and_keeps_pixels_whole(make_gan, pixels):
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        gan = make_gan()
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    history = gan.fit(pixels, verbose=0)
    assert gan.generator.compute_dtype == "bfloat16" and gan.generator.weights[0].dtype == "float32"
    assert gan.generate(2).dtype == np.float32
    assert np.asarray(gan.preprocessing(pixels[:1])).dtype == np.float32
    assert np.isfinite(history.history["generator_loss"]).all()


def test_keras_callbacks_and_tensorboard(pixels, tiny_gan, tmp_path):
    pytest.importorskip("tensorboard")
    callbacks = [
        keras.callbacks.TensorBoard(tmp_path / "logs"),
        keras.callbacks.ModelCheckpoint(tmp_path / "at-{epoch}.keras"),
        keras.callbacks.EarlyStopping("generator_loss", mode="min", patience=5),
    ]
    tiny_gan.fit(pixels, epochs=2, verbose=0, callbacks=callbacks)
    assert list((tmp_path / "logs").rglob("events.*"))
    assert_same(all_state(GAN.load(tmp_path / "at-2.keras")), all_state(tiny_gan))


def test_a_gan_that_was_never_compiled_is_saved_too(tmp_path):
    gan = GAN((16, 16, 1), 4, base_filters=4)
    gan.save(tmp_path / "gan.keras")
    np.testing.assert_array_equal(GAN.load(tmp_path / "gan.keras").generate(2), gan.generate(2))


def test_errors_name_the_remedy(pixels, tiny_gan):
    with pytest.raises(ValueError, match="Call compile"):
        GAN((16, 16, 1), 4, base_filters=4).fit(pixels)
    with pytest.raises(ValueError, match="x: image 3 holds NaN"):
        bad = np.full((8, 16, 16, 1), 0.5, np.float32)
        bad[3, 0, 0] = np.nan
        tiny_gan.fit(bad)
    with pytest.raises(ValueError, match="x is a generator; expected an array"):
        tiny_gan.fit(batch for batch in [pixels])
    with pytest.raises(ValueError, match=r"images of shape \(32, 32, 1\), the networks take"):
        GAN((16, 16, 1), 4, base_filters=4, preprocessing=Preprocessing((32, 32, 1)))
    with pytest.raises(ValueError, match="label_smoothing=1.5"):
        tiny_gan.compile(label_smoothing=1.5)
    with pytest.raises(ValueError, match="prior='cauchy'"):
        GAN((16, 16, 1), 4, base_filters=4, prior="cauchy")
    with pytest.raises(ValueError, match="Pixels hold .* outside"):
        tiny_gan.fit(tf.data.Dataset.from_tensor_slices(pixels.astype(np.float32)).batch(8), verbose=0)


def augmenting(**compiled):
    gan = GAN((16, 16, 1), 4, base_filters=4, preprocessing=Preprocessing((16, 16, 1), augment=AUGMENTATIONS))
    gan.compile(**compiled)
    return gan


def few(pixels, kind):
    return pixels[:8] if kind == "array" else tf.data.Dataset.from_tensor_slices(pixels[:8]).batch(8)


@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_augmentation_is_another_in_each_step_and_the_same_in_a_resumed_run(pixels, tmp_path, kind):
    whole, first = augmenting(), augmenting()
    whole.fit(few(pixels, kind), batch_size=8, epochs=4, verbose=0)
    first.fit(few(pixels, kind), batch_size=8, epochs=2, verbose=0)
    first.save(tmp_path / "gan.keras")
    second = GAN.load(tmp_path / "gan.keras")
    assert second.preprocessing.augment == AUGMENTATIONS
    second.fit(few(pixels, kind), batch_size=8, epochs=2, verbose=0)
    assert_same(all_state(whole), all_state(second))


@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_each_epoch_sees_the_images_changed_anew(pixels, monkeypatch, kind):
    gan, seen = augmenting(run_eagerly=True), []

    def note(images):
        seen.append(images.numpy())
        gan.batches_seen.assign_add(1)
        return {"loss": tf.constant(0.0)}

    monkeypatch.setattr(gan, "train_on_images", note)
    gan.fit(few(pixels, kind), batch_size=8, epochs=3, verbose=0)
    assert len(seen) == 3 and not np.array_equal(seen[0], seen[1]) and not np.array_equal(seen[1], seen[2])


def test_xla_augments_too(pixels):
    history = augmenting(jit_compile=True).fit(pixels, batch_size=8, verbose=0).history
    assert np.isfinite(history["generator_loss"]).all()


@pytest.mark.parametrize("options", [{"objective": "wgan-gp"}, {"objective": "hinge"}, {"self_supervision": 0.5}], ids=str)
def test_another_training_is_saved_and_resumes_to_the_bit(make_gan, options, pixels, tmp_path):
    whole, parted = (make_gan(**options) for _ in range(2))
    whole.fit(pixels, batch_size=4, epochs=2, verbose=0)
    parted.fit(pixels, batch_size=4, epochs=1, verbose=0)
    parted.save(tmp_path / "gan.keras")
    resumed = GAN.load(tmp_path / "gan.keras")
    assert {name: getattr(resumed, name) for name in options} == options
    resumed.fit(pixels, batch_size=4, epochs=2, initial_epoch=1, verbose=0)
    for one, other in zip(whole.weights, resumed.weights):
        np.testing.assert_array_equal(one, other)


def test_the_discriminator_learns_to_tell_transforms_apart(boots):
    gan = GAN((28, 28, 1), base_filters=4, self_supervision=1.0)
    gan.compile()
    history = gan.fit(boots.train[:800], epochs=4, verbose=0).history["transform_loss"]
    assert history[0] < np.log(36) + 0.1 and history[-1] < 0.7 * history[0]
    with pytest.raises(ValueError, match="self_supervision=-1 must be 0 or more"):
        GAN((28, 28, 1), self_supervision=-1)


def test_the_generator_waits_for_five_steps_of_the_wasserstein_critic(make_gan, pixels):
    gan = make_gan(objective="wgan-gp")
    before = [np.array(weight) for weight in gan.generator.trainable_variables]
    gan.fit(pixels[:16], batch_size=4, epochs=1, verbose=0)
    assert (int(gan.batches_seen), int(gan.optimizer.iterations)) == (4, 0)
    for one, other in zip(before, gan.generator.trainable_variables):
        np.testing.assert_array_equal(one, other)
    gan.fit(pixels[:12], batch_size=4, epochs=1, verbose=0)
    assert (int(gan.batches_seen), int(gan.optimizer.iterations)) == (7, 1)
    assert any((np.array(other) != one).any() for one, other in zip(before, gan.generator.trainable_variables))


def test_the_gradient_penalty_holds_the_slope_of_the_critic(make_gan, pixels):
    """The critic's slope between real and generated images, a few hundred steps on: near 1, where without a penalty it grows."""
    gan = make_gan(objective="wgan-gp")
    gan.compile(None, keras.optimizers.Adam(1e-3, beta_1=0.0, beta_2=0.9))
    gan.fit(pixels, batch_size=8, epochs=40, verbose=0)
    real = gan.preprocessing(pixels)
    penalty = gan._gradient_penalty(real, gan.generator(tf.zeros((len(pixels), 4)), training=False), 0)
    assert float(tf.reduce_mean(penalty)) < 0.3


def test_spectral_normalization_holds_the_largest_singular_value(make_gan, pixels):
    gan = make_gan(objective="hinge")
    gan.fit(pixels, batch_size=8, epochs=8, verbose=0)
    for name in ("down1", "down2", "logit"):
        kernel = np.array(gan.discriminator.get_layer(name).layer.kernel)
        assert np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0] == pytest.approx(1.0, abs=0.1), name


def test_layer_normalization_is_of_each_image_alone(make_gan):
    critic = make_gan(objective="wgan-gp").discriminator
    images = np.random.default_rng(0).uniform(-1, 1, (6, 16, 16, 1)).astype(np.float32)
    np.testing.assert_allclose(critic(images, training=True)[:2], critic(images[:2], training=True), atol=1e-5)


def test_label_smoothing_is_dcgan_s_alone():
    with pytest.raises(ValueError, match="label_smoothing=0.1 is for the objective 'dcgan'"):
        GAN((16, 16, 1), 4, base_filters=4, objective="hinge").compile(label_smoothing=0.1)
    with pytest.raises(ValueError, match="objective='lsgan' is not one of"):
        GAN((16, 16, 1), 4, base_filters=4, objective="lsgan")


def test_validation_is_logged_and_nothing_is_learned_from_it(pixels):
    alone, watched = both = [helpers.make_gan(self_supervision=0.5) for _ in range(2)]
    alone.fit(pixels, batch_size=8, epochs=2, verbose=0)
    history = watched.fit(pixels, batch_size=8, epochs=2, validation_data=255 - pixels[:10], verbose=0).history
    names = ("discriminator_loss", "generator_loss", "real_score", "fake_score", "transform_loss")
    assert all(len(history[name]) == len(history[f"val_{name}"]) == 2 for name in names)
    assert_same(*(all_state(gan) for gan in both))
    found = watched.evaluate(255 - pixels[:10], batch_size=8, verbose=0, return_dict=True)
    assert found == pytest.approx({name: history[f"val_{name}"][-1] for name in names}, rel=1e-5)
    again = watched.evaluate(tf.data.Dataset.from_tensor_slices(255 - pixels[:10]).batch(8), verbose=0, return_dict=True)
    assert again == pytest.approx(found, rel=1e-5)


def test_a_memorized_image_looks_more_real_than_another(pixels):
    """What `validation_data` is to show: a discriminator that knows its images by heart."""
    gan = helpers.make_gan()
    gan.fit(np.repeat(pixels[:8], 40, axis=0), batch_size=8, epochs=10, verbose=0)
    known, new = (gan.evaluate(images, verbose=0, return_dict=True)["real_score"] for images in (pixels[:8], pixels[8:]))
    assert known > new + 0.2


def test_what_a_gan_cannot_do_it_says(tiny_gan, pixels):
    with pytest.raises(NotImplementedError, match=r"GAN.train_on_batch\(\) isn't available: call fit\(\)"):
        tiny_gan.train_on_batch(pixels)
    with pytest.raises(ValueError, match=r"fit\(\) takes no labels, .* pass these, such as x\[y == 0\]"):
        tiny_gan.fit(pixels, np.zeros(40))
    with pytest.raises(ValueError, match=r"Call compile\(\) before evaluate"):
        GAN((16, 16, 1), 4, base_filters=4).evaluate(pixels)


def test_sizes_that_contradict_the_networks_are_errors(tiny_gan):
    with pytest.raises(ValueError, match=r"image_shape=\(28, 28, 1\) contradicts the generator, which has \(16, 16, 1\)"):
        GAN((28, 28, 1), generator=tiny_gan.generator)
    with pytest.raises(ValueError, match="latent_dim=32 contradicts the generator, which has 4"):
        GAN(latent_dim=32, generator=tiny_gan.generator)
    assert GAN(generator=tiny_gan.generator, base_filters=4).image_shape == (16, 16, 1)


class Series:
    """What is used of pandas'."""

    iloc = None

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._values, dtype)


@pytest.mark.parametrize(
    "given, message",
    [
        (lambda pixels: "parts/good", r"x holds the path 'parts/good', not pixels: load_images\('parts/good'\).pixels reads"),
        (lambda pixels: ["a.png", "b.png"], "x holds the path 'a.png'"),
        (lambda pixels: Images(list(pixels), [], []), "x is what load_images gives, with names and all; pass x.pixels"),
        (lambda pixels: {"image": pixels}, r"x holds a dict with image; .* such as x\['image'\]"),
        (lambda pixels: Series([0, 1]), r"x is a Series; pass its images as a list of arrays: list\(x\)"),
        (lambda pixels: tf.data.Dataset.from_tensor_slices(pixels), r"single images \(16, 16, 1\); batch it: x.batch\(16\)"),
        (lambda pixels: tf.data.Dataset.from_tensors({"image": pixels}), r"dataset of dicts; .* x.map\(lambda row"),
        (lambda pixels: tf.data.Dataset.from_tensors(pixels.astype(np.float32)), "Pixels hold .* floats outside"),
        (lambda pixels: np.moveaxis(np.repeat(pixels, 3, -1), -1, 1), "channels first; expected"),
    ],
    ids=["a path", "paths", "images and names", "a dict", "a series", "unbatched", "dicts", "0 to 255", "channels first"],
)
def test_what_is_often_given_in_place_of_pixels_names_the_remedy(tiny_gan, tiny_detector, pixels, given, message):
    for method in (lambda x: tiny_gan.fit(x, verbose=0), lambda x: tiny_gan.evaluate(x, verbose=0), tiny_detector.predict):
        with pytest.raises(ValueError, match=message) as error:
            method(given(np.asarray(pixels)))
        assert len(str(error.value).splitlines()) == 1


def test_channels_first_is_refused(monkeypatch):
    monkeypatch.setattr("keras.config.image_data_format", lambda: "channels_first")
    with pytest.raises(ValueError, match=r"channels_first; .*set_image_data_format\('channels_last'\)"):
        Preprocessing((16, 16, 1))

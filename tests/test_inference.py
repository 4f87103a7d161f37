import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.networks import architectures
from anogan_tf.networks.inference import for_inference
from anogan_tf.runtime.backend import keras

pytestmark = [pytest.mark.usefixtures("networks"), pytest.mark.versions]

layers = keras.layers


def shaken(network, seed=0):
    """The same network with every weight moved, batch normalization's statistics too."""
    rng = np.random.default_rng(seed)
    network.set_weights(
        [np.abs(w + rng.normal(0.0, 0.2, w.shape)) + 0.1 if w.ndim == 1 else w * 5 for w in network.get_weights()]
    )
    return network


def normalizations(network):
    return [layer.name for layer in network.layers if isinstance(layer, layers.BatchNormalization)]


def inputs_of(network, count=3):
    return np.random.default_rng(1).normal(size=(count, *network.input_shape[1:])).astype(np.float32)


# 28: sides that are odd on the way, and so are cropped
@pytest.mark.parametrize("side", [16, 28])
@pytest.mark.parametrize("part", ["generator", "features", "discriminator", "encoder"])
def test_says_the_same_with_fewer_layers(part, side):
    shape = (side, side, 1)
    network = {
        "generator": lambda: architectures.build_generator(shape, 6, base_filters=4),
        "discriminator": lambda: architectures.build_discriminator(shape, base_filters=4),
        "features": lambda: architectures.feature_extractor(architectures.build_discriminator(shape, base_filters=4)),
        "encoder": lambda: architectures.build_encoder(shape, 6, base_filters=4),
    }[part]()
    network = shaken(network)
    x = inputs_of(network)
    folded = for_inference(network)
    np.testing.assert_allclose(folded(x, training=False), network(x, training=False), rtol=1e-4, atol=1e-4)
    assert normalizations(network) and not normalizations(folded)
    assert not folded.trainable_variables


@pytest.mark.parametrize("build", [architectures.build_discriminator, architectures.build_encoder])
def test_gradients_are_the_same(build):
    network = shaken(build((16, 16, 1), base_filters=4))
    gradients = []
    for model in (network, for_inference(network)):
        x = tf.constant(inputs_of(network))
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = model(x, training=False)
        gradients.append(tape.gradient(outputs, x))
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-4 * np.abs(gradients[0]).max())


def test_the_original_stays_as_it_is():
    network = shaken(architectures.build_generator((16, 16, 1), 4, base_filters=4))
    x = inputs_of(network)
    before = network(x, training=False).numpy()
    copy = for_inference(network)
    copy.set_weights([0 * w for w in copy.get_weights()])
    np.testing.assert_array_equal(network(x, training=False), before)
    assert network.trainable


def test_what_cannot_be_folded_stays():
    images = layers.Input((8, 8, 3))
    x = layers.BatchNormalization(name="after_input")(images)
    active = layers.Conv2D(4, 3, activation="relu", name="active")(x)
    x = layers.BatchNormalization(name="after_activation")(active)
    shared = layers.Conv2D(4, 3, padding="same", name="shared")(x)
    x = layers.Add()([layers.BatchNormalization(name="of_shared")(shared), shared])
    x = layers.Conv2D(4, 3, name="plain")(x)
    x = layers.BatchNormalization(name="of_plain", scale=False, center=False)(x)
    network = shaken(keras.Model(images, layers.GlobalAveragePooling2D()(layers.ReLU()(x))))
    x = inputs_of(network)
    folded = for_inference(network)
    np.testing.assert_allclose(folded(x, training=False), network(x, training=False), rtol=1e-3, atol=1e-4)
    assert normalizations(folded) == ["after_input", "after_activation", "of_shared"]


def test_a_layer_that_several_models_share(make_gan):
    gan = make_gan()
    discriminator = shaken(gan.discriminator)
    extractor = architectures.feature_extractor(discriminator)
    keras.Model(discriminator.input, discriminator(discriminator.input))  # the layers get second inputs
    x = inputs_of(extractor)
    np.testing.assert_allclose(for_inference(extractor)(x), extractor(x, training=False), rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close_and_leaves_in_float32():
    network = shaken(architectures.build_generator((16, 16, 1), 6, base_filters=4))
    x = inputs_of(network, 20)
    rounded, whole = for_inference(network, "bfloat16")(x), network(x, training=False)
    assert rounded.dtype == whole.dtype == "float32"
    assert 0 < np.abs(rounded - whole).mean() < 0.02
    assert {variable.dtype for variable in for_inference(network, "bfloat16").variables} == {"bfloat16"}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float32"])
def test_the_precision_is_what_was_asked_for_whatever_it_was_trained_in(policy):
    keras.config.set_dtype_policy(policy)
    try:
        network = architectures.build_generator((16, 16, 1), 4, base_filters=4)
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in for_inference(network).layers} == {"float32"}


@pytest.mark.parametrize("objective", ["wgan-gp", "hinge"])
def test_discriminators_of_other_objectives_calculate_the_same(make_gan, objective, pixels):
    gan = make_gan(objective=objective)
    gan.fit(pixels, batch_size=8, epochs=2, verbose=0)
    images = gan.preprocessing(pixels)
    expected = gan.discriminator(images, training=False)
    np.testing.assert_allclose(for_inference(gan.discriminator)(images), expected, rtol=1e-4, atol=1e-5)
    rough = for_inference(gan.discriminator, "bfloat16")
    assert rough.get_layer("down2").compute_dtype == "bfloat16"
    np.testing.assert_allclose(rough(images), expected, atol=0.05 * float(np.ptp(expected)) + 0.02)

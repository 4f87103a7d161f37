import keras
import numpy as np
import pytest

from anogan_tf.networks import architectures

SHAPES = [(28, 28, 1), (32, 32, 3), (48, 48, 1), (64, 64, 3), (128, 128, 1), (256, 256, 3), (16, 256, 1), (36, 100, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("networks")
def test_shapes_and_ranges(shape):
    generator = architectures.build_generator(shape, 5, base_filters=2)
    discriminator = architectures.build_discriminator(shape, base_filters=2)
    encoder = architectures.build_encoder(shape, 5, base_filters=2)
    images = np.asarray(generator(10 * np.ones((2, 5), np.float32)))
    assert images.shape == (2, *shape) and np.abs(images).max() <= 1.0
    assert discriminator(images).shape == (2, 1)
    assert encoder(images).shape == (2, 5)


@pytest.mark.usefixtures("networks")
def test_names():
    shape = (28, 28, 1)
    models = architectures.build_generator(shape), architectures.build_discriminator(shape), architectures.build_encoder(shape)
    assert [model.name for model in models] == ["generator", "discriminator", "encoder"]
    assert architectures.feature_extractor(models[1]).name == "feature_extractor"


@pytest.mark.usefixtures("networks")
def test_paper_preset_has_the_papers_filters():
    generator = architectures.build_generator((64, 64, 1), 100, preset="paper")
    discriminator = architectures.build_discriminator((64, 64, 1), preset="paper")
    assert generator.get_layer("unflatten").output.shape[1:] == (4, 4, 512)
    made = [layer for layer in generator.layers if isinstance(layer, keras.layers.Conv2DTranspose)]
    assert [layer.filters for layer in made] == [256, 128, 64, 1]
    judged = [layer for layer in discriminator.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in judged] == [64, 128, 256, 512]
    assert {layer.kernel_size for layer in made + judged} == {(5, 5)}


@pytest.mark.usefixtures("networks")
def test_feature_extractor_shares_weights_and_takes_the_layer_by_name():
    discriminator = architectures.build_discriminator((28, 28, 1), base_filters=4)
    features = architectures.feature_extractor(discriminator)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 28, 28, 1)).astype(np.float32)
    before = np.asarray(features(image))
    values = image
    for layer in discriminator.layers[1:]:  # layer by layer up to the one of that name, whose neighbours have its shape
        values = layer(values)
        if layer.name == "features":
            break
    np.testing.assert_allclose(before, values, rtol=1e-5)
    discriminator.get_layer("down1").kernel.assign(2 * discriminator.get_layer("down1").kernel)
    assert not np.allclose(before, features(image))
    assert architectures.feature_extractor(discriminator, "down1").output.shape == discriminator.get_layer("down1").output.shape


@pytest.mark.usefixtures("networks")
def test_unknown_feature_layer_lists_the_known_ones():
    with pytest.raises(ValueError, match="no layer named 'nowhere'.*features"):
        architectures.feature_extractor(architectures.build_discriminator((28, 28, 1), base_filters=2), "nowhere")


@pytest.mark.usefixtures("networks")
def test_same_seed_same_weights():
    def weights(seed):
        return architectures.build_generator((28, 28, 1), base_filters=2, seed=seed).get_weights()

    assert all((a == b).all() for a, b in zip(weights(3), weights(3)))
    assert not np.array_equal(weights(3)[0], weights(4)[0])


@pytest.mark.parametrize(
    "shape, message",
    [
        ((30, 28, 1), "divisible by 4"),
        ((12, 12, 1), "from 16 to 256"),
        ((260, 28, 1), "from 16 to 256"),
        ((28, 28, 2), "channels must be 1"),
        ((28, 28), r"\(height, width, channels\)"),
    ],
)
def test_impossible_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        architectures.build_generator(shape)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="latent_dim=0"):
        architectures.build_generator((28, 28, 1), 0)
    with pytest.raises(ValueError, match="preset='huge'.*light.*paper"):
        architectures.build_discriminator((28, 28, 1), preset="huge")
    with pytest.raises(ValueError, match="base_filters=0"):
        architectures.build_encoder((28, 28, 1), base_filters=0)


@pytest.mark.usefixtures("networks")
def test_pair_must_agree():
    generator = architectures.build_generator((28, 28, 1), base_filters=2)
    with pytest.raises(ValueError, match="must agree"):
        architectures.check_pair(generator, architectures.build_discriminator((32, 32, 1), base_filters=2))

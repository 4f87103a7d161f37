import keras
import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.preparation import Preparation, check_pixels, to_pixels

rng = np.random.default_rng(0)
BYTES = rng.integers(0, 256, (3, 16, 16, 1), np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [BYTES, BYTES[..., 0], BYTES.astype(np.uint16) * 257, BYTES / 255.0, (BYTES / 255.0).astype(np.float32)],
    ids=["uint8", "no channel axis", "uint16", "float64", "float32"],
)
def test_every_kind_of_pixels_means_the_same(pixels):
    images = np.asarray(Preparation((16, 16, 1))(pixels))
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, BYTES / 127.5 - 1.0, atol=1e-6)
    np.testing.assert_allclose(to_pixels(images), BYTES / 255.0, atol=1e-6)


def test_ranges_end_at_minus_one_and_one():
    ends = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(16, 1).repeat(8, 2)
    images = np.asarray(Preparation((16, 16, 1))(ends))
    assert images.min() == -1.0 and images.max() == 1.0


def test_resizing_keeps_constants_and_means():
    large = rng.integers(0, 256, (2, 64, 48, 1), np.uint8)
    small = np.asarray(Preparation((16, 16, 1)).prepare(large))
    np.testing.assert_allclose(small.mean((1, 2)), large.mean((1, 2)) / 255.0, atol=0.02)
    grey = np.full((1, 50, 33, 1), 77, np.uint8)
    np.testing.assert_allclose(Preparation((16, 16, 1)).prepare(grey), 77 / 255.0, atol=1e-6)


def test_resizing_twice_changes_nothing():
    preparation = Preparation((16, 16, 1))
    once = np.asarray(preparation.prepare(rng.integers(0, 256, (2, 40, 30, 3), np.uint8)))
    assert np.array_equal(once, preparation.prepare(once))
    assert once.min() >= 0.0 and once.max() <= 1.0


def test_grey_and_colour():
    colour = rng.uniform(size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(Preparation((16, 16, 1)).prepare(colour)[..., 0], colour @ [0.2989, 0.587, 0.114], atol=1e-4)
    grey = np.asarray(Preparation((16, 16, 3)).prepare(colour[..., :1]))
    assert (grey == colour[..., :1]).all() and grey.shape[-1] == 3


def test_same_answer_in_a_graph_with_open_shapes():
    preparation = Preparation((16, 16, 1))
    pixels = rng.integers(0, 256, (2, 40, 30, 3), np.uint8)
    graph = tf.function(preparation.prepare, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    assert np.array_equal(graph(pixels), preparation.prepare(pixels))


def test_config_round_trip():
    preparation = Preparation((16, 24, 3))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(preparation))
    assert again.image_shape == (16, 24, 3)


def with_value(value):
    pixels = np.full((4, 16, 16, 1), 0.5, np.float32)
    pixels[2, 3, 3] = value
    return pixels


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_valid_rows_finds_the_bad_image(value):
    assert np.asarray(Preparation((16, 16, 1)).valid_rows(with_value(value))).tolist() == [True, True, False, True]
    assert np.asarray(Preparation((16, 16, 1)).valid_rows(BYTES)).all()


@pytest.mark.parametrize(
    "pixels, message",
    [
        (with_value(np.nan), "queries: image 2 holds NaN or infinity"),
        (with_value(7.0), r"queries: float pixels must lie in \[0, 1\], these span \[0.5, 7\].*255"),
        (with_value(-np.inf), "must lie in"),
        (np.zeros((2, 16, 16), np.int64), "queries: pixels of dtype int64; expected uint8"),
        (np.zeros((2, 16, 16), bool), "dtype bool"),
        (np.zeros((2, 16, 16, 4), np.uint8), "queries: images with 4 channels; expected 1"),
        (np.zeros((2, 3, 16, 1), np.uint8), "images of 3x16 pixels; each side must have at least 4"),
        (np.zeros((16, 16), np.uint8), r"a single image; add the batch axis: queries\[None\]"),
        (np.zeros((16, 16, 3), np.uint8), "a single image"),
        (np.zeros((0, 16, 16), np.uint8), "queries holds no images"),
        (np.zeros((1, 1, 1, 16, 16), np.uint8), "expected .N, height, width"),
        (np.array([np.zeros((4, 4)), np.zeros((5, 5))], dtype=object), "differ in size"),
    ],
)
def test_bad_pixels_are_named_with_the_remedy(pixels, message):
    with pytest.raises(ValueError, match=message):
        check_pixels(pixels, "queries")


def test_read_takes_one_image():
    assert Preparation((16, 16, 1)).read(np.zeros((40, 20, 3), np.uint8)).shape == (16, 16, 1)
    with pytest.raises(ValueError, match="at least 4"):
        Preparation((16, 16, 1)).read(np.zeros((3, 20, 1), np.uint8))


def unknown(preparation, pixels):
    """`prepare` in a graph that knows neither size nor channels."""
    signature = [tf.TensorSpec((None, None, None, None), tf.float32)]
    return np.asarray(tf.function(preparation.prepare, signature, autograph=False)(pixels))


@pytest.mark.parametrize("wanted", [1, 3])
@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 16, 3), (16, 40, 1), (50, 9, 3)])
def test_graphs_for_any_size_and_channels_give_the_same_bits(shape, wanted):
    pixels = rng.uniform(size=(3, *shape)).astype(np.float32)
    preparation = Preparation((16, 16, wanted))
    np.testing.assert_array_equal(unknown(preparation, pixels), preparation.prepare(pixels))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((1, 16, 16, 2), r"images with\] \[2\] \[channels; expected 1 \(grey\) or 3"),
        ((1, 3, 16, 1), "each side needs at least 4"),
    ],
)
def test_graphs_for_any_size_say_what_they_expected(shape, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        unknown(Preparation((16, 16, 1)), np.zeros(shape, np.float32))

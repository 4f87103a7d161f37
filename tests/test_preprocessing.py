import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.data.augmentation import AUGMENTATIONS, augment_images
from anogan_tf.data.pixel_checks import check_pixels
from anogan_tf.data.preprocessing import Preprocessing, to_pixels, to_unit_range
from anogan_tf.runtime.remarks import Remark

rng = np.random.default_rng(0)
BYTES = rng.integers(0, 256, (3, 16, 16, 1), np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [BYTES, BYTES[..., 0], BYTES.astype(np.uint16) * 257, BYTES / 255.0, (BYTES / 255.0).astype(np.float32)],
    ids=["uint8", "no channel axis", "uint16", "float64", "float32"],
)
def test_every_kind_of_pixels_means_the_same(pixels):
    images = np.asarray(Preprocessing((16, 16, 1))(pixels))
    assert images.dtype == np.float32
    assert np.array_equal(images, (BYTES / 255.0).astype(np.float32) * np.float32(2) - np.float32(1))  # to the last bit
    np.testing.assert_allclose(to_pixels(images), BYTES / 255.0, atol=1e-6)


def test_ranges_end_at_minus_one_and_one():
    ends = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1).repeat(16, 1).repeat(8, 2)
    images = np.asarray(Preprocessing((16, 16, 1))(ends))
    assert images.min() == -1.0 and images.max() == 1.0


def test_resizing_keeps_constants_and_means():
    large = rng.integers(0, 256, (2, 64, 48, 1), np.uint8)
    small = np.asarray(Preprocessing((16, 16, 1)).prepare(large))
    np.testing.assert_allclose(small.mean((1, 2)), large.mean((1, 2)) / 255.0, atol=0.02)
    grey = np.full((1, 50, 33, 1), 77, np.uint8)
    np.testing.assert_allclose(Preprocessing((16, 16, 1)).prepare(grey), 77 / 255.0, atol=1e-6)


def test_resizing_twice_changes_nothing():
    preprocessing = Preprocessing((16, 16, 1))
    once = np.asarray(preprocessing.prepare(rng.integers(0, 256, (2, 40, 30, 3), np.uint8)))
    assert np.array_equal(once, preprocessing.prepare(once))
    assert once.min() >= 0.0 and once.max() <= 1.0


def test_grey_and_colour():
    colour = rng.uniform(size=(2, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(Preprocessing((16, 16, 1)).prepare(colour)[..., 0], colour @ [0.299, 0.587, 0.114], atol=1e-6)
    grey = np.asarray(Preprocessing((16, 16, 3)).prepare(colour[..., :1]))
    assert (grey == colour[..., :1]).all() and grey.shape[-1] == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_is_its_quotient_to_the_last_bit(dtype):
    """What a client has divided itself is the same picture."""
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    expected = (levels / np.float64(levels[-1])).astype(np.float32)
    np.testing.assert_array_equal(to_unit_range(levels), expected)
    np.testing.assert_array_equal(to_unit_range(expected), expected)
    for convert in (to_unit_range, tf.function(to_unit_range), tf.function(to_unit_range, jit_compile=True)):
        np.testing.assert_array_equal(convert(tf.constant(levels)), expected)
        np.testing.assert_array_equal(convert(tf.constant(levels.astype(np.float32) / np.float32(levels[-1]))), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_kept_as_colour_is_the_same_picture(dtype):
    top = np.iinfo(dtype).max if dtype != np.float32 else 1.0
    grey = (rng.uniform(size=(2, 20, 24, 1)) * top).astype(dtype)
    for settings in ({}, {"normalize": True}):
        preprocessing = Preprocessing((16, 16, 1), **settings)
        expected = preprocessing.prepare(grey)
        np.testing.assert_array_equal(preprocessing.prepare(np.repeat(grey, 3, -1)), expected)
        open_ = tf.function(preprocessing.prepare, input_signature=[tf.TensorSpec((None,) * 4, dtype)])
        np.testing.assert_array_equal(open_(np.repeat(grey, 3, -1)), expected)


def test_values_that_are_all_but_black_are_said():
    twelve = rng.integers(0, 4096, (2, 16, 16), np.uint16)
    with pytest.warns(Remark, match="x: 16 bits and no value above 4095, nearly black .* --range 0:4095"):
        Preprocessing((16, 16, 1)).check(twelve, "x")
    with pytest.warns(Remark, match=r"x: all values lie in \[0, 1\], nearly black where 0 to 4095 is expected"):
        Preprocessing((16, 16, 1), value_range=(0, 4095)).check(twelve / 4095.0, "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Preprocessing((16, 16, 1), value_range=(0, 4095)).check(twelve, "x")
        Preprocessing((16, 16, 1)).check(np.full((1, 16, 16), 9, np.uint16), "black")
        Preprocessing((16, 16, 1), value_range=(0, 4095)).check(np.zeros((1, 16, 16)), "black")


def test_same_answer_in_a_graph_with_open_shapes():
    preprocessing = Preprocessing((16, 16, 1))
    pixels = rng.integers(0, 256, (2, 40, 30, 3), np.uint8)
    graph = tf.function(preprocessing.prepare, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
    assert np.array_equal(graph(pixels), preprocessing.prepare(pixels))


def test_config_round_trip():
    settings = {"fit": "pad", "value_range": (0.0, 4095.0), "normalize": True, "augment": ("mirror",)}
    preprocessing = Preprocessing((16, 24, 3), **settings)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(preprocessing))
    assert again.image_shape == (16, 24, 3) and {name: getattr(again, name) for name in settings} == settings


def with_value(value):
    pixels = np.full((4, 16, 16, 1), 0.5, np.float32)
    pixels[2, 3, 3] = value
    return pixels


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_valid_rows_finds_the_bad_image(value):
    assert np.asarray(Preprocessing((16, 16, 1)).valid_rows(with_value(value))).tolist() == [True, True, False, True]
    assert np.asarray(Preprocessing((16, 16, 1)).valid_rows(BYTES)).all()


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
    assert Preprocessing((16, 16, 1)).read(np.zeros((40, 20, 3), np.uint8)).shape == (16, 16, 1)
    with pytest.raises(ValueError, match="at least 4"):
        Preprocessing((16, 16, 1)).read(np.zeros((3, 20, 1), np.uint8))


def unknown(preprocessing, pixels):
    """`prepare` in a graph that knows neither size nor channels."""
    signature = [tf.TensorSpec((None, None, None, None), tf.float32)]
    return np.asarray(tf.function(preprocessing.prepare, signature, autograph=False)(pixels))


@pytest.mark.parametrize("wanted", [1, 3])
@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 16, 3), (16, 40, 1), (50, 9, 3)])
def test_graphs_for_any_size_and_channels_give_the_same_bits(shape, wanted):
    pixels = rng.uniform(size=(3, *shape)).astype(np.float32)
    preprocessing = Preprocessing((16, 16, wanted))
    np.testing.assert_array_equal(unknown(preprocessing, pixels), preprocessing.prepare(pixels))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((1, 16, 16, 2), r"images with\] \[2\] \[channels; expected 1 \(grey\) or 3"),
        ((1, 3, 16, 1), "each side needs at least 4"),
    ],
)
def test_graphs_for_any_size_say_what_they_expected(shape, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        unknown(Preprocessing((16, 16, 1)), np.zeros(shape, np.float32))


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (16, 24), (200, 9), (5, 300)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("normalize", [False, True])
def test_any_shape_fits_and_graphs_agree_to_the_bit(shape, fit, normalize):
    pixels = rng.integers(0, 256, (3, *shape, 3), np.uint8)
    preprocessing = Preprocessing((16, 24, 1), fit=fit, normalize=normalize)
    images = np.asarray(preprocessing.prepare(pixels))
    assert images.shape == (3, 16, 24, 1) and images.min() >= 0.0 and images.max() <= 1.0
    graph = tf.function(preprocessing.prepare, [tf.TensorSpec((None, None, None, 3), tf.uint8)])
    np.testing.assert_array_equal(graph(pixels), images)
    np.testing.assert_array_equal(preprocessing.prepare(pixels[1:2])[0], images[1])  # whoever is beside it


def test_padding_keeps_the_aspect_ratio_and_repeats_the_edge():
    pixels = np.full((1, 8, 4, 1), 100, np.uint8)
    pixels[:, :, 3] = 200
    images = np.asarray(Preprocessing((16, 16, 1), fit="pad").prepare(pixels))[0, ..., 0] * 255
    np.testing.assert_allclose(images[:, :4], 100, atol=1e-3)  # beside it, and its own first column
    np.testing.assert_allclose(images[:, 12:], 200, atol=1e-3)


def test_cropping_keeps_the_middle():
    pixels = np.zeros((1, 8, 40, 1), np.uint8)
    pixels[:, :, 16:24] = 200
    images = np.asarray(Preprocessing((16, 16, 1), fit="crop").prepare(pixels))
    np.testing.assert_allclose(images, 200 / 255, atol=1e-6)


@pytest.mark.parametrize("fit, spot", [("stretch", (30, 10)), ("pad", (30, 10)), ("crop", (30, 22))])
def test_maps_find_their_way_back(fit, spot):
    """A bright spot of an image is bright in its map at the same place."""
    pixels = np.zeros((1, 40, 60, 1), np.uint8)
    pixels[0, spot[0] - 3 : spot[0] + 3, spot[1] - 3 : spot[1] + 3] = 255
    preprocessing = Preprocessing((32, 32, 1), fit=fit)
    prepared = np.asarray(preprocessing.prepare(pixels))[..., 0]
    found = np.asarray(preprocessing.restore(prepared, (40, 60)))[0]
    assert found.shape == (40, 60)
    y, x = (np.average(np.indices(found.shape)[axis], weights=found) for axis in (0, 1))
    np.testing.assert_allclose((y, x), np.array(spot) - 0.5, atol=0.8)
    # `window` says the same: the spot's place in the prepared image, measured by it.
    top, left, bottom, right = np.asarray(preprocessing.window(np.array([[40, 60]])))[0]
    y, x = ((np.average(np.indices((32, 32))[axis], weights=prepared[0]) + 0.5) / 32 for axis in (0, 1))
    np.testing.assert_allclose((top + y * (bottom - top), left + x * (right - left)), np.array(spot) / (40, 60), atol=0.02)


def test_own_size_times_a_scale():
    preprocessing = Preprocessing((None, None, 1), scale=0.5)
    assert preprocessing.prepare(BYTES[:, :9]).shape == (3, 4, 8, 1)  # 4.5 is rounded to the even, as TensorFlow does
    assert preprocessing.prepare(BYTES[:, :5]).shape == (3, 4, 8, 1)  # no side below 4
    assert np.array_equal(Preprocessing((None, None, 1)).prepare(BYTES), BYTES / np.float32(255))


def test_normalized_images_are_alike_whatever_their_exposure():
    preprocessing = Preprocessing((16, 16, 1), normalize=True)
    image = rng.normal(100, 20, (1, 16, 16, 1)).clip(0, 200)
    bright, dark = (np.asarray(preprocessing(np.float32(values / 255))) for values in (image + 30, image * 0.5))
    np.testing.assert_allclose(bright, dark, atol=1e-4)
    np.testing.assert_allclose((bright.mean(), bright.std()), (0, 1 / 3), atol=0.01)  # a deviation is a third
    flat = np.asarray(preprocessing(np.full((1, 16, 16, 1), 77, np.uint8)))
    np.testing.assert_array_equal(flat, 0.0)


def test_a_range_of_its_own_for_what_is_deeper_than_8_bits():
    preprocessing = Preprocessing((16, 16, 1), value_range=(-1000.0, 3000.0))
    values = np.linspace(-2000, 4000, 256, dtype=np.float32).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(preprocessing(values), np.clip((values + 1000) / 2000 - 1, -1, 1), atol=1e-6)
    np.testing.assert_allclose(preprocessing(np.full((1, 16, 16, 1), 1000, np.uint16)), 0.0, atol=1e-6)
    np.testing.assert_array_equal(preprocessing(BYTES), Preprocessing((16, 16, 1))(BYTES))
    assert np.asarray(preprocessing.valid_rows(np.stack([values[0], values[0] * np.inf]))).tolist() == [True, False]
    with pytest.raises(ValueError, match="image 0 holds NaN or infinity"):
        preprocessing.check(values * np.nan)


def test_augmentation_is_random_by_its_seed_and_never_where_images_are_scored():
    images = rng.uniform(size=(64, 16, 16, 1)).astype(np.float32)
    preprocessing = Preprocessing((16, 16, 1), augment=AUGMENTATIONS)
    np.testing.assert_array_equal(preprocessing.prepare(images), images)
    one, again, other = (np.asarray(augment_images(images, AUGMENTATIONS, seed)) for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other) and one.min() >= 0.0 and one.max() <= 1.0


@pytest.mark.parametrize(
    "name, possible",
    [
        ("mirror", [lambda x: x, lambda x: x[:, ::-1]]),
        ("flip", [lambda x: x, lambda x: x[::-1]]),
        ("rotate", [lambda x, turns=turns: np.rot90(x, turns) for turns in range(4)]),
        ("shift", [lambda x, dy=dy, dx=dx: np.pad(x, [(1, 1), (1, 1), (0, 0)], mode="edge")[1 + dy : 17 + dy, 1 + dx : 17 + dx]
                   for dy in (-1, 0, 1) for dx in (-1, 0, 1)]),
    ],
)  # fmt: skip
def test_each_augmentation_does_what_it_says(name, possible):
    images = rng.uniform(size=(100, 16, 16, 1)).astype(np.float32)
    changed = np.asarray(augment_images(images, [name], (0, 0)))
    which = [[np.array_equal(way(image), found) for way in possible].index(True) for image, found in zip(images, changed)]
    assert set(which) == set(range(len(possible)))  # and all of them happen


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"fit": "squeeze"}, "fit='squeeze' is not one of"),
        ({"scale": 0.5}, "is for images of their own size"),
        ({"scale": 2.0}, "must lie above 0"),
        ({"value_range": (3, 1)}, "the lower first"),
        ({"augment": ("turn",)}, "augment: 'turn' not among"),
        ({"image_shape": (16, None, 1)}, "must be .H, W, C., or .None, None, C."),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**{"image_shape": (16, 16, 1), **settings})

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.data.batching import batch_by_pixels, pad_and_stack, unpad
from anogan_tf.detection.tiling import Tiling, extract_tiles, pool, random_tiles, stitch, tile_grid, top_k_weights

rng = np.random.default_rng(0)
SIZES = [(40, 56), (16, 16), (23, 17), (9, 50), (5, 6)]  # the last two are smaller than a tile
TILE, STRIDE = (16, 16), 8


def batch_of(sizes):
    images = [rng.uniform(size=(*size, 3)).astype(np.float32) for size in sizes]
    filled, sizes = pad_and_stack(images)
    return images, filled, tile_grid(tf.constant(sizes), filled.shape[:3], TILE, STRIDE)


def starts(side, tile=16, stride=8):
    """Every `stride` pixels, and the last at the edge."""
    return [0] if side <= tile else [*range(0, side - tile, stride), side - tile]


def tiles_of(image):
    """What `extract_tiles` should give for one image: a plain loop, with NumPy's own mirrored padding."""
    height, width = image.shape[:2]
    wide = [(0, max(16 - side, 0)) for side in (height, width)]
    padded = np.pad(image, [*wide, (0, 0)], mode="symmetric")
    if height < 8 or width < 8:  # NumPy mirrors again and again, `extract_tiles` repeats the first row
        return None
    return [padded[y : y + 16, x : x + 16] for y in starts(height) for x in starts(width)]


def test_tiles_are_those_of_a_plain_loop():
    images, filled, grid = batch_of(SIZES)
    tiles, segment_ids = extract_tiles(filled, grid).numpy(), grid.segment_ids.numpy()
    assert np.bincount(segment_ids).tolist() == [len(starts(h)) * len(starts(w)) for h, w in SIZES]
    for number, image in enumerate(images):
        expected = tiles_of(image)
        if expected is not None:
            np.testing.assert_array_equal(tiles[segment_ids == number], expected)
    assert set(np.unique(tiles[segment_ids == 4])) <= set(np.unique(images[4]))


def test_a_tile_knows_which_sides_of_its_image_it_touches():
    images, _, grid = batch_of(SIZES)
    expected = []
    for height, width in (image.shape[:2] for image in images):
        for y in starts(max(height, 16)):
            for x in starts(max(width, 16)):
                expected.append((y == 0) + 2 * (y + 16 >= height) + 4 * (x == 0) + 8 * (x + 16 >= width))
    np.testing.assert_array_equal(grid.borders, expected)


def test_stitched_tiles_are_the_image_again_and_0_beyond_it():
    images, filled, grid = batch_of(SIZES)
    maps = stitch(extract_tiles(filled, grid), grid).numpy()
    for image, found in zip(images, unpad(maps, [image.shape[:2] for image in images])):
        np.testing.assert_allclose(found, image, rtol=1e-5)
    assert maps.sum() == pytest.approx(sum(image.sum() for image in images), rel=1e-5)


def test_stitching_is_a_weighted_mean_without_seams():
    """Tiles that are all alike, half as bad again in their outermost pixels: the map shows a fifth of that at most."""
    _, _, grid = batch_of([(64, 64)])
    one = np.pad(np.ones((14, 14), np.float32), 1, constant_values=1.5)
    found = stitch(tf.tile(one[np.newaxis, ..., np.newaxis], (49, 1, 1, 1)), grid).numpy()[0, ..., 0]
    taper = np.minimum(np.arange(1, 17), np.arange(16, 0, -1))
    weight, total, weights = np.multiply.outer(taper, taper), np.zeros((64, 64)), np.zeros((64, 64))
    for y in starts(64):
        for x in starts(64):
            total[y : y + 16, x : x + 16] += weight * one
            weights[y : y + 16, x : x + 16] += weight
    np.testing.assert_allclose(found, total / weights, rtol=1e-5)
    inner = found[16:-16, 16:-16]
    assert inner.min() == pytest.approx(1.0, abs=1e-5) and inner.max() < 1.12


def test_an_images_maps_and_score_do_not_depend_on_its_batch():
    images, filled, grid = batch_of(SIZES)
    maps = stitch(tf.square(extract_tiles(filled, grid)), grid).numpy()
    for number, image in enumerate(images):
        alone, sizes = pad_and_stack([image])
        one = tile_grid(tf.constant(sizes), alone.shape[:3], TILE, STRIDE)
        found = stitch(tf.square(extract_tiles(alone, one)), one).numpy()
        np.testing.assert_array_equal(found[0], maps[number, : image.shape[0], : image.shape[1]])


@pytest.mark.parametrize("top", [1, 3, 100])
def test_an_images_score_is_the_mean_of_its_highest_tiles(top):
    _, _, grid = batch_of(SIZES)
    segment_ids = grid.segment_ids.numpy()
    scores = rng.integers(0, 5, len(segment_ids)).astype(np.float32)  # with ties
    found = pool(scores, top_k_weights(scores, grid.segment_ids, top), grid.segment_ids)
    expected = [np.sort(scores[segment_ids == number])[::-1][:top].mean() for number in range(len(SIZES))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    weights = top_k_weights(scores, grid.segment_ids, top).numpy()
    assert [np.count_nonzero(weights[segment_ids == n]) for n in range(len(SIZES))] == np.minimum(
        np.bincount(segment_ids), top
    ).tolist()


def test_no_images_have_no_tiles():
    grid = tile_grid(tf.zeros((0, 2), tf.int32), (0, 16, 16), TILE, STRIDE)
    assert extract_tiles(tf.zeros((0, 16, 16, 3)), grid).shape == (0, 16, 16, 3)
    assert pool(tf.zeros(0), top_k_weights(tf.zeros(0), grid.segment_ids, 1), grid.segment_ids).shape == (0,)


def test_random_tiles_are_parts_of_the_image():
    image = np.arange(40 * 56, dtype=np.float32).reshape(40, 56, 1)
    tiles = random_tiles(image, TILE, 200, np.random.default_rng(1))
    corners = tiles[:, 0, 0, 0].astype(int)
    for tile, corner in zip(tiles, corners):
        y, x = divmod(corner, 56)
        np.testing.assert_array_equal(tile, image[y : y + 16, x : x + 16])
    assert corners.min() < 56 * 4 and (corners // 56).max() == 24 and (corners % 56).max() == 40
    np.testing.assert_array_equal(tiles, random_tiles(image, TILE, 200, np.random.default_rng(1)))
    assert random_tiles(image[:9], TILE, 3, rng).shape == (3, 16, 16, 1)


def test_groups_are_bounded_by_number_and_by_what_they_fill():
    images = [np.zeros((10, 10, 1)), np.zeros((10, 10, 1)), np.zeros((50, 5, 1)), np.zeros((4, 4, 1))]
    assert [len(group) for group in batch_by_pixels(images, 2)] == [2, 2]
    assert [len(group) for group in batch_by_pixels(images, 9, pixels=300)] == [2, 1, 1]
    assert [len(group) for group in batch_by_pixels(images, 9, pixels=1)] == [1, 1, 1, 1]
    assert [len(group) for group in batch_by_pixels(range(3), 2, lambda item: images[item])] == [2, 1]


@pytest.mark.parametrize("settings, message", [((0,), "stride=0 must"), ((17,), "would leave gaps"), ((8, 0), "top=0")])
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Tiling(*settings).check(16)

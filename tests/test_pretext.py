"""Transforms against NumPy's own turns and shifts."""

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.networks.pretext import transform, transform_tables

rng = np.random.default_rng(0)


@pytest.mark.parametrize(("side", "count"), [((8, 8), 36), ((8, 12), 18)])
def test_each_is_a_turn_and_a_shift_with_its_edge_mirrored(side, count):
    image = rng.random((*side, 2)).astype(np.float32)
    tables = transform_tables(*side)
    assert tables.shape == (count, side[0] * side[1])
    found = transform(tf.constant([image] * count), tf.constant(tables), tf.range(count)).numpy()
    expected = []
    down, right = side[0] // 4, side[1] // 4
    for turns in range(4) if count == 36 else (0, 2):
        turned = np.rot90(image, turns)
        for rows in (0, -down, down):
            for columns in (0, -right, right):
                padded = np.pad(turned, [(down, down), (right, right), (0, 0)], mode="reflect")
                expected.append(padded[down + rows :, right + columns :][: side[0], : side[1]])
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[0], image)


def test_an_image_gets_the_transform_of_its_number():
    images = rng.random((5, 8, 8, 1)).astype(np.float32)
    tables, numbers = tf.constant(transform_tables(8, 8)), [3, 0, 35, 9, 3]
    found = transform(tf.constant(images), tables, numbers).numpy()
    for one, image, number in zip(found, images, numbers):
        np.testing.assert_array_equal(one, transform(image[np.newaxis], tables, [number])[0])

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from anogan_tf.data.sources import ArraySource
from anogan_tf.workflows.choose import choose_form, choose_shape, edge_spread, lost_detail
from anogan_tf.workflows.options import TrainingOptions


def smooth(height, width, count=4, knots=5, seed=0):
    """Images that a few pixels can show, `[h, w, 1]` in [0, 1]."""
    small = np.random.default_rng(seed).integers(0, 256, (count, knots, knots), np.uint8)
    return [np.asarray(Image.fromarray(one).resize((width, height), 3), np.float32)[..., None] / 255 for one in small]


def noise(height, width, count=4):
    return list(np.random.default_rng(0).random((count, height, width, 1), np.float32))


def test_what_shrinking_loses():
    checks = np.tile(np.float32([[0, 1], [1, 0]]), (16, 16))[..., None]
    assert lost_detail([checks], 0.5) == pytest.approx(1.0, abs=0.02)  # of checks of one pixel nothing is left
    assert lost_detail([checks], 1.0) == 0.0
    assert lost_detail(smooth(64, 64), 0.5) < 0.01


@pytest.mark.parametrize(
    "images, chosen, said",
    [
        (smooth(28, 28), {"size": (28, 28)}, "images of 28x28: whole, at 28x28, as they are"),
        (smooth(30, 45), {"size": (32, 44)}, "images of 30x45: whole, at 32x44, as they are"),  # sides divisible by 4
        (smooth(300, 300), {"size": (28, 28)}, "images of 300x300: whole, at 28x28, which loses"),
        (noise(300, 300), {"patch": 32, "scale": 1.0}, "patches of 32x32, as they are, since whole, at 128 pixels, they"),
        (smooth(60, 240), {"patch": 32, "scale": 1.0}, "as they are, since one side is 4.0 times the other"),  # hold few patches
        (smooth(300, 900), {"patch": 32, "scale": 0.25}, "at 0.25 of their size, since one side is 3.0 times the other"),
        (smooth(100, 100) + smooth(100, 170), {"patch": 32, "scale": 1.0}, "of about 100x135: patches.*differ by a factor"),
        (noise(600, 3000, 1), {"patch": 32, "scale": 0.25}, "since one side is 5.0 times the other"),  # at most 1,024 pixels
    ],
)  # fmt: skip
def test_whole_images_or_patches(images, chosen, said):
    found, reason = choose_shape(images)
    assert found == chosen
    assert re.search(said, reason), reason


def test_what_is_asked_for_decides():
    images = smooth(64, 64)
    assert choose_shape(images, TrainingOptions(stride=8))[0]["patch"] == 32
    assert choose_shape(images, TrainingOptions(scale=0.5))[0] == {"patch": 32, "scale": 0.5}
    assert choose_shape(noise(200, 500), TrainingOptions(fit="pad"))[0] == {"size": (52, 128)}


def test_images_whose_light_differs_are_normalized():
    frames = [0.3 * image + level for image, level in zip(smooth(32, 32, 6), np.linspace(0, 0.7, 6))]
    objects = [np.pad(image * level, [(8, 8), (8, 8), (0, 0)]) for image, level in zip(smooth(16, 16, 6), np.linspace(0.3, 1, 6))]
    assert edge_spread(frames) > 1.0 and edge_spread(objects) == 0.0
    for images, normalize in ((frames, True), (objects, False)):
        options, line = choose_form(ArraySource(images, np.zeros(6)), TrainingOptions())
        assert options.normalize is normalize and ("each image is normalized" in line) is normalize
        assert options.size == (32, 32) and options.scale == 1.0
    kept, line = choose_form(ArraySource(frames, np.zeros(6)), TrainingOptions(size=(16, 16), normalize=False))
    assert (kept, line) == (TrainingOptions(size=(16, 16), normalize=False, scale=1.0), "")


def test_only_normal_images_to_train_on_are_looked_at():
    images = [*smooth(32, 32, 4), *noise(400, 900)]
    source = ArraySource(images, [0] * 4 + [1] * 4)
    assert choose_form(source, TrainingOptions())[0].size == (32, 32)
    source.entries = [entry._replace(normal=True, split="test" if entry.row > 3 else "") for entry in source.entries]
    assert choose_form(source, TrainingOptions())[0].size == (32, 32)


def test_a_second_look_changes_nothing():
    source = ArraySource(noise(64, 200), np.zeros(4))
    once, _ = choose_form(source, TrainingOptions())
    again, line = choose_form(source, once)
    assert dataclasses.asdict(again) == dataclasses.asdict(once) and not line

"""Defects that a comparator learns from: masks that cover every change, for every family, size and kind of image."""

import numpy as np
import pytest

from anogan_tf.data.defects import FAMILIES, FILLINGS, PLAIN, draw_defects, draw_example, vary_normal


def textures(shape=(32, 32, 1), count=4, mean=0.5, deviation=0.12):
    values = np.random.default_rng(0).normal(mean, deviation, (count, *shape))
    return values.clip(0, 1).astype(np.float32)


def drawn(images, seeds, **options):
    """`(original, changed, mask)` for each of so many seeds."""
    for seed in range(seeds):
        image = images[seed % len(images)]
        yield image, *draw_defects(image, images, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 40, 3), (28, 28, 1), (64, 64, 3), (100, 33, 1)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_covers_every_change_and_there_is_one(family, shape):
    for image, changed, mask in drawn(textures(shape), 12, families=[family]):
        assert changed.dtype == np.float32 and changed.shape == shape
        assert mask.dtype == bool and mask.shape == shape[:2] and mask.any()
        change = np.abs(changed - image).max(-1)
        assert not change[~mask].any() and change[mask].mean() > 0.01
        assert changed.min() >= 0.0 and changed.max() <= 1.0


@pytest.mark.parametrize("filling", FILLINGS)
def test_every_filling_can_be_seen(filling):
    found = [mask.any() for _, _, mask in drawn(textures(), 12, families=["area", "blob"], fillings=[filling])]
    assert np.mean(found) > 0.8


@pytest.mark.parametrize("images", [textures(mean=0.9, deviation=0.02), textures(mean=0.1, deviation=0.3)], ids=["pale", "harsh"])
def test_images_that_are_not_normalized(images):
    masks = [mask.any() for _, _, mask in drawn(images, 40)]
    assert np.mean(masks) > 0.9


def test_dark_and_bright_faint_and_strong_are_drawn():
    changes = [(changed - image)[mask].mean() for image, changed, mask in drawn(textures(), 200) if mask.any()]
    dark, bright = np.less(changes, -0.02).mean(), np.greater(changes, 0.02).mean()
    assert dark > bright > 0.15
    strengths = np.abs(changes)
    assert np.quantile(strengths, 0.1) < 0.06 < 0.2 < np.quantile(strengths, 0.9)


def test_the_same_generator_draws_the_same():
    images = textures((24, 24, 3))
    before = images.copy()
    for draw in (draw_defects, draw_example):
        (one, mask), (other, same), (third, _) = (draw(images[0], images, np.random.default_rng(seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(mask, same)
        assert (one != third).any()
    np.testing.assert_array_equal(images, before)


def test_a_family_can_be_left_out():
    """Spots are small: without the others no mask is large, and without spots the draws are other ones."""
    sizes = [mask.mean() for _, _, mask in drawn(textures((64, 64, 1)), 40, families=["spot"])]
    assert max(sizes) < 0.25
    left = [name for name in FAMILIES if name != "spot"]
    assert max(mask.mean() for _, _, mask in drawn(textures((64, 64, 1)), 40, families=left)) > 0.3


def test_what_can_t_be_seen_has_no_mask():
    """Dark stains on black, for one: nothing changes, and nothing is said to have changed."""
    black = np.zeros((3, 20, 20, 1), np.float32)
    seen = []
    for image, changed, mask in drawn(black, 60, families=["stain"]):
        seen.append(mask.any())
        assert seen[-1] == (changed != image).any()
    assert 0 < sum(seen) < len(seen)


def test_other_images_may_be_smaller_larger_or_none():
    image = textures((40, 24, 1))[0]
    for others in (textures((16, 20, 1)), textures((90, 90, 1)), [textures((16, 90, 1))[0], image], []):
        masks = [draw_defects(image, others, np.random.default_rng(seed), ["area"], ["other"])[1].any() for seed in range(10)]
        assert all(masks)


def test_normals_vary_and_stay_in_range():
    images = textures((32, 48, 3))
    varied = [vary_normal(images[0], np.random.default_rng(seed)) for seed in range(40)]
    assert all(one.dtype == np.float32 and one.shape == images[0].shape for one in varied)
    assert min(one.min() for one in varied) >= 0.0 and max(one.max() for one in varied) <= 1.0
    assert np.mean([np.abs(one - images[0]).max() > 0.02 for one in varied]) > 0.5


def test_some_examples_have_no_defect():
    images = textures()
    found = [draw_example(images[0], images, np.random.default_rng(seed))[1].any() for seed in range(300)]
    assert abs(1 - np.mean(found) - PLAIN) < 0.08


def test_errors():
    image = textures()[0]
    with pytest.raises(ValueError, match=r"shape \(32, 32\) can't be drawn on; it must be"):
        draw_defects(image[..., 0], [], np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"families=\['rust'\] must be one or more of \['line'"):
        draw_defects(image, [], np.random.default_rng(0), families=["rust"])
    with pytest.raises(ValueError, match=r"fillings=\[\] must be one or more of"):
        draw_defects(image, [], np.random.default_rng(0), fillings=[])


def test_an_image_too_small_to_be_drawn_on_is_an_example_without_a_defect():
    image = np.random.default_rng(0).random((15, 40, 1), np.float32)
    for seed in range(5):
        shown, mask = draw_example(image, [image], np.random.default_rng(seed))
        np.testing.assert_array_equal(shown, image)
        assert not mask.any()

"""Drawn defects: their masks, and the source that hands them out."""

import numpy as np
import pytest
from PIL import Image

from anogan_tf.data.preprocessing import Preprocessing, to_pixels
from anogan_tf.data.sources import ArraySource, FileSource, read_samples
from anogan_tf.data.synthetic import DEFECTS, SyntheticSource, draw_defect


def texture(shape=(48, 64, 1), dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).normal(0.5, 0.12, shape).clip(0, 1)
    return (values * 255).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)


@pytest.mark.parametrize("kind", DEFECTS)
@pytest.mark.parametrize("pixels", [texture(), texture((20, 33, 3), np.float32), texture((40, 40, 1), np.uint16)], ids=str)
def test_nothing_changes_outside_the_mask(kind, pixels):
    for seed in range(5):
        drawn, mask = draw_defect(kind, pixels, np.random.default_rng(seed))
        assert drawn.dtype == pixels.dtype and drawn.shape == pixels.shape and mask.shape == pixels.shape[:2]
        differs = (drawn != pixels).any(axis=-1)
        assert not (differs & ~mask).any()
        assert differs[mask].mean() > 0.8
        assert 0 < mask.sum() < 0.3 * mask.size
        assert pixels.min() <= drawn.min() and drawn.max() <= pixels.max()


@pytest.mark.parametrize("kind", DEFECTS)
def test_the_same_seed_draws_the_same(kind):
    (one, mask), (other, same), (third, _) = (draw_defect(kind, texture(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(mask, same)
    assert (one != third).any()


def test_defects_on_a_boot_can_be_seen(boots):
    """A hole lies in the boot, not beside it."""
    for image in boots.train[:10]:
        drawn, mask = draw_defect("missing piece", image[..., np.newaxis], np.random.default_rng(0))
        assert np.abs(drawn[..., 0].astype(float) - image)[mask].mean() > 50


def test_an_image_of_one_value():
    flat = np.full((16, 16, 1), 7, np.uint8)
    for kind in DEFECTS:
        drawn, mask = draw_defect(kind, flat, np.random.default_rng(0))
        np.testing.assert_array_equal(drawn, flat)
        assert not mask.any()


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="kind='rust' is not one of .*scratch"):
        draw_defect("rust", texture(), np.random.default_rng(0))


def test_each_normal_has_a_twin_with_a_defect(tmp_path):
    images = [texture((24, 24), seed=seed) for seed in range(6)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    source = SyntheticSource(FileSource.of(tmp_path), [0, 2, 3, 5])
    assert [entry.normal for entry in source.entries] == [True, False] * 4
    assert [entry.label for entry in source.entries[1::2]] == list(DEFECTS)
    wanted = [0, 1, 3, 6]
    samples = list(read_samples(source, Preprocessing((24, 24, 1)), wanted))
    assert [sample.row for sample in samples] == wanted
    for sample, mask in zip(samples, source.masks(wanted)):
        plain = images[[0, 2, 3, 5][sample.row // 2]] / 255.0
        differs = np.abs(to_pixels(sample.image)[..., 0] - plain) > 0.5 / 255.0
        if sample.entry.normal:
            assert mask is None and not differs.any()
        else:
            assert differs.any() and not (differs & ~mask).any()


def test_what_can_t_be_read_is_passed_over(tmp_path):
    Image.fromarray(texture((24, 24))).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    source = SyntheticSource(FileSource.of(tmp_path), [0, 1])
    samples = list(read_samples(source, Preprocessing((24, 24, 1))))
    assert [sample.image is None for sample in samples] == [False, False, True, True]
    assert [mask is None for mask in source.masks(range(4))] == [True, False, True, True]


def test_an_image_on_which_no_defect_shows_is_no_anomaly():
    flat = ArraySource([np.full((20, 20), 7, np.uint8)] * 2, [0, 0])
    samples = list(read_samples(SyntheticSource(flat, [0, 1]), Preprocessing((20, 20, 1))))
    assert [sample.reason for sample in samples] == ["", "no defect would show on it"] * 2


def test_a_source_of_arrays():
    pixels = [texture((20, 24)), texture((30, 20, 3))]
    masks = [None, np.eye(30, 20)]
    source = ArraySource(pixels, ["ok", "bent"], "ok", masks=masks, splits=["train", "test"])
    assert [(entry.label, entry.normal, entry.split) for entry in source.entries] == [
        ("ok", True, "train"),
        ("bent", False, "test"),
    ]
    assert source.read(0).pixels.shape == (20, 24, 1) and source.info(1).channels == 3
    assert [mask if mask is None else mask.sum() for mask in source.masks([0, 1])] == [None, 20]
    assert [entry.normal for entry in ArraySource(pixels, [0, 1]).entries] == [True, False]
    for labels in (np.array([0, 1]), np.array([False, True])):
        assert [entry.normal is False for entry in ArraySource(pixels, labels).entries] == [False, True]
    with pytest.raises(ValueError, match="2 images, but 1 labels"):
        ArraySource(pixels, [0])
    with pytest.raises(ValueError, match="name what is normal"):
        ArraySource(pixels, ["ok", "bent"])
    with pytest.raises(ValueError, match="splits hold 'Test'"):
        ArraySource(pixels, [0, 1], splits="Test")

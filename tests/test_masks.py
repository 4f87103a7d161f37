"""Which files are masks, whose they are, and what their values mean."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from anogan_tf.data.entries import ImageRef
from anogan_tf.data.layouts import list_images
from anogan_tf.data.masks import as_mask, is_mask_folder, read_mask
from anogan_tf.data.sources import FileSource, normal_rows
from anogan_tf.runtime.remarks import Remark

rng = np.random.default_rng(0)
SHAPE = np.zeros((12, 14), bool)
SHAPE[3:6, 4:9] = True


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, SHAPE.shape, np.uint8)).save(path)


def mask(path, shape=SHAPE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shape.astype(np.uint8) * 255).save(path)


def found(folder):
    return {
        entry.path[len(str(folder)) + 1 :]: tuple(file[len(str(folder)) + 1 :] for file in entry.masks)
        for entry in list_images(folder)
    }


@pytest.mark.parametrize(
    "name", ["masks", "mask_dir", "ground_truth", "Label", "gt", "GroundTruth", "test_masks", "Segmentations"]
)
def test_a_folder_of_masks_is_no_kind_of_anomaly(tmp_path, name):
    for row in range(3):
        picture(tmp_path / "good" / f"{row}.png")
    picture(tmp_path / "bad" / "7.png")
    mask(tmp_path / name / "7.png")
    assert is_mask_folder(name)
    entries = list_images(tmp_path)
    assert {entry.label for entry in entries} == {"good", "bad"} and found(tmp_path)["bad/7.png"] == (f"{name}/7.png",)


@pytest.mark.parametrize("name", ["good", "scratch", "no_label", "missing mask", "goods", "images"])
def test_other_folders_are_none(name):
    assert not is_mask_folder(name)


@pytest.mark.parametrize("suffix", ["_GT", "_mask", "_label", "-gt", ".mask", "_ground_truth"])
def test_a_mask_beside_its_image_is_never_trained_on(tmp_path, suffix):
    """Of images without labels those are anomalous whose mask isn't empty."""
    for name, shape in (("1", SHAPE), ("2", ~SHAPE & False), ("3", None)):
        picture(tmp_path / f"{name}.png")
        if shape is not None:
            mask(tmp_path / f"{name}{suffix}.png", shape)
    with pytest.warns(Remark, match="1 images have a mask that isn't empty, so they are anomalous; the other 2 normal"):
        entries = list_images(tmp_path)
    assert [(entry.path[-5:], entry.normal) for entry in entries] == [("1.png", False), ("2.png", True), ("3.png", True)]
    assert 0 not in normal_rows(FileSource(entries))


def test_a_file_called_like_a_mask_without_its_image_is_an_image(tmp_path):
    picture(tmp_path / "bottle_label.png")
    assert found(tmp_path) == {"bottle_label.png": ()}


def test_a_mask_of_the_same_name_and_another_suffix(tmp_path):
    for name in "12":
        picture(tmp_path / f"{name}.jpg")
        mask(tmp_path / f"{name}.png", SHAPE if name == "1" else SHAPE & False)
    assert [entry.normal for entry in list_images(tmp_path)] == [False, True]
    for name in "34":
        for suffix in ("jpg", "png"):
            picture(tmp_path / "twice" / f"{name}.{suffix}")
    assert len(list_images(tmp_path / "twice")) == 4  # both are pictures


def test_several_masks_of_an_image_are_joined(tmp_path):
    """As MVTec LOCO has them: a folder for each image."""
    picture(tmp_path / "train" / "good" / "000.png")
    picture(tmp_path / "test" / "logical" / "000.png")
    other = np.roll(SHAPE, 4, axis=0)
    mask(tmp_path / "ground_truth" / "logical" / "000" / "000.png")
    mask(tmp_path / "ground_truth" / "logical" / "000" / "001.png", other)
    entry = next(entry for entry in list_images(tmp_path) if entry.label == "logical")
    assert len(entry.masks) == 2
    np.testing.assert_array_equal(read_mask(entry), SHAPE | other)


def test_masks_in_a_tree_of_their_own(tmp_path):
    """As VisA has them, and DAGM."""
    for name in ("Images/Normal/000.png", "Images/Anomaly/000.png", "Images/Anomaly/001.png"):
        picture(tmp_path / "visa" / name)
    mask(tmp_path / "visa" / "Masks" / "Anomaly" / "000.png")
    mask(tmp_path / "visa" / "Masks" / "Anomaly" / "777.png")
    with pytest.warns(Remark, match="1 masks belong to no image, the first .*777.png; 1 of 2 anomalous images have no mask"):
        assert found(tmp_path / "visa")["Images/Anomaly/000.png"] == ("Masks/Anomaly/000.png",)
    for name in ("Train/1.png", "Test/1.png", "Test/2.png"):
        picture(tmp_path / "dagm" / name)
    mask(tmp_path / "dagm" / "Test" / "Label" / "1_label.png")
    entries = {entry.path[len(str(tmp_path)) :]: entry for entry in list_images(tmp_path / "dagm")}
    assert {path: entry.normal for path, entry in entries.items()} == {
        "/dagm/Train/1.png": True,
        "/dagm/Test/1.png": False,
        "/dagm/Test/2.png": True,
    }
    assert [entry.split for entry in entries.values()] == ["train", "test", "test"]


def test_nothing_but_masks_is_said(tmp_path):
    mask(tmp_path / "masks" / "1.png")
    with pytest.raises(ValueError, match="nothing but masks .masks/1.png"):
        list_images(tmp_path)


@pytest.mark.parametrize("value", [1, 2, 100, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
def test_whatever_is_not_0_is_of_the_anomaly(value, dtype):
    np.testing.assert_array_equal(as_mask((SHAPE * value).astype(dtype)[..., np.newaxis]), SHAPE)


def test_labels_of_many_regions_and_of_channels():
    labels = np.zeros((12, 14), np.uint8)
    labels[:, 3:] = np.arange(1, 12)
    np.testing.assert_array_equal(as_mask(labels[..., np.newaxis]), labels > 0)
    red = np.zeros((12, 14, 3), np.uint8)
    red[SHAPE, 0] = 128
    np.testing.assert_array_equal(as_mask(red), SHAPE)


def test_soft_edges_are_cut_in_the_middle_and_said(tmp_path):
    large = np.kron(SHAPE, np.ones((7, 7), bool))
    mask(tmp_path / "1.png", large)
    Image.open(tmp_path / "1.png").save(tmp_path / "1.jpg", quality=60)
    with pytest.warns(Remark, match=r"1.jpg, a mask, holds \d+ values .* what lies above 127.5 is the anomaly"):
        found = read_mask(ImageRef("image", masks=(str(tmp_path / "1.jpg"),)))
    assert (found != large).mean() < 0.02


def test_probabilities_are_cut_in_the_middle():
    soft = np.linspace(0, 1, 12 * 14, dtype=np.float32).reshape(12, 14, 1)
    np.testing.assert_array_equal(as_mask(soft), soft[..., 0] > 0.5)


def test_palettes_and_transparency(tmp_path):
    indices = Image.fromarray(SHAPE.astype(np.uint8) * 3, "P")
    for name, colours in (("grey first", [90] * 3 + [0] * 6), ("bright", [0] * 3 + [255] * 9)):
        indices.putpalette([*colours, *[200] * (768 - len(colours))])
        indices.save(tmp_path / f"{name}.png")
    ones = Image.fromarray(1 - SHAPE.astype(np.uint8), "P")  # white on black, black being called 1
    ones.putpalette([255] * 3 + [0] * 765)
    ones.save(tmp_path / "turned.png")
    drawn = np.full((12, 14, 4), 40, np.uint8)
    drawn[..., 3] = SHAPE * 200
    Image.fromarray(drawn).save(tmp_path / "alpha.png")
    opaque = np.dstack([SHAPE.astype(np.uint8) * 255] * 3 + [np.full_like(SHAPE, 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    for file in tmp_path.iterdir():
        np.testing.assert_array_equal(read_mask(ImageRef("image", masks=(str(file),))), SHAPE, err_msg=file.name)


def test_a_stack_of_masks_is_of_the_pages_of_a_stack(tmp_path):
    shapes = np.stack([SHAPE, np.roll(SHAPE, 3, axis=1)])
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(0, 256, shapes.shape, np.uint8))
    tifffile.imwrite(tmp_path / "a_mask.tif", shapes.astype(np.uint8) * 255)
    first, second = list_images(tmp_path)
    assert second.name == f"{tmp_path / 'a.tif'}#2"
    np.testing.assert_array_equal(read_mask(first), shapes[0])
    np.testing.assert_array_equal(read_mask(second), shapes[1])


def test_a_mask_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "m.png").write_text("hello")
    with pytest.raises(ValueError, match="m.png, the mask of image: .*unknown format"):
        read_mask(ImageRef("image", masks=(str(tmp_path / "m.png"),)))

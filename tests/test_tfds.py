"""Sets of tensorflow-datasets: with tfds's own mocking, and one that is prepared from files on disk."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from anogan_tf.data import tfds_sets
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.data.sources import FileSource, normal_rows, read_samples, rows_to_score
from anogan_tf.data.tfds_sets import TfdsSource, prepare_set

rng = np.random.default_rng(0)


def test_any_labelled_set(tmp_path, monkeypatch):
    monkeypatch.setattr(
        tfds.core.DatasetInfo, "splits", dict.fromkeys(("test", "train"), SimpleNamespace(num_bytes=0))
    )  # the mocked set knows none
    with tfds.testing.mock_data(num_examples=30):
        source = TfdsSource("mnist", "8", tmp_path)
        labels = [entry.label for entry in source.entries]
        assert len(labels) == 60 and [entry.split for entry in source.entries] == ["train"] * 30 + ["test"] * 30
        assert [entry.normal for entry in source.entries] == [label == "8" for label in labels]
        rows = rows_to_score(source)
        assert rows == list(range(30, 60))
        samples = list(read_samples(source, Preprocessing((28, 28, 1)), rows, display_side=28))
        assert [sample.row for sample in samples] == rows and samples[0].image.shape == (28, 28, 1)
        assert source.entries[30].name.endswith(":test[0]") and source.info(0) == (1, False)


@pytest.mark.parametrize(
    "normal_class, message", [(None, "name the label that is normal"), ("boot", "has no label 'boot'; it has 0, 1, 2")]
)
def test_the_normal_label_is_named(tmp_path, normal_class, message):
    with tfds.testing.mock_data(num_examples=3), pytest.raises(ValueError, match=message):
        TfdsSource("mnist", normal_class, tmp_path)


def test_a_set_without_images_is_refused(tmp_path):
    with tfds.testing.mock_data(num_examples=3), pytest.raises(ValueError, match="no feature 'image'"):
        TfdsSource("iris", "0", tmp_path)


@pytest.fixture
def parts(tmp_path):
    """A set in the benchmark layout, of differing sizes and depths."""
    for row in range(6):
        for name in (f"train/good/{row}.png", f"test/good/{row}.png", f"test/crack/{row}.png"):
            path = tmp_path / "parts" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (20 + row, 24)
            pixels = rng.integers(0, 65536, shape).astype(np.uint16) if row % 2 else rng.integers(0, 256, shape, np.uint8)
            Image.fromarray(pixels).save(path)
    mask = tmp_path / "parts" / "ground_truth" / "crack" / "3_mask.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(np.uint8(rng.integers(0, 2, (23, 24)) * 255)).save(mask)
    return tmp_path / "parts"


def test_a_set_prepared_from_files_is_the_files(parts, tmp_path):
    files = FileSource.of(parts)
    folder = prepare_set(files, "mvtec/parts", tmp_path / "sets")
    assert folder == tmp_path / "sets" / "mvtec" / "parts" / "1.0.0"
    source = TfdsSource("mvtec/parts", data_dir=tmp_path / "sets")
    assert [entry[3:5] + (entry.split,) for entry in source.entries] == [entry[3:5] + (entry.split,) for entry in files.entries]
    preprocessing = Preprocessing((16, 16, 1))
    for one, other in zip(read_samples(files, preprocessing), read_samples(source, preprocessing)):
        np.testing.assert_allclose(one.image, other.image, atol=1e-6)
        assert one.row == other.row
    assert normal_rows(source) == normal_rows(files) and source.info(0).deep
    for version in ("1.0.0", "2.0.0"):
        named = f"mvtec/parts:{version}"
        if version == "1.0.0":
            assert len(TfdsSource(named, data_dir=tmp_path / "sets").entries) == 18
        else:
            with pytest.raises(
                ValueError, match="mvtec/parts:2.0.0: tensorflow-datasets knows no such set, and none is prepared in"
            ):
                TfdsSource(named, data_dir=tmp_path / "sets")
    examples = list(tfds.as_numpy(tfds.load("mvtec/parts", split="test", data_dir=tmp_path / "sets")))
    masked = [example for example in examples if example["has_mask"]]
    assert len(examples) == 12 and [example["name"].decode() for example in masked] == [str(parts / "test" / "crack" / "3.png")]
    mask = np.asarray(Image.open(parts / "ground_truth" / "crack" / "3_mask.png"))
    np.testing.assert_array_equal(masked[0]["mask"][..., 0], mask)
    with pytest.raises(FileExistsError, match="remove it, or choose another name"):
        prepare_set(files, "mvtec/parts", tmp_path / "sets")


def test_another_label_may_be_the_normal_one(parts, tmp_path):
    prepare_set(FileSource.of(parts), "parts", tmp_path / "sets")
    source = TfdsSource("parts", "crack", tmp_path / "sets")
    assert {entry.label for entry in source.entries if entry.normal} == {"crack"}


def test_what_can_not_be_read_or_stored_is_named(parts, tmp_path):
    Image.fromarray(rng.uniform(size=(20, 20)).astype(np.float32)).save(parts / "train" / "good" / "7.tif")
    with pytest.raises(ValueError, match="7.tif holds floats"):
        prepare_set(FileSource.of(parts), "parts", tmp_path / "sets")
    (parts / "train" / "good" / "7.tif").write_text("hello")
    with pytest.raises(ValueError, match="7.tif: not a readable image"):
        prepare_set(FileSource.of(parts), "parts", tmp_path / "sets")
    assert not (tmp_path / "sets" / "parts" / "1.0.0").exists()


def test_rows_must_come_in_order(parts, tmp_path):
    prepare_set(FileSource.of(parts), "parts", tmp_path / "sets")
    with pytest.raises(ValueError, match="sort them"):
        TfdsSource("parts", data_dir=tmp_path / "sets").elements([3, 1])
    assert set(tfds_sets.SPLIT_SIDES.values()) == {"train", "val", "test"}


def test_masks_names_and_labels_that_can_not_be_kept(parts, tmp_path):
    green = np.zeros((23, 24, 3), np.uint8)
    green[5:9, 5:9, 1] = 255
    Image.fromarray(green).save(parts / "ground_truth" / "crack" / "3_mask.png")
    prepare_set(FileSource.of(parts), "parts", tmp_path / "sets")
    examples = tfds.as_numpy(tfds.load("parts", split="test", data_dir=tmp_path / "sets"))
    (mask,) = (example["mask"] for example in examples if example["has_mask"])
    np.testing.assert_array_equal(mask, green[..., 1:2])
    for name in ("../x", "My-Set", "1x", "a/b/c", ""):
        with pytest.raises(ValueError, match="small letters, digits"):
            prepare_set(FileSource.of(parts), name, tmp_path / "sets")
    source = FileSource([entry._replace(label="cat", normal=None) for entry in FileSource.of(parts).entries])
    with pytest.raises(ValueError, match="name the one that is normal"):
        prepare_set(source, "cats", tmp_path / "sets")


def test_a_set_for_testing_alone_stays_one(parts, tmp_path):
    tested = FileSource([entry for entry in FileSource.of(parts).entries if entry.split == "test"])
    prepare_set(tested, "parts", tmp_path / "sets")
    source = TfdsSource("parts", data_dir=tmp_path / "sets")
    assert normal_rows(source) == [] and len(rows_to_score(source)) == 12

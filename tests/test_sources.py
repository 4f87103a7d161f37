import errno

import numpy as np
import pytest
from PIL import Image

from anogan_tf.data import sources
from anogan_tf.data.disk import DiskArray
from anogan_tf.data.entries import read_entry
from anogan_tf.data.preprocessing import Preprocessing, to_network
from anogan_tf.data.sources import FileSource, image_dataset, read_samples
from anogan_tf.training.gan import GAN
from anogan_tf.workflows import train

rng = np.random.default_rng(0)
PREPROCESSING = Preprocessing((16, 16, 1))


def value_range_of(source, rows):
    return sources.value_range(source, sources.read_infos(source, rows))


@pytest.fixture
def folder(tmp_path):
    for row in range(30):
        Image.fromarray(rng.integers(0, 256, (20 + row, 24), np.uint8)).save(tmp_path / f"{row:02d}.png")
    (tmp_path / "15.png").write_bytes((tmp_path / "15.png").read_bytes()[:200])
    return tmp_path


def test_a_stream_keeps_order_names_and_what_can_not_be_read(folder):
    source = FileSource.of(folder)
    elements = list(image_dataset(source, PREPROCESSING).as_numpy_iterator())
    assert [element["row"] for element in elements] == list(range(30))
    assert [element["name"].decode() for element in elements] == [entry.name for entry in source.entries]
    assert [bool(element["reason"]) for element in elements] == [row == 15 for row in range(30)]
    for row in (0, 7, 29):
        expected = PREPROCESSING(read_entry(source.entries[row]).pixels[np.newaxis])[0]
        np.testing.assert_array_equal(elements[row]["image"], expected)
    some = list(image_dataset(source, PREPROCESSING, rows=[3, 20]).batch(2).as_numpy_iterator())
    assert some[0]["row"].tolist() == [3, 20] and some[0]["image"].shape == (2, 16, 16, 1)


def test_a_stream_of_images_of_their_own_size(folder):
    preprocessing = Preprocessing((None, None, 3), scale=0.5)
    samples = list(read_samples(FileSource.of(folder), preprocessing, display_side=10))
    assert [sample.image.shape for sample in samples if sample.image is not None][2] == (11, 12, 3)
    assert samples[0].display.shape == (8, 10, 1) and samples[15].image is None and not samples[15].display.size


def test_a_pool_holds_what_was_cut_of_each(folder):
    source = FileSource.of(folder)
    pool = sources.fill_pool(
        source, PREPROCESSING, range(30), (8, 16, 1), lambda row, image: np.stack([image[:8], image[8:]]), folder
    )
    assert len(pool.pixels) == 58 and [picture.name for picture in pool.skipped] == [source.entries[15].name]
    assert pool.rows.tolist() == [row for row in range(30) for _ in range(2) if row != 15]
    np.testing.assert_allclose(pool.pixels.take([2])[0], PREPROCESSING.read(read_entry(source.entries[1]).pixels)[:8], atol=1e-6)
    with pytest.raises(ValueError, match="15.png: not a readable image"):
        sources.fill_pool(source, PREPROCESSING, range(30), (16, 16, 1), strict=True)
    with pytest.raises(ValueError, match="None of 1 images can be read; the first, .*15.png"):
        sources.fill_pool(source, PREPROCESSING, [15], (16, 16, 1))


def test_rows_on_disk_are_rows_in_memory(tmp_path):
    rows = rng.normal(size=(10, 4, 3)).astype(np.float32)
    array = DiskArray((4, 3), tmp_path)
    array.append(rows[:7])
    array.append(rows[7:])
    assert array.shape == (10, 4, 3) and not list(tmp_path.iterdir())  # nothing to be left behind
    np.testing.assert_array_equal(array.take([9, 0, 9]), rows[[9, 0, 9]])
    even = array.subset(np.arange(10) % 2 == 0)
    assert even.shape == (5, 4, 3)
    np.testing.assert_array_equal(even.subset([1, 4]).take([0, 1]), rows[[2, 8]])
    with pytest.raises(ValueError, match=r"rows of shape \(3, 4\)"):
        array.append(rows.transpose(0, 2, 1))


@pytest.mark.usefixtures("networks")
def test_training_from_disk_is_training_from_memory(pixels, tmp_path):
    prepared = np.asarray(PREPROCESSING.prepare(pixels))
    array = DiskArray(prepared.shape[1:], tmp_path)
    array.append(prepared)
    weights = []
    for x in (prepared, array, list(prepared)):
        gan = GAN((16, 16, 1), 4, base_filters=4)
        gan.compile()
        gan.fit(x, batch_size=8, epochs=2, verbose=0)
        weights.append(gan.get_weights())
    for others in weights[1:]:
        for one, other in zip(weights[0], others):
            np.testing.assert_array_equal(one, other)


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    array = DiskArray((4, 3), tmp_path)

    class Full:
        def seek(self, *_): ...

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(array, "_file", Full())
    with pytest.raises(OSError, match="No space"):
        array.append(np.zeros((1, 4, 3)))
    assert len(array) == 0


def test_the_range_of_deep_images_is_taken_from_them_but_for_hot_pixels(tmp_path):
    for row in range(5):
        pixels = rng.integers(100, 3000, (50, 50)).astype(np.uint16)
        pixels[0, 0] = 65535
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
    source = FileSource.of(tmp_path)
    low, high = value_range_of(source, range(5))
    assert 100 <= low < 120 and 2950 < high < 3000
    preprocessing = train.infer_preprocessing(source, (16, 16))
    assert preprocessing.value_range == (low, high) and preprocessing.image_shape == (16, 16, 1)
    assert train.infer_preprocessing(source, (16, 16), value_range=(0, 4095)).value_range == (0.0, 4095.0)
    Image.fromarray(rng.uniform(size=(20, 20)).astype(np.float32)).save(tmp_path / "5.tif")
    assert value_range_of(FileSource.of(tmp_path), [5]) is None
    assert value_range_of(FileSource.of(tmp_path), []) is None


def test_what_is_trained_on_is_what_is_scored(tmp_path):
    """16 bits with a range of their own: the pool, the stream and the detector's preprocessing say the same."""
    deep = rng.integers(100, 3000, (20, 20)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    source = FileSource.of(tmp_path)
    preprocessing = train.infer_preprocessing(source, (16, 16), normalize=True)
    pool = sources.fill_pool(source, preprocessing, [0], (16, 16, 1))
    sample = next(iter(read_samples(source, preprocessing)))
    np.testing.assert_allclose(to_network(pool.pixels.take([0])[0]), sample.image, atol=1e-6)
    np.testing.assert_array_equal(preprocessing(deep[np.newaxis])[0], sample.image)

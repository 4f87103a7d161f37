import keras
import numpy as np
import pytest
from PIL import Image

from anogan_tf.runtime.progress import ProgressCallback
from anogan_tf.training.callbacks import SampleGrid, image_grid


def test_image_grid_lays_rows_and_fills_with_black():
    images = np.arange(1, 6).reshape(5, 1, 1, 1) / 255.0 * np.ones((5, 2, 3, 1))
    grid = image_grid(images, columns=3)
    assert grid.shape == (4, 9, 1)
    np.testing.assert_array_equal(grid[::2, ::3, 0], [[1, 2, 3], [4, 5, 0]])
    np.testing.assert_array_equal(grid[:2, :3, 0], np.ones((2, 3)))


def test_sample_grid_writes_every_n_epochs(tiny_gan, pixels, tmp_path):
    pytest.importorskip("tensorboard")
    tiny_gan.compile(keras.optimizers.Adam(0.05))  # fast enough to show within two epochs
    grid = SampleGrid(tmp_path / "samples", every=2, columns=3, rows=2, log_dir=tmp_path / "logs")
    tiny_gan.fit(pixels, epochs=5, verbose=0, callbacks=[grid])
    files = sorted((tmp_path / "samples").iterdir())
    assert [file.name for file in files] == ["epoch-0002.png", "epoch-0004.png"]
    pictures = [np.asarray(Image.open(file)) for file in files]
    assert pictures[0].shape == (32, 48) and not np.array_equal(*pictures)
    assert list((tmp_path / "logs").rglob("events.*"))


def test_sample_grid_draws_the_same_samples(tiny_gan, tmp_path):
    for name in ("one", "other"):
        callback = SampleGrid(tmp_path / name)
        callback.set_model(tiny_gan)
        callback.on_epoch_end(0)
    one, other = ((tmp_path / name / "epoch-0001.png").read_bytes() for name in ("one", "other"))
    assert one == other


def test_advance_counts_batches(tiny_gan, tiny_detector, pixels):
    count = []
    tiny_gan.fit(pixels, batch_size=8, verbose=0, callbacks=[ProgressCallback(lambda: count.append("fit"))])
    tiny_detector.predict(pixels, batch_size=16, verbose=0, callbacks=[ProgressCallback(lambda: count.append("predict"))])
    assert count == ["fit"] * 5 + ["predict"] * 3

"""Keras callbacks: sample grids and checkpoints while a GAN trains, progress for a caller's own display."""

import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from anogan_tf.backend import keras
from anogan_tf.saving import replacing


class SampleGrid(keras.callbacks.Callback):
    """Writes a picture of the same samples every n epochs: how the generator learns.

    Args:
        directory: `epoch-0001.png`, `epoch-0002.png`, ... are written here.
        every: epochs between two pictures.
        columns, rows: of the grid.
        log_dir: where given, the picture also goes to TensorBoard below this folder.
    """

    def __init__(self, directory, every=1, columns=8, rows=8, log_dir=None):
        super().__init__()
        self.directory = Path(directory)
        self.every = every
        self.columns, self.rows = columns, rows
        self.log_dir = log_dir
        self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        grid = image_grid(self.model.generate(self.columns * self.rows), self.columns)
        with replacing(self.directory / f"epoch-{epoch + 1:04d}.png") as path:
            Image.fromarray(grid.squeeze()).save(path)
        if self.log_dir is not None:
            self._log(grid, epoch)

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _log(self, grid, epoch):
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(Path(self.log_dir) / "samples"))
        with self._writer.as_default():
            tf.summary.image("samples", grid[np.newaxis], step=epoch + 1)


class Checkpoint(keras.callbacks.Callback):
    """Saves the model to one file as it trains, beside and renamed: a kill at any moment leaves the file before it or after it.

    The file holds weights, optimisers and the step count, so `fit_on` of the loaded model goes on to the very same weights. It
    comes last of the callbacks: what the others write of a pass is there before the pass counts as done.

    Args:
        path: of the `.keras` file.
        seconds: from one save to the next; 0 saves after every step. The end of training is always saved.
    """

    def __init__(self, path, seconds=30.0):
        super().__init__()
        self.path, self.seconds = Path(path), seconds
        self._saved = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 != self.params.get("steps"):
            self._save_if_due()

    def on_epoch_end(self, epoch, logs=None):
        self._save_if_due()

    def _save_if_due(self):
        if time.monotonic() - self._saved >= self.seconds:
            self._save()

    def on_train_end(self, logs=None):
        self._save()

    def _save(self):
        self.model.save(self.path)
        self._saved = time.monotonic()


class Advance(keras.callbacks.Callback):
    """Calls `advance()` after each batch of `fit` or `predict`, for a progress bar that is not Keras's own."""

    def __init__(self, advance):
        super().__init__()
        self._advance = advance

    def on_train_batch_end(self, batch, logs=None):
        self._advance()

    def on_predict_batch_end(self, batch, logs=None):
        self._advance()


def image_grid(images, columns):
    """Lay images `[N, H, W, C]` in [0, 1] out as one uint8 picture `[rows * H, columns * W, C]`, filled up with black."""
    images = np.asarray(images)
    rows = -(-len(images) // columns)
    grid = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    grid[: len(images)] = np.round(np.clip(images, 0.0, 1.0) * 255.0)
    height, width, channels = images.shape[1:]
    grid = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)

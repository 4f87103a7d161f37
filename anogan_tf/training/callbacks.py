"""Keras callbacks: sample grids, checkpoints, and a monitor of a GAN's training."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import replacing
from anogan_tf.runtime.types import Array, PathLike


class SampleGrid(keras.callbacks.Callback):
    """Writes a picture of the same samples every n epochs: how the generator learns.

    Args:
        directory: `epoch-0001.png`, `epoch-0002.png`, ... are written here.
        every: epochs between two pictures.
        columns, rows: of the grid.
        log_dir: where given, the picture also goes to TensorBoard below this folder.
    """

    def __init__(
        self, directory: PathLike, every: int = 1, columns: int = 8, rows: int = 8, log_dir: PathLike | None = None
    ) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.every = every
        self.columns, self.rows = columns, rows
        self.log_dir = log_dir
        self._writer: Any = None

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        grid = image_grid(self.model.generate(self.columns * self.rows), self.columns)
        with replacing(self.directory / f"epoch-{epoch + 1:04d}.png") as path:
            Image.fromarray(grid.squeeze()).save(path)
        if self.log_dir is not None:
            self._log(grid, epoch, Path(self.log_dir) / "samples")

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _log(self, grid, epoch, folder):
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(folder))
        with self._writer.as_default():
            tf.summary.image("samples", grid[np.newaxis], step=epoch + 1)


class Checkpoint(keras.callbacks.Callback):
    """Saves the model to one file as it trains, beside and renamed: a kill at any moment leaves the file before it or after it.

    The file holds weights, optimizers and the step count, so `fit_on` of the loaded model goes on to the very same weights. It
    comes last of the callbacks: what the others write of a pass is there before the pass counts as done. Weights that are no
    numbers any more are not saved: the last good ones stay.

    Args:
        path: of the `.keras` file.
        seconds: from one save to the next; 0 saves after every step. The end of training is always saved.
    """

    def __init__(self, path: PathLike, seconds: float = 30.0) -> None:
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
        if all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            self.model.save(self.path)
        self._saved = time.monotonic()


class TrainingMonitor(keras.callbacks.Callback):
    """Notices a GAN's training that goes wrong, and says what to try.

    Losses that are no numbers any more, or beyond all bounds, end it. A generator whose samples are all alike, and a
    discriminator that tells all of them from real images, are told of once: what they make may still be of use.

    Args:
        normals: some of the images trained on, `[N, H, W, C]` in [0, 1] as `Preprocessing.prepare` gives them; without,
            samples are compared with none.
        warn: called with what was noticed, a sentence.
    """

    SETTLED = 500  # steps before which samples are alike, and fakes easily told, in every training
    EVERY = 50  # steps from one look at the losses to the next
    BEYOND = 1e6  # a loss
    COLLAPSED = 0.1  # share of the normal images' spread that the samples have
    TOLD, PASSES = 0.98, 3  # difference of the mean scores of real and generated images, in so many passes one after the other

    def __init__(self, normals: Array | None = None, warn: Callable[[str], Any] = warnings.warn) -> None:
        super().__init__()
        self._spread = None if normals is None else spread(normals)
        self._warn, self._passes = warn, 0
        self._told: set[str] = set()

    def on_train_batch_end(self, batch, logs=None):
        if batch % self.EVERY == 0:
            self._check_losses(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._check_losses(logs)
        if int(self.model.batches_seen.numpy()) < self.SETTLED:
            return
        if self._spread is not None:
            share = spread(self.model.generate(32)) / max(self._spread, 1e-6)
            if share < self.COLLAPSED:
                self._say_once(
                    f"After pass {epoch + 1} the generator's samples are alike ({share:.0%} of the normal images' spread): it "
                    "has collapsed. Look at the samples; try --objective hinge or wgan-gp, --augment, or more images."
                )
        won = self.model.objective == "dcgan" and logs["real_score"] - logs["fake_score"] > self.TOLD
        self._passes = self._passes + 1 if won else 0
        if self._passes >= self.PASSES:
            self._say_once(
                f"The discriminator told generated images from real ones without fail for {self.PASSES} passes: it teaches the "
                "generator nothing any more. Try --label-smoothing 0.1, --augment, more images, or --objective hinge."
            )

    def _check_losses(self, logs):
        bad = {name: float(value) for name, value in (logs or {}).items() if not abs(float(value)) < self.BEYOND}
        if bad:
            found = ", ".join(f"{name} {value:g}" for name, value in bad.items())
            step = int(self.model.batches_seen.numpy())
            raise ValueError(
                f"Training went wrong at step {step}: {found}. Train anew with --label-smoothing 0.1 or --objective hinge, or in "
                "Python with a smaller learning rate, and look whether the images are what you think. The last good weights are "
                "those that a Checkpoint has saved."
            )

    def _say_once(self, text):
        kind = text.split()[0]
        if kind not in self._told:
            self._told.add(kind)
            self._warn(text)


def spread(images):
    """How much images `[N, ...]` differ: the mean over pixels of their standard deviation."""
    return float(np.mean(np.std(np.asarray(images, np.float32), axis=0)))


def image_grid(images: Array, columns: int) -> np.ndarray:
    """Lay images `[N, H, W, C]` in [0, 1] out as one uint8 picture `[rows * H, columns * W, C]`, filled up with black."""
    images = np.asarray(images)
    rows = -(-len(images) // columns)
    grid = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    grid[: len(images)] = np.round(np.clip(images, 0.0, 1.0) * 255.0)
    height, width, channels = images.shape[1:]
    grid = grid.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)

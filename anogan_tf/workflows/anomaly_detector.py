"""A detector in one call: `fit` on normal images, then `predict`, `heatmap`, `save`, `export`."""

import csv
import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.data.pixel_checks import check_input
from anogan_tf.data.sources import ArraySource, Images
from anogan_tf.detection.calibration import Calibration
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.evaluation.self_check import SelfCheck
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.progress import no_progress, show_together
from anogan_tf.runtime.types import PathLike, PixelArrays, Source
from anogan_tf.workflows.options import TrainingOptions
from anogan_tf.workflows.train import prepare_job

LOGS = {"gan": "log.csv", "encoder": "encoder.csv", "joint": "joint.csv", "comparator": "comparator.csv"}


class AnomalyDetector:
    """Learns from normal images what is normal, and says of others how anomalous they are and where.

    >>> detector = AnomalyDetector()
    >>> detector.fit(load_images("parts/good"))
    >>> heat = detector.heatmap(detector.predict(load_images("incoming"))["anomaly_map"])

    `fit` does what `anogan train` does: it looks at the images and chooses whole images or patches, holds some out, trains GAN,
    encoder and what else there is, and calibrates. What comes of it is an `AnoGAN`, `detector.anogan`.

    Attributes:
        options: `TrainingOptions`, what was asked for.
        chosen: the same with what `fit` chose; None before.
        expected: a `SelfCheck`, what `fit` found the detector can be expected to do; None before.

    Args:
        image_shape: `(height, width, channels)` that images are brought to, or `(height, width)`; None to choose it.
        **options: fields of `TrainingOptions`, which `anogan train --help` describes: patch, scale, latent_dim, preset, augment,
            normalize, seed, ...

    Raises:
        TypeError: for an option that there isn't.
        ValueError: for options that contradict each other.
    """

    def __init__(self, image_shape: tuple[int, ...] | None = None, **options: Any) -> None:
        if image_shape is not None:
            height, width, *channels = image_shape
            options = {"size": (height, width), **({"channels": channels[0]} if channels else {}), **options}
        self.options = _checked(TrainingOptions(**_tuples(options)))
        self._anogan: AnoGAN | None = None
        self.expected: SelfCheck | None = None
        self.chosen: TrainingOptions | None = None

    def compile(self, **options: Any) -> None:
        """Say how it is trained and how it scores, where the defaults don't suit.

        Args:
            **options: fields of `TrainingOptions`: objective, self_supervision, comparator, memory_bank, score, mode,
                false_positive_rate, ...
        """
        known = {field.name for field in dataclasses.fields(TrainingOptions)}
        if unknown := sorted(options.keys() - known):
            raise TypeError(f"compile() knows no {', '.join(unknown)}; there are {', '.join(sorted(known))}.")
        self.options = _checked(dataclasses.replace(self.options, **_tuples(options)))

    def fit(
        self,
        x: PixelArrays | Images | Source | tf.data.Dataset,
        y: None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        verbose: int | str = "auto",
        callbacks: Sequence[keras.callbacks.Callback] = (),
        validation_data: PixelArrays | None = None,
    ) -> keras.callbacks.History:
        """Learn from normal images.

        Args:
            x: an array `[N, h, w]` or `[N, h, w, c]` (uint8, uint16, or float in [0, 1]), a list of images of any sizes, a
                `tf.data.Dataset` of such images or of batches of them (it is read into memory), what `load_images` gives, or a
                source such as `FileSource`, which is read from its files. At least 20 images.
            y: none; there is nothing to learn from but the images.
            batch_size: images in a step of the GAN.
            epochs: passes of the GAN; by default as many as `anogan train` makes. The other parts have their own.
            verbose: 0 says and shows nothing.
            callbacks: Keras's; each part's training calls them, GAN, encoder and comparator in turn.
            validation_data: other normal images, which set the threshold; by default some of x are held out for that, or where
                they are few (fewer than 100), each is judged by detectors that are trained without it.

        Returns:
            A `keras.callbacks.History` whose `history` has the losses of all parts, named "gan_d_loss" and so on.

        Raises:
            ValueError: for images that can't be used, or are too few.
        """
        if y is not None:
            raise ValueError(
                "fit() takes no labels, it learns from normal images alone: pass these, such as x[y == 0], and no y."
            )
        given = {name: value for name, value in (("batch_size", batch_size), ("epochs", epochs)) if value is not None}
        options, quiet = _checked(dataclasses.replace(self.options, **given)), verbose in (0, "0")
        say = (lambda line: None) if quiet else print
        with tempfile.TemporaryDirectory() as folder, show_together(no_progress if quiet else None) as progress:
            source, state = _as_source(x, validation_data), Path(folder) / "state"
            state.mkdir()
            shown = {"say": say, "warn": warnings.warn, "progress": progress}
            job = prepare_job(source, options, Path(folder), callbacks=tuple(callbacks), **shown)
            self.chosen, self._anogan = job.options, job.run(state)
            self.expected = job.check(self._anogan)
            history = keras.callbacks.History()
            history.history = _read_logs(state)
        for line in self.expected.lines():
            say(line)
        for line in self.expected.warnings():
            warnings.warn(line, stacklevel=2)
        return history

    @property
    def anogan(self) -> AnoGAN:
        """The `AnoGAN` that was fitted.

        Raises:
            ValueError: before `fit`.
        """
        if self._anogan is None:
            raise ValueError("The detector has learned nothing yet: call fit() on normal images first.")
        return self._anogan

    @property
    def threshold(self) -> float:
        """Scores above it are anomalous."""
        return float(self.calibration.threshold)

    @property
    def calibration(self) -> Calibration:
        """What the held-out normals taught, a `Calibration`."""
        calibration = self.anogan.calibration
        assert calibration is not None
        return calibration

    def predict(self, x: PixelArrays | Images | tf.data.Dataset, **options: Any) -> dict[str, Any]:
        """Score images: `AnoGAN.predict`, which also says what the dict holds."""
        return self.anogan.predict(x.pixels if isinstance(x, Images) else x, **options)

    def heatmap(self, anomaly_map: PixelArrays) -> Any:
        """Anomaly maps of `predict` on the scale of normal images, in [0, 1]: `AnoGAN.heatmap`."""
        return self.anogan.heatmap(anomaly_map)

    def save(self, filepath: PathLike, **options: Any) -> None:
        """Write one `.keras` file, which `anogan score` and `AnomalyDetector.load` read: `AnoGAN.save`."""
        self.anogan.save(filepath, **options)

    @classmethod
    def load(cls, filepath: PathLike, **options: Any) -> "AnomalyDetector":
        """A detector from its file, whatever trained it: `AnoGAN.load`."""
        detector = cls()
        detector._anogan = AnoGAN.load(filepath, **options)
        return detector

    def export(self, filepath: PathLike, **options: Any) -> Path:
        """Write a SavedModel for TensorFlow Serving: `AnoGAN.export`."""
        return self.anogan.export(filepath, **options)


def _checked(options):
    options.check()
    return options


def _tuples(options):
    """Options with lists and single names as the tuples that are meant."""
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    for name, value in options.items():
        if name == "size" and isinstance(value, int):
            options[name] = (value, value)
        if name == "augment" and isinstance(value, str):
            options[name] = (value,)
    return options


def _as_source(x, validation_data):
    """A source of the images to train on, and of those that set the threshold."""
    if hasattr(x, "elements") and hasattr(x, "entries"):
        if validation_data is not None:
            raise ValueError("A source's images of the split 'val' set the threshold: leave validation_data= out.")
        return x
    x = _as_images(x, "x")
    if validation_data is None:
        return ArraySource(x, np.zeros(len(x), int), splits="train", name="x")
    held_out = _as_images(validation_data, "validation_data")
    splits = ["train"] * len(x) + ["val"] * len(held_out)
    return ArraySource([*x, *held_out], np.zeros(len(splits), int), splits=splits, name="x")


def _as_images(x, name):
    """What `ArraySource` takes, of whatever images are given as."""
    if isinstance(x, Images):
        return x.pixels
    if not isinstance(x, tf.data.Dataset):
        check_input(x, name)
        return x if isinstance(x, (list, tuple)) else np.asarray(x)
    images = []
    for element in x.as_numpy_iterator():
        image = element[0] if isinstance(element, tuple) else element
        is_one = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in (1, 3))
        images += [image] if is_one else list(image)
    if not images:
        raise ValueError(f"{name} is a dataset without images.")
    return images


def _read_logs(state):
    """The columns of the parts' logs, each under its part's name."""
    found = {}
    for part, name in LOGS.items():
        if (state / name).exists():
            with open(state / name, newline="") as file:
                rows = list(csv.DictReader(file))
            for column in rows[0] if rows else ():
                if column != "epoch" and all(row[column] not in ("", "NA") for row in rows):
                    found[f"{part}_{column}"] = [float(row[column]) for row in rows]
    return found

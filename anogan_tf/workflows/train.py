"""From normal images to a calibrated detector: what is asked for, splits, training that can be gone on with, calibration."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anogan_tf.data import sources
from anogan_tf.data.batching import batch_by_pixels, pad_and_stack
from anogan_tf.data.entries import DecodedImage, absolute_name
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.data.sources import Pool, normal_rows
from anogan_tf.detection.calibration import FALSE_POSITIVE_RATE, check_count
from anogan_tf.detection.detector import SCORING_BATCH, AnoGAN
from anogan_tf.detection.tiling import Tiling, random_tiles
from anogan_tf.evaluation.self_check import CONTRASTS, IMAGES, SIZES, check_detector
from anogan_tf.networks.architectures import check_image_shape
from anogan_tf.runtime.files import locked, partial_folder, replacing_folder
from anogan_tf.runtime.progress import Progress, no_progress
from anogan_tf.runtime.provenance import has_record, write_record
from anogan_tf.runtime.types import PathLike, Source
from anogan_tf.training.comparator import STEPS
from anogan_tf.training.trainer import TRAINING_BATCH
from anogan_tf.workflows.choose import choose_form
from anogan_tf.workflows.options import DEFAULTS, TrainingOptions
from anogan_tf.workflows.pace import Pace
from anogan_tf.workflows.parts import (
    ENCODER_BATCH,
    ENCODER_SHARE,
    JOINT_EPOCHS,
    choose_epochs,
    read_scenes,
    remember,
    remember_patches,
    train_comparator,
    train_jointly,
    train_networks,
)
from anogan_tf.workflows.splits import HELD_OUT, MAX_HELD_OUT, TRAINED, Split, split_normals, training_state

TILES, TILE_EPOCHS = 10_000, 20  # cut at random places to train on, in all, and passes over them
QUICK = 0.25  # share of the training that a first look takes


def infer_preprocessing(source, size, *, channels=None, value_range=None, **settings):
    """The `Preprocessing` for the normal images of a source.

    Args:
        source: a `FileSource` or `TfdsSource`.
        size: `(H, W)`, or `(None, None)` for images of their own size.
        channels: 1, 3 or None for what the images are.
        value_range: as for `Preprocessing`, or None to take it from the images where they have more than 8 bits.
        **settings: fit, scale, normalize, augment.
    """
    infos = sources.read_infos(source, normal_rows(source))
    channels = channels or sources.count_channels(source, infos)
    value_range = value_range or sources.value_range(source, infos)
    return Preprocessing((*size, channels), value_range=value_range, **settings)


class Job(NamedTuple):
    """Training a detector: what on, and how.

    Attributes:
        source: a `FileSource`, an `ArraySource` or a `TfdsSource`.
        options: `TrainingOptions`, with a size or a patch.
        preprocessing, tiling, image_shape: of the detector.
        pool: the `Pool` of what is trained on.
        split: the `Split` of the source's rows.
        folder: where large files lie.
        warn, progress, callbacks: as for `train_gan`.
    """

    source: Source
    options: TrainingOptions
    preprocessing: Preprocessing
    tiling: Tiling | None
    image_shape: tuple[int, int, int]
    pool: Pool
    split: Split
    folder: Path | None
    warn: Callable[[str], Any]
    progress: Progress
    callbacks: tuple

    def run(self, state):
        """The calibrated `AnoGAN`; its training state is kept in the folder `state`."""
        detector = self._fit(self.split.trained, state)
        if not self.split.folds:
            return calibrate_on(detector, self.source, self.split.held_out, self.options.false_positive_rate, self.progress)
        others = [self._without(fold, detector, state / f"fold{number}") for number, fold in enumerate(self.split.folds)]
        with self.progress("Calibrating", len(self.split.held_out)) as on_progress:
            folds = ((other, self._batches(fold)) for other, fold in zip(others, self.split.folds))
            return detector.calibrate_across(folds, self.options.false_positive_rate, on_progress)

    def check(self, detector):
        """What the calibrated detector can be expected to do, a `SelfCheck`."""
        with self.progress("Checking", IMAGES * (len(SIZES) + len(CONTRASTS))) as on_progress:
            return check_detector(detector, self.source, self.split.held_out, self.options.seed, on_progress)

    def _batches(self, rows):
        return prepared_rows(self.source, self.preprocessing, rows)

    def _fit(self, rows, state):
        """An `AnoGAN` of these rows, not calibrated."""
        pixels = self.pool.pixels.subset(np.isin(self.pool.rows, rows))
        parts = self._networks(pixels, state)
        if self.options.with_comparator:
            parts |= self._comparing(rows, pixels, state)
        form = {"preprocessing": self.preprocessing, "tiling": self.tiling}
        return AnoGAN.from_gan(**parts, **form, **self.options.searching)

    def _without(self, fold, detector, state):
        """A detector that is not of the rows of a fold.

        For whole images all of it is trained anew. With a tiling only what is remembered is gathered anew: networks see
        thousands of tiles at random places, and to train them again takes long.
        """
        rows = np.setdiff1d(self.split.trained, fold)
        if self.tiling is None:
            state.mkdir(exist_ok=True)
            return self._fit(rows, state)
        if detector.comparator is None:
            return detector
        scenes, tile = self._scenes(rows)
        return detector.with_settings(patch_memory=remember_patches(detector.comparator, scenes, tile, self.options.seed))

    def _networks(self, pixels, state):
        """GAN, encoder and memory bank, and with a tiling the generator that was trained on with the encoder, by name."""
        options, every = self.options, {"progress": self.progress, "callbacks": self.callbacks}
        passes = self._passes(len(pixels))
        own = Preprocessing(self.image_shape, augment=options.augment)
        given = {"preprocessing": own, "warn": self.warn, "epochs": passes["gan"], "encoder_epochs": passes.get("encoder")}
        gan, encoder = train_networks(pixels, state, self.image_shape, **given, **every, **options.networks)
        bank = remember(pixels, options.remembered, options.seed) if options.remembered else None
        parts = {"gan": gan, "encoder": encoder, "memory_bank": bank}
        if "joint" in passes:
            joint = train_jointly(gan, encoder, pixels, state, epochs=passes["joint"], **every)
            parts |= dict(zip(("generator", "encoder"), joint))
        return parts

    def _comparing(self, rows, pixels, state):
        """The comparator and its patch memory, by name."""
        tile, options = None, self.options
        if self.tiling is not None:  # it learns from larger pieces than the generator draws, and where an image ends
            pixels, tile = self._scenes(rows)
        given: dict[str, Any] = {"normalized": self.preprocessing.normalize, "seed": options.seed}
        given |= {"steps": self._comparator_steps, "progress": self.progress, "callbacks": self.callbacks}
        comparator = train_comparator(pixels, state, pixels.shape[1:], tile=tile, **given)
        return {"comparator": comparator, "patch_memory": remember_patches(comparator, pixels, tile, options.seed)}

    @property
    def _effort(self):
        return QUICK if self.options.quick else 1.0

    @property
    def _comparator_steps(self):
        return self.options.comparator_steps or math.ceil(STEPS * self._effort)

    def _passes(self, count):
        """How many passes over so many images, or tiles, the networks are trained for, by name."""
        by_default = TILE_EPOCHS if self.tiling else choose_epochs(count, self.options.batch_size or TRAINING_BATCH)
        passes = {"gan": self.options.epochs or math.ceil(self._effort * by_default)}
        if self.options.encoder:
            passes["encoder"] = math.ceil(ENCODER_SHARE * passes["gan"])
            if self.tiling is not None:
                passes["joint"] = math.ceil(self._effort * JOINT_EPOCHS)
        return passes

    def work(self):
        """What there is to be done, for a `Pace`: a list of `(part, steps)`."""
        each = [self.split.trained]
        if self.tiling is None:  # all of it for each fold
            each += [np.setdiff1d(self.split.trained, fold) for fold in self.split.folds]
        batches = {"gan": self.options.batch_size or TRAINING_BATCH, "encoder": ENCODER_BATCH, "joint": ENCODER_BATCH}
        done = []
        for rows in each:
            count = int(np.isin(self.pool.rows, rows).sum())
            done += [(part, passes * max(1, count // batches[part])) for part, passes in self._passes(count).items()]
            done += [("comparator", self._comparator_steps)] if self.options.with_comparator else []
        return done

    def _scenes(self, rows):
        """`(squares of images, side of the tiles that a comparator sees of them)`."""
        assert self.tiling is not None
        scenes = read_scenes(self.source, self.preprocessing, rows, self.folder, self.options.seed, self.progress)
        return scenes, (self.tiling.context, self.tiling.context)


def prepare_job(
    source,
    options=DEFAULTS,
    folder=None,
    *,
    strict=False,
    warn=warnings.warn,
    say=lambda line: None,
    progress=no_progress,
    callbacks=(),
):
    """A `Job` for the normal images of a source: what isn't said is chosen, images are read, some held out.

    Args:
        source, options, strict, warn, say, progress: as for `train`.
        folder: where large files lie while it lasts.
        callbacks: Keras's, for the training of each part.
    """
    options.check()
    options, line = choose_form(source, options)
    options.check()
    if line:
        say(line)
    preprocessing, tiling = infer_preprocessing(source, **options.preprocessing), _tiling(options)
    image_shape = check_image_shape((*(options.tile or preprocessing.image_shape[:2]), preprocessing.image_shape[-1]))
    if tiling is not None:
        tiling.check(min(image_shape[:2]))
    tiles = (options.patches or TILES) if options.tile else None
    pool, split = read_normals(source, preprocessing, image_shape, tiles, folder, options.seed, strict, progress)
    check_count(len(split.held_out), options.false_positive_rate)
    form = (preprocessing, tiling, image_shape, pool, split, folder)
    job = Job(source, options, *form, warn, progress, tuple(callbacks))
    pace = Pace(job.work(), image_shape, tiling and tiling.context, bool(options.networks["self_supervision"]), say)
    return job._replace(callbacks=(*callbacks, pace))


def train(
    source: Source,
    model: PathLike,
    options: TrainingOptions = DEFAULTS,
    *,
    named: dict[str, Any] | None = None,
    strict: bool = False,
    resume: bool = False,
    warn: Callable[[str], Any] = warnings.warn,
    say: Callable[[str], Any] = lambda line: None,
    progress: Progress = no_progress,
) -> tuple[AnoGAN, list[DecodedImage]]:
    """Train and calibrate a detector on normal images; write `MODEL.keras`, and its training state to `MODEL.train/`.

    `MODEL.train/run.json` records the options, versions and a fingerprint of the data. While training lasts, the folder is
    `MODEL.train.partial/`.

    Args:
        source: a `FileSource`, an `ArraySource` or a `TfdsSource`. Its normal images of "train" are trained on; the threshold
            comes from those of "val", or where there are none, from some that are held out; from all, where they are few.
        model: the `.keras` file to write.
        options: `TrainingOptions`; what is None there is chosen.
        named: how the images were named, a dict that the record keeps.
        strict: whether an image that can't be read is an error.
        resume: whether to go on where an interrupted call with the same arguments stopped, if one did; to the same weights.
        warn: as for `TrainingMonitor`.
        say: called with lines that say what was chosen, how long it will take, and what can be expected of the detector.
        progress: see `runtime.progress`.

    Returns:
        `(detector, skipped)`: the calibrated `AnoGAN`, and a `DecodedImage` for each that couldn't be read.

    Raises:
        ValueError: for options that contradict each other, images that can't be used or are too few.
    """
    beside = Path(model).parent
    beside.mkdir(parents=True, exist_ok=True)
    job = prepare_job(source, options, beside, strict=strict, warn=warn, say=say, progress=progress)
    record = {"options": dataclasses.asdict(job.options), "data": job.pool.fingerprint}
    with locked(training_state(model)), _state_folder(model, record, resume) as state:
        write_record(state, {**record, "images": named or {}})
        for note, rows in ((HELD_OUT, job.split.held_out), (TRAINED, job.split.trained)):
            (state / note).write_text("".join(f"{absolute_name(source.entries[row])}\n" for row in rows), encoding="utf-8")
        detector = job.run(state)
        detector.save(model)  # before anything else can fail
        check = job.check(detector)
        write_record(state, {**record, "images": named or {}, "expected": dataclasses.asdict(check)})
    for line in check.lines():
        say(line)
    for line in check.warnings():
        warn(line)
    return detector, job.pool.skipped


def _tiling(options):
    """The `Tiling` of patches, or None for whole images."""
    return None if options.patch is None else Tiling(options.stride or max(1, options.patch // 2), options.top)


def _state_folder(model, record, resume):
    """The folder of the training state; what an interrupted run has left in it is there where that is to be gone on with."""
    state = training_state(model)
    return replacing_folder(state, keep=resume and has_record(partial_folder(state), record))


def calibrate_on(detector, source, rows, false_positive_rate=FALSE_POSITIVE_RATE, progress=no_progress):
    """Calibrate a detector on images of a source, given by their rows; returns it."""
    with progress("Calibrating", len(rows)) as on_progress:
        batches = prepared_rows(source, detector.preprocessing, rows)
        return detector.calibrate_prepared(batches, false_positive_rate, on_progress)


def prepared_rows(source, preprocessing, rows):
    """Batches of images of a source, given by their rows, as `calibrate_prepared` takes them."""
    images = (sample.image for sample in sources.read_samples(source, preprocessing, rows, strict=True))
    return map(pad_and_stack, batch_by_pixels(images, SCORING_BATCH))


def read_normals(source, preprocessing, image_shape, tiles=None, folder=None, seed=0, strict=False, progress=no_progress):
    """Read the normal images of a source, to train on and to hold out; only what can be read is in either.

    Args:
        source, preprocessing, seed, strict, progress: as for `train`.
        image_shape: `(H, W, C)` of the networks.
        tiles: how many to cut at random places, in all; None keeps whole images.
        folder: where the pool's file lies.

    Returns:
        `(Pool, Split)`, the split by rows of the source.
    """
    rows, given = normal_rows(source), normal_rows(source, "val")
    if not rows:
        raise ValueError("There are no normal images to train on.")
    given = np.sort(np.random.default_rng(seed).permutation(given)[:MAX_HELD_OUT]).astype(int)
    each = tiles and -(-tiles // len(rows))

    def cut(row, image):
        if not tiles:
            return image[np.newaxis]
        return random_tiles(image, image_shape[:2], each, np.random.default_rng((seed, row)))

    with progress("Reading", len(rows) + len(given)) as on_progress:
        pool = sources.fill_pool(source, preprocessing, rows, image_shape, cut, folder, strict, on_progress)
        # Looked at before hours of training, too.
        held_out = []
        if len(given):
            samples = sources.read_samples(source, preprocessing, given, strict=strict)
            for sample in sources.readable(samples, pool.skipped, on_progress):
                held_out.append(sample.row)
                on_progress()
    readable = np.unique(pool.rows)
    if len(given):
        return pool, Split(readable, np.array(held_out, int))
    groups = [source.entries[row].group or f"\0{row}" for row in readable]
    split = split_normals(len(readable), seed, groups if any(source.entries[row].group for row in readable) else None)
    folds = tuple(readable[fold] for fold in split.folds)
    return pool, Split(readable[split.trained], readable[split.held_out], folds)

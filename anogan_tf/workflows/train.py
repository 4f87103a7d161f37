"""From normal images to a calibrated detector: splits, training that can be gone on with, calibration, what is recorded of it."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.data import sources
from anogan_tf.data.batching import batch_by_pixels, pad_and_stack
from anogan_tf.data.disk import DiskArray
from anogan_tf.data.entries import DecodedImage, absolute_name
from anogan_tf.data.preprocessing import Preprocessing, to_network, to_pixels
from anogan_tf.data.sources import normal_rows
from anogan_tf.detection.calibration import FALSE_POSITIVE_RATE, check_count
from anogan_tf.detection.detector import SCORING_BATCH, AnoGAN
from anogan_tf.detection.memory_bank import MemoryBank
from anogan_tf.detection.patch_memory import PatchMemory
from anogan_tf.detection.tiling import Tiling, random_scenes, random_tiles
from anogan_tf.networks.architectures import check_image_shape
from anogan_tf.networks.comparator import MARGIN
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import locked, partial_folder, replacing, replacing_folder
from anogan_tf.runtime.progress import Progress, ProgressCallback, no_progress
from anogan_tf.runtime.provenance import has_record, write_record
from anogan_tf.runtime.types import PathLike, Source
from anogan_tf.training.callbacks import Checkpoint, SampleGrid, TrainingMonitor
from anogan_tf.training.comparator import STEPS, ComparatorTrainer
from anogan_tf.training.encoder import EncoderTrainer
from anogan_tf.training.gan import GAN
from anogan_tf.training.trainer import TRAINING_BATCH
from anogan_tf.workflows.options import DEFAULTS, TrainingOptions
from anogan_tf.workflows.splits import HELD_OUT, MAX_HELD_OUT, TRAINED, Split, split_normals, training_state

EPOCHS, MIN_STEPS = 50, 3000  # more epochs where images are so few that 50 are fewer steps: after hundreds a GAN draws haze
ENCODER_SHARE = 0.6  # passes of the encoder's training for each of the GAN's
ENCODER_BATCH, ENCODER_RATE = 32, 1e-3  # the learning rate falls to 0 along half a cosine
JOINT_EPOCHS, JOINT_RATE = 20, 2e-3  # of generator and encoder together
TILES, TILE_EPOCHS = 10_000, 20  # cut at random places to train on, in all, and passes over them
# Pixels of a square that a comparator learns from, and how many at least and at most.
SCENE, SCENES, MAX_SCENES = 256, 1200, 5000
DESCRIBED = 400  # scenes or images, whose patches those that are remembered are drawn from
WATCHED = 256  # of the training images, whose spread that of the samples is compared with
SECONDS_BETWEEN_SAVES = 30.0  # of what is being trained


def choose_epochs(count, batch_size=TRAINING_BATCH):
    """How many passes over `count` images the GAN is trained by default: `EPOCHS`, or as many as make `MIN_STEPS` steps."""
    return max(EPOCHS, math.ceil(MIN_STEPS / max(1, count // batch_size)))


def train_gan(
    pixels,
    state,
    image_shape,
    *,
    epochs,
    batch_size=TRAINING_BATCH,
    label_smoothing=0.0,
    warn=warnings.warn,
    progress=no_progress,
    **options,
):
    """Train a GAN on normal pixels and keep its training state in a folder.

    Args:
        pixels: as for `GAN.fit_on`.
        state: a folder for `gan.keras` (networks and optimizers), `log.csv` and `samples/`. Where an interrupted call left them,
            this one, with the same arguments, goes on to the same weights.
        image_shape, **options: as for `GAN`.
        epochs, batch_size: as for `GAN.fit`.
        label_smoothing: as for `GAN.compile`.
        warn: as for `TrainingMonitor`.
        progress: makes a progress display, see `runtime.progress`.

    Returns:
        The trained `GAN`.
    """
    state = Path(state)
    if (state / "gan.keras").exists():
        gan = GAN.load(state / "gan.keras")
    else:
        gan = GAN(image_shape, **options)
        gan.compile(label_smoothing=label_smoothing)
    callbacks = SampleGrid(state / "samples", every=max(1, epochs // 10)), TrainingMonitor(_some(gan, pixels), warn)
    _train(gan, pixels, state / "gan.keras", state / "log.csv", epochs, batch_size, "Training", progress, *callbacks)
    return gan


def train_encoder(gan, pixels, state, *, epochs, batch_size=ENCODER_BATCH, progress=no_progress, **options):
    """Train an encoder for a GAN on the same pixels and keep its training state in the same folder, resumable alike.

    Args:
        gan: a trained `GAN`.
        pixels: as for `EncoderTrainer.fit_on`.
        state: a folder for `encoder.keras` (networks and optimizer) and `encoder.csv`.
        epochs, batch_size: as for `EncoderTrainer.fit`.
        progress: makes a progress display, see `runtime.progress`.
        **options: as for `EncoderTrainer.from_gan`.

    Returns:
        The trained encoder.
    """
    state, steps = Path(state), epochs * max(1, len(pixels) // batch_size)
    if (state / "encoder.keras").exists():
        trainer = EncoderTrainer.load(state / "encoder.keras")
    else:
        trainer = EncoderTrainer.from_gan(gan, **options)
        trainer.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(ENCODER_RATE, steps)))
    _train(trainer, pixels, state / "encoder.keras", state / "encoder.csv", epochs, batch_size, "Encoder", progress)
    return trainer.encoder


def train_jointly(gan, encoder, pixels, state, *, epochs, batch_size=ENCODER_BATCH, progress=no_progress):
    """Train a GAN's generator and its encoder together, see `EncoderTrainer`, resumable like the others.

    Args:
        gan, pixels, state, epochs, batch_size, progress: as for `train_encoder`; the file is `joint.keras`.
        encoder: that `train_encoder` gave.

    Returns:
        `(generator, encoder)`.
    """
    state, steps = Path(state), epochs * max(1, len(pixels) // batch_size)
    if (state / "joint.keras").exists():
        trainer = EncoderTrainer.load(state / "joint.keras")
    else:
        trainer = EncoderTrainer.from_gan(gan, encoder=encoder, joint=True, method="izi")
        trainer.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(JOINT_RATE, steps)))
    _train(trainer, pixels, state / "joint.keras", state / "joint.csv", epochs, batch_size, "Together", progress)
    return trainer.generator, trainer.encoder


def _some(gan, pixels):
    """Some of the images that a GAN is trained on, as it sees them, `[N, H, W, C]` in [0, 1]."""
    rows = np.random.default_rng(0).permutation(len(pixels))[:WATCHED]
    some = pixels.subset(rows) if isinstance(pixels, DiskArray) else [pixels[row] for row in rows]
    return to_pixels(gan.row_reader(some)[1](tf.range(len(rows))))


def _train(model, pixels, file, log, epochs, batch_size, title, progress, *callbacks):
    """Train a model until it has made so many passes, from where it stands, with a log and checkpoints."""
    steps, seen = max(1, len(pixels) // batch_size), int(model.batches_seen.numpy())
    truncate_log(log, seen // steps)
    with progress(title, epochs * steps) as on_progress:
        on_progress(seen)
        logger, checkpoint = keras.callbacks.CSVLogger(log, append=True), Checkpoint(file, SECONDS_BETWEEN_SAVES)
        every = [logger, *callbacks, ProgressCallback(on_progress), checkpoint]
        model.fit_on(pixels, batch_size, epochs=epochs, callbacks=every, verbose=0)


def truncate_log(log, passes):
    """Leave of a Keras log the rows of so many passes: what an interrupted run wrote of those to be made again goes."""
    log = Path(log)
    if log.exists():
        rows = log.read_text(encoding="utf-8").splitlines(keepends=True)
        with replacing(log) as path:
            path.write_text("".join(rows[: 1 + passes]), encoding="utf-8")


def train_comparator(pixels, state, image_shape, *, tile=None, steps=STEPS, progress=no_progress, **options):
    """Train a comparator on normal images and keep its training state in a folder, resumable like the others.

    Args:
        pixels: as for `ComparatorTrainer.fit_on`.
        state: a folder for `comparator.keras` (networks and optimizer) and `comparator.csv`.
        image_shape: `(H, W, C)` of the images.
        tile, **options: as for `ComparatorTrainer`.
        steps: of training, rounded up to whole passes.
        progress: makes a progress display, see `runtime.progress`.

    Returns:
        The trained comparator.
    """
    state, each = Path(state), max(1, len(pixels) // TRAINING_BATCH)
    epochs = math.ceil(steps / each)
    if (state / "comparator.keras").exists():
        trainer = ComparatorTrainer.load(state / "comparator.keras")
    else:
        # What is told apart from a defect is a surface, and a surface may be mirrored, whatever the object.
        preprocessing = Preprocessing(image_shape, augment=("mirror",))
        trainer = ComparatorTrainer(preprocessing=preprocessing, tile=tile, **options)
        trainer.compile(steps=epochs * each)
    _train(trainer, pixels, state / "comparator.keras", state / "comparator.csv", epochs, TRAINING_BATCH, "Comparator", progress)
    return trainer.ema_comparator


def train_networks(
    pixels, state, image_shape, *, encoder=True, epochs=None, encoder_epochs=None, seed=0, progress=no_progress, **options
):
    """`train_gan`, and `train_encoder` where an encoder is wanted.

    Args:
        pixels, state, image_shape, progress: as for `train_gan`.
        encoder: whether one is wanted.
        epochs: of the GAN; by default as `choose_epochs` has it.
        encoder_epochs: of the encoder; by default `ENCODER_SHARE` as many.
        seed: of the weights, the latent vectors and the order of the images.
        **options: as for `train_gan`.

    Returns:
        `(gan, encoder or None)`.
    """
    epochs = epochs or choose_epochs(len(pixels), options.get("batch_size", TRAINING_BATCH))
    gan = train_gan(pixels, state, image_shape, epochs=epochs, seed=seed, progress=progress, **options)
    if not encoder:
        return gan, None
    sizes = {name: options[name] for name in ("preset", "base_filters") if name in options}
    encoder_epochs = encoder_epochs or math.ceil(ENCODER_SHARE * epochs)
    return gan, train_encoder(gan, pixels, state, epochs=encoder_epochs, progress=progress, **sizes)


def calibrate_detector(gan, encoder, held_out, *, false_positive_rate=FALSE_POSITIVE_RATE, progress=no_progress, **options):
    """A detector of the networks, calibrated on held-out pixels. `**options` as for `AnoGAN.from_gan`."""
    detector = AnoGAN.from_gan(gan, encoder, **options)
    with progress("Calibrating", len(held_out)) as on_progress:
        detector.calibrate(held_out, false_positive_rate, on_progress=on_progress)
    return detector


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


def train(
    source: Source,
    model: PathLike,
    options: TrainingOptions = DEFAULTS,
    *,
    named: dict[str, Any] | None = None,
    strict: bool = False,
    resume: bool = False,
    warn: Callable[[str], Any] = warnings.warn,
    progress: Progress = no_progress,
) -> tuple[AnoGAN, list[DecodedImage]]:
    """Train and calibrate a detector on normal images; write `MODEL.keras`, and its training state to `MODEL.train/`.

    `MODEL.train/run.json` records the options, versions and a fingerprint of the data. While training lasts, the folder is
    `MODEL.train.partial/`.

    Args:
        source: a `FileSource` or `TfdsSource`. Its normal images of "train" are trained on; the threshold comes from those of
            "val", or where there are none, from some that are held out.
        model: the `.keras` file to write.
        options: `TrainingOptions`.
        named: how the images were named, a dict that the record keeps.
        strict: whether an image that can't be read is an error.
        resume: whether to go on where an interrupted call with the same arguments stopped, if one did; to the same weights.
        warn: as for `TrainingMonitor`.
        progress: see `runtime.progress`.

    Returns:
        `(detector, skipped)`: the calibrated `AnoGAN`, and a `DecodedImage` for each that couldn't be read.

    Raises:
        ValueError: for options that contradict each other, images that can't be used or are too few.
    """
    options.check()
    preprocessing, tiling = infer_preprocessing(source, **options.preprocessing), _tiling(options)
    image_shape = check_image_shape((*(options.tile or preprocessing.image_shape[:2]), preprocessing.image_shape[-1]))
    if tiling is not None:
        tiling.check(min(image_shape[:2]))
    beside = Path(model).parent
    beside.mkdir(parents=True, exist_ok=True)
    tiles = (options.patches or TILES) if options.tile else None
    pool, split = read_normals(source, preprocessing, image_shape, tiles, beside, options.seed, strict, progress)
    check_count(len(split.held_out), options.false_positive_rate)
    record = {"options": dataclasses.asdict(options), "data": pool.fingerprint}
    with locked(training_state(model)), _state_folder(model, record, resume) as state:
        write_record(state, {**record, "images": named or {}})
        for note, rows in ((HELD_OUT, split.held_out), (TRAINED, split.trained)):
            (state / note).write_text("".join(f"{absolute_name(source.entries[row])}\n" for row in rows), encoding="utf-8")
        pixels = pool.pixels.subset(np.isin(pool.rows, split.trained))
        parts = {"preprocessing": preprocessing, "tiling": tiling}
        networks = _train_parts(pixels, state, image_shape, options, tiling, warn, progress)
        if options.with_comparator:
            networks |= _comparing(source, options, split.trained, pixels, preprocessing, tiling, beside, state, progress)
        detector = AnoGAN.from_gan(**networks, **parts, **options.searching)
        calibrate_on(detector, source, split.held_out, options.false_positive_rate, progress)
        detector.save(model)
    return detector, pool.skipped


def _train_parts(pixels, state, image_shape, options, tiling, warn, progress):
    """GAN, encoder and memory bank, and with a tiling the generator that was trained on with the encoder, by name."""
    wanted = {"epochs": TILE_EPOCHS, **options.networks} if tiling else options.networks
    own = Preprocessing(image_shape, augment=options.augment)
    gan, encoder = train_networks(pixels, state, image_shape, preprocessing=own, warn=warn, progress=progress, **wanted)
    bank = remember(pixels, options.memory_bank, options.seed) if options.memory_bank else None
    parts = {"gan": gan, "encoder": encoder, "memory_bank": bank}
    if encoder is not None and tiling:
        joint = train_jointly(gan, encoder, pixels, state, epochs=JOINT_EPOCHS, progress=progress)
        parts |= dict(zip(("generator", "encoder"), joint))
    return parts


def _comparing(source, options, rows, pixels, preprocessing, tiling, folder, state, progress):
    """The comparator and its patch memory, by name."""
    tile = None
    if tiling is not None:  # it learns from larger pieces than the generator draws, and where an image ends
        tile = (tiling.context, tiling.context)
        pixels = read_scenes(source, preprocessing, rows, folder, options.seed, progress)
    given: dict[str, Any] = {"normalized": preprocessing.normalize, "seed": options.seed}
    given |= {"steps": options.comparator_steps or STEPS}
    comparator = train_comparator(pixels, state, pixels.shape[1:], tile=tile, progress=progress, **given)
    return {"comparator": comparator, "patch_memory": remember_patches(comparator, pixels, tile, options.seed)}


def read_scenes(source, preprocessing, rows, folder=None, seed=0, progress=no_progress):
    """Squares cut out of images of a source and what lies around them, see `random_scenes`, as a `DiskArray`.

    Args:
        source, preprocessing, progress: as for `train`.
        rows: of the source; of more than `MAX_SCENES` some are drawn.
        folder: where the file lies.
        seed: of rows and places.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_SCENES]).astype(int)
    each, shape = -(-SCENES // len(rows)), (SCENE, SCENE, preprocessing.image_shape[-1])

    def cut(row, image):
        return random_scenes(image, SCENE, MARGIN, each, np.random.default_rng((seed, row, 1)))

    with progress("Reading", len(rows)) as on_progress:
        pool = sources.fill_pool(source, preprocessing, rows, shape, cut, folder, on_progress=on_progress)
    return pool.pixels


def remember_patches(comparator, pixels, tile=None, seed=0):
    """A `PatchMemory` of the patches in some of the images that a comparator was trained on, or in their tiles."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(pixels))[:DESCRIBED])

    def batches():
        for first in range(0, len(rows), TRAINING_BATCH):
            images = to_network(pixels.take(rows[first : first + TRAINING_BATCH]))
            if tile is None:
                yield images
                continue
            for top in range(0, images.shape[1] - tile[0] + 1, tile[0]):
                for left in range(0, images.shape[2] - tile[1] + 1, tile[1]):
                    yield images[:, top : top + tile[0], left : left + tile[1]]

    return PatchMemory.of(comparator, batches(), seed=seed)


def _tiling(options):
    """The `Tiling` of patches, or None for whole images."""
    return None if options.patch is None else Tiling(options.stride or max(1, options.patch // 2), options.top)


def _state_folder(model, record, resume):
    """The folder of the training state; what an interrupted run has left in it is there where that is to be gone on with."""
    state = training_state(model)
    return replacing_folder(state, keep=resume and has_record(partial_folder(state), record))


def remember(pixels, count, seed=0):
    """A `MemoryBank` of so many images, drawn at random from a `DiskArray` of prepared pixels in [0, 1], or of all."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(pixels))[:count])
    return MemoryBank.of(to_network(pixels.take(rows)))


def calibrate_on(detector, source, rows, false_positive_rate=FALSE_POSITIVE_RATE, progress=no_progress):
    """Calibrate a detector on images of a source, given by their rows; returns it."""
    with progress("Calibrating", len(rows)) as on_progress:
        images = (sample.image for sample in sources.read_samples(source, detector.preprocessing, rows, strict=True))
        return detector.calibrate_prepared(
            map(pad_and_stack, batch_by_pixels(images, SCORING_BATCH)), false_positive_rate, on_progress
        )


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
    return pool, Split(readable[split.trained], readable[split.held_out])

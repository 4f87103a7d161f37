"""The parts of a detector, trained on pixels in a folder, each resumable: networks, and what it remembers of normal images."""

import math
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

from anogan_tf.data import sources
from anogan_tf.data.defects import SMALLEST
from anogan_tf.data.disk import DiskArray
from anogan_tf.data.preprocessing import Preprocessing, to_network, to_pixels
from anogan_tf.detection.memory_bank import MemoryBank
from anogan_tf.detection.patch_memory import PatchMemory
from anogan_tf.detection.tiling import random_scenes
from anogan_tf.networks.comparator import MARGIN
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import replacing
from anogan_tf.runtime.progress import ProgressCallback, no_progress
from anogan_tf.training.callbacks import Checkpoint, SampleGrid, TrainingMonitor
from anogan_tf.training.comparator import BATCH, STEPS, ComparatorTrainer
from anogan_tf.training.encoder import EncoderTrainer
from anogan_tf.training.gan import GAN
from anogan_tf.training.trainer import TRAINING_BATCH

EPOCHS, MIN_STEPS = 50, 3000  # more epochs where images are so few that 50 are fewer steps: after hundreds a GAN draws haze
ENCODER_SHARE = 0.6  # passes of the encoder's training for each of the GAN's
ENCODER_BATCH, ENCODER_RATE = 32, 1e-3  # the learning rate falls to 0 along half a cosine
JOINT_EPOCHS, JOINT_RATE = 20, 2e-3  # of generator and encoder together
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
    callbacks=(),
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
        callbacks: others of Keras's.

    Returns:
        The trained `GAN`.
    """
    state = Path(state)
    if (state / "gan.keras").exists():
        gan = GAN.load(state / "gan.keras")
    else:
        gan = GAN(image_shape, **options)
        gan.compile(label_smoothing=label_smoothing)
    own = SampleGrid(state / "samples", every=max(1, epochs // 10)), TrainingMonitor(_some(gan, pixels), warn)
    log, every = state / "log.csv", (*own, *callbacks)
    _train(gan, pixels, state / "gan.keras", log, epochs, batch_size, "Training", progress, every)
    return gan


def train_encoder(gan, pixels, state, *, epochs, batch_size=ENCODER_BATCH, progress=no_progress, callbacks=(), **options):
    """Train an encoder for a GAN on the same pixels and keep its training state in the same folder, resumable alike.

    Args:
        gan: a trained `GAN`.
        pixels: as for `EncoderTrainer.fit_on`.
        state: a folder for `encoder.keras` (networks and optimizer) and `encoder.csv`.
        epochs, batch_size: as for `EncoderTrainer.fit`.
        progress, callbacks: as for `train_gan`.
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
    _train(trainer, pixels, state / "encoder.keras", state / "encoder.csv", epochs, batch_size, "Encoder", progress, callbacks)
    return trainer.encoder


def train_jointly(gan, encoder, pixels, state, *, epochs, batch_size=ENCODER_BATCH, progress=no_progress, callbacks=()):
    """Train a GAN's generator and its encoder together, see `EncoderTrainer`, resumable like the others.

    Args:
        gan, pixels, state, epochs, batch_size, progress, callbacks: as for `train_encoder`; the file is `joint.keras`.
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
    _train(trainer, pixels, state / "joint.keras", state / "joint.csv", epochs, batch_size, "Together", progress, callbacks)
    return trainer.generator, trainer.encoder


def _some(gan, pixels):
    """Some of the images that a GAN is trained on, as it sees them, `[N, H, W, C]` in [0, 1]."""
    rows = np.random.default_rng(0).permutation(len(pixels))[:WATCHED]
    some = pixels.subset(rows) if isinstance(pixels, DiskArray) else [pixels[row] for row in rows]
    return to_pixels(gan.row_reader(some)[1](tf.range(len(rows))))


def _train(model, pixels, file, log, epochs, batch_size, title, progress, callbacks):
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


def train_comparator(pixels, state, image_shape, *, tile=None, steps=STEPS, progress=no_progress, callbacks=(), **options):
    """Train a comparator on normal images and keep its training state in a folder, resumable like the others.

    Args:
        pixels: as for `ComparatorTrainer.fit_on`.
        state: a folder for `comparator.keras` (networks and optimizer) and `comparator.csv`.
        image_shape: `(H, W, C)` of the images.
        tile, **options: as for `ComparatorTrainer`.
        steps: of training, rounded up to whole passes.
        progress, callbacks: as for `train_gan`.

    Returns:
        The trained comparator.
    """
    state, each = Path(state), max(1, len(pixels) // BATCH)
    epochs = math.ceil(steps / each)
    if (state / "comparator.keras").exists():
        trainer = ComparatorTrainer.load(state / "comparator.keras")
    else:
        # What is told apart from a defect is a surface, and a surface may be mirrored, whatever the object.
        preprocessing = Preprocessing(image_shape, augment=("mirror",))
        trainer = ComparatorTrainer(preprocessing=preprocessing, tile=tile, **options)
        trainer.compile(steps=epochs * each)
    file, log = state / "comparator.keras", state / "comparator.csv"
    _train(trainer, pixels, file, log, epochs, BATCH, "Comparator", progress, callbacks)
    return trainer.ema_comparator


def train_networks(
    pixels,
    state,
    image_shape,
    *,
    encoder=True,
    epochs=None,
    encoder_epochs=None,
    seed=0,
    progress=no_progress,
    callbacks=(),
    **options,
):
    """`train_gan`, and `train_encoder` where an encoder is wanted.

    Args:
        pixels, state, image_shape, progress, callbacks: as for `train_gan`.
        encoder: whether one is wanted.
        epochs: of the GAN; by default as `choose_epochs` has it.
        encoder_epochs: of the encoder; by default `ENCODER_SHARE` as many.
        seed: of the weights, the latent vectors and the order of the images.
        **options: as for `train_gan`.

    Returns:
        `(gan, encoder or None)`.
    """
    epochs = epochs or choose_epochs(len(pixels), options.get("batch_size", TRAINING_BATCH))
    every = {"progress": progress, "callbacks": callbacks}
    gan = train_gan(pixels, state, image_shape, epochs=epochs, seed=seed, **every, **options)
    if not encoder:
        return gan, None
    sizes = {name: options[name] for name in ("preset", "base_filters") if name in options}
    encoder_epochs = encoder_epochs or math.ceil(ENCODER_SHARE * epochs)
    return gan, train_encoder(gan, pixels, state, epochs=encoder_epochs, **every, **sizes)


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

    largest = 0

    def cut(row, image):
        nonlocal largest
        largest = max(largest, min(image.shape[:2]))
        return random_scenes(image, SCENE, MARGIN, each, np.random.default_rng((seed, row, 1)))

    with progress("Reading", len(rows)) as on_progress:
        pool = sources.fill_pool(source, preprocessing, rows, shape, cut, folder, on_progress=on_progress)
    if largest < SMALLEST:
        raise ValueError(
            f"No image has sides of {SMALLEST} pixels once it is shrunk, too little for a comparator to learn from: "
            "give a larger --scale, or --no-comparator."
        )
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


def remember(pixels, count, seed=0):
    """A `MemoryBank` of so many images, drawn at random from a `DiskArray` of prepared pixels in [0, 1], or of all."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(pixels))[:count])
    return MemoryBank.of(to_network(pixels.take(rows)))

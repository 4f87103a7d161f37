"""From normal images to a calibrated detector: splits, training that can be gone on with, calibration, what is recorded of it."""

import contextlib
import dataclasses
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from anogan_tf.backend import keras
from anogan_tf.calibration import FALSE_POSITIVE_RATE, check_count
from anogan_tf.callbacks import Advance, Checkpoint, SampleGrid, TrainingWatch
from anogan_tf.data import sources
from anogan_tf.data.disk import DiskArray
from anogan_tf.data.layouts import check_labels
from anogan_tf.detector import BATCH_SIZE as SCORING_BATCH
from anogan_tf.detector import AnoGAN
from anogan_tf.encoder import EncoderTrainer
from anogan_tf.fitting import BATCH_SIZE
from anogan_tf.gan import GAN
from anogan_tf.memory import Memory
from anogan_tf.networks import check_image_shape
from anogan_tf.preparation import Preparation, to_network, to_pixels
from anogan_tf.records import has_record, write_record
from anogan_tf.saving import locked, partial_folder, replacing, replacing_folder
from anogan_tf.tiling import fill_up, grouped, random_tiles

EPOCHS, LEAST_STEPS = 50, 3000  # more epochs where images are so few that 50 are fewer steps: after hundreds a GAN draws haze
ENCODER_SHARE = 0.6  # passes of the encoder's training for each of the GAN's
ENCODER_BATCH, ENCODER_RATE = 32, 1e-3  # the learning rate falls to 0 along half a cosine
HELD_OUT_SHARE, LEAST_HELD_OUT, MOST_HELD_OUT, LEAST_TRAINED = 0.1, 50, 1000, 50
HELD_OUT, TRAINED = "held_out.txt", "trained.txt"  # names of images, in the training state
TILES, TILE_EPOCHS = 10_000, 20  # cut at random places to train on, in all, and passes over them
WATCHED = 256  # of the training images, whose spread that of the samples is compared with
SECONDS_BETWEEN_SAVES = 30.0  # of what is being trained


@contextlib.contextmanager
def silent(description, total):
    """A progress display that shows nothing: gives `advance(count=1)`, to be called until it has counted to `total`."""
    yield lambda count=1: None


class Split(NamedTuple):
    """Rows to train on and rows to calibrate on."""

    trained: np.ndarray
    held_out: np.ndarray


def split_normals(count, seed=0, groups=None):
    """Hold out 10% of the normals, at least 50 and at most 1,000, for the threshold; which ones depends on the seed alone.

    Args:
        count: how many normals there are.
        seed: an integer.
        groups: `[count]`, what is not to be torn apart; by default each is its own. Whole groups are held out, until
            there are enough.
    """
    held_out = min(max(LEAST_HELD_OUT, int(count * HELD_OUT_SHARE)), MOST_HELD_OUT)
    members = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(members)
    order = np.random.default_rng(seed).permutation(len(sizes))
    taken, enough = [], 0
    for group in order:
        if enough < held_out and enough + sizes[group] <= 2 * held_out:  # one that holds most of them is trained on
            taken.append(group)
            enough += sizes[group]
    out = np.isin(members, taken)
    if enough < min(held_out, LEAST_HELD_OUT) or (~out).sum() < LEAST_TRAINED:
        raise ValueError(
            f"{count} normal images are too few: at least {LEAST_HELD_OUT} are held out for the threshold and at least "
            f"{LEAST_TRAINED} are trained on, so {LEAST_HELD_OUT + LEAST_TRAINED} are needed"
            + ("." if groups is None else ", and more where a few groups hold most of them.")
            + " Images that are kept for testing, and groups with an anomaly, don't count."
        )
    return Split(np.flatnonzero(~out), np.flatnonzero(out))


def choose_epochs(count, batch_size=BATCH_SIZE):
    """How many passes over `count` images the GAN is trained by default: `EPOCHS`, or as many as make `LEAST_STEPS` steps."""
    return max(EPOCHS, math.ceil(LEAST_STEPS / max(1, count // batch_size)))


def train_gan(
    pixels,
    state,
    image_shape,
    *,
    epochs,
    batch_size=BATCH_SIZE,
    label_smoothing=0.0,
    tell=warnings.warn,
    progress=silent,
    **options,
):
    """Train a GAN on normal pixels and keep its training state in a folder.

    Args:
        pixels: as for `GAN.fit_on`.
        state: a folder for `gan.keras` (networks and optimisers), `log.csv` and `samples/`. Where an interrupted call left them,
            this one, with the same arguments, goes on to the same weights.
        image_shape, **options: as for `GAN`.
        epochs, batch_size: as for `GAN.fit`.
        label_smoothing: as for `GAN.compile`.
        tell: as for `TrainingWatch`.
        progress: makes a progress display, see `silent`.

    Returns:
        The trained `GAN`.
    """
    state = Path(state)
    if (state / "gan.keras").exists():
        gan = GAN.load(state / "gan.keras")
    else:
        gan = GAN(image_shape, **options)
        gan.compile(label_smoothing=label_smoothing)
    callbacks = SampleGrid(state / "samples", every=max(1, epochs // 10)), TrainingWatch(_some(gan, pixels), tell)
    _train(gan, pixels, state / "gan.keras", state / "log.csv", epochs, batch_size, "Training", progress, *callbacks)
    return gan


def train_encoder(gan, pixels, state, *, epochs, batch_size=ENCODER_BATCH, progress=silent, **options):
    """Train an encoder for a GAN on the same pixels and keep its training state in the same folder, resumable alike.

    Args:
        gan: a trained `GAN`.
        pixels: as for `EncoderTrainer.fit_on`.
        state: a folder for `encoder.keras` (networks and optimiser) and `encoder.csv`.
        epochs, batch_size: as for `EncoderTrainer.fit`.
        progress: makes a progress display, see `silent`.
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


def _some(gan, pixels):
    """Some of the images that a GAN is trained on, as it sees them, `[N, H, W, C]` in [0, 1]."""
    rows = np.random.default_rng(0).permutation(len(pixels))[:WATCHED]
    some = pixels.subset(rows) if isinstance(pixels, DiskArray) else [pixels[row] for row in rows]
    return to_pixels(gan.row_reader(some)[1](tf.range(len(rows))))


def _train(model, pixels, file, log, epochs, batch_size, title, progress, *callbacks):
    """Train a model until it has made so many passes, from where it stands, with a log and checkpoints."""
    steps, seen = max(1, len(pixels) // batch_size), int(model.batches_seen.numpy())
    cut_log(log, seen // steps)
    with progress(title, epochs * steps) as advance:
        advance(seen)
        logger, checkpoint = keras.callbacks.CSVLogger(log, append=True), Checkpoint(file, SECONDS_BETWEEN_SAVES)
        every = [logger, *callbacks, Advance(advance), checkpoint]
        model.fit_on(pixels, batch_size, epochs=epochs, callbacks=every, verbose=0)


def cut_log(log, passes):
    """Leave of a Keras log the rows of so many passes: what an interrupted run wrote of those to be made again goes."""
    log = Path(log)
    if log.exists():
        rows = log.read_text(encoding="utf-8").splitlines(keepends=True)
        with replacing(log) as path:
            path.write_text("".join(rows[: 1 + passes]), encoding="utf-8")


def train_networks(
    pixels, state, image_shape, *, encoder=True, epochs=None, encoder_epochs=None, seed=0, progress=silent, **options
):
    """`train_gan`, and `train_encoder` where an encoder is wanted.

    Args:
        encoder: whether one is wanted.
        epochs: of the GAN; by default as `choose_epochs` has it.
        encoder_epochs: of the encoder; by default `ENCODER_SHARE` as many.
        **options: as for `train_gan`.

    Returns:
        `(gan, encoder or None)`.
    """
    epochs = epochs or choose_epochs(len(pixels), options.get("batch_size", BATCH_SIZE))
    gan = train_gan(pixels, state, image_shape, epochs=epochs, seed=seed, progress=progress, **options)
    if not encoder:
        return gan, None
    sizes = {name: options[name] for name in ("preset", "width") if name in options}
    encoder_epochs = encoder_epochs or math.ceil(ENCODER_SHARE * epochs)
    return gan, train_encoder(gan, pixels, state, epochs=encoder_epochs, progress=progress, **sizes)


def calibrate_detector(gan, encoder, held_out, *, false_positive_rate=FALSE_POSITIVE_RATE, progress=silent, **options):
    """A detector of the networks, calibrated on held-out pixels. `**options` as for `AnoGAN.from_gan`."""
    detector = AnoGAN.from_gan(gan, encoder, **options)
    with progress("Calibrating", len(held_out)) as advance:
        detector.calibrate(held_out, false_positive_rate, advance=advance)
    return detector


def normal_rows(source, split="train"):
    """Rows of a source to train on (or of "val", to calibrate on): all that is not known to be anomalous or for another use."""
    check_labels(source.entries)
    splits = ("", split) if split == "train" else (split,)
    return [row for row, entry in enumerate(source.entries) if entry.normal is not False and entry.split in splits]


def settle_preparation(source, size, *, channels=None, value_range=None, **settings):
    """The `Preparation` for the normal images of a source.

    Args:
        size: `(H, W)`, or `(None, None)` for images of their own size.
        channels: 1, 3 or None for what the images are.
        value_range: as for `Preparation`, or None to take it from the images where they have more than 8 bits.
        **settings: fit, scale, normalise, augment.
    """
    heads = sources.read_heads(source, normal_rows(source))
    channels = channels or sources.count_channels(heads)
    value_range = value_range or sources.value_range(source, heads)
    return Preparation((*size, channels), value_range=value_range, **settings)


def train_files(
    source,
    model,
    preparation,
    *,
    tile=None,
    tiling=None,
    tiles=TILES,
    memory=0,
    seed=0,
    false_positive_rate=FALSE_POSITIVE_RATE,
    training,
    searching,
    strict=False,
    resume=False,
    command=None,
    tell=warnings.warn,
    progress=silent,
):
    """Train and calibrate a detector on normal images; write `MODEL.keras`, and its training state to `MODEL.train/`.

    `MODEL.train/run.json` records settings, versions and a fingerprint of the data. While training lasts, the folder is
    `MODEL.train.partial/`.

    Args:
        source: a `FileSource` or `TfdsSource`. Its normal images of "train" are trained on; the threshold comes from those of
            "val", or where there are none, from some that are held out.
        model: the `.keras` file to write.
        preparation: the `Preparation` of whole images, see `settle_preparation`.
        tile, tiling: `(H, W)` of the networks and the `Tiling`, where they are to see tiles of the images.
        tiles: to train on, in all, cut at random places.
        memory: how many of the images, or tiles, that are trained on the detector remembers, see `Memory`; 0 for none.
        seed: of the split, the weights, the latent vectors and the search.
        false_positive_rate: as for `AnoGAN.calibrate`.
        training: dict, options of `train_networks`.
        searching: dict, options of `AnoGAN.from_gan`.
        strict: whether an image that can't be read is an error.
        resume: whether to go on where an interrupted call with the same arguments stopped, if one did; to the same weights.
        command: what else the record is to hold, a dict.
        tell: as for `TrainingWatch`.
        progress: see `silent`.

    Returns:
        `(detector, skipped)`: the calibrated `AnoGAN`, and the `Picture`s that couldn't be read.
    """
    _check_wishes(memory, training, searching)
    given = {"training": dict(training), "searching": dict(searching)}
    image_shape = check_image_shape((*(tile or preparation.image_shape[:2]), preparation.image_shape[-1]))
    if tiling is not None:
        tiling.check(min(image_shape[:2]))
        training = {"epochs": TILE_EPOCHS, **training}
    searching = {"seed": seed, "preparation": preparation, "tiling": tiling, **searching}
    beside = Path(model).parent
    beside.mkdir(parents=True, exist_ok=True)
    pool, split = read_normals(source, preparation, image_shape, tile and tiles, beside, seed, strict, progress)
    check_count(len(split.held_out), false_positive_rate)
    settings = {"tile": tile, "tiling": tiling and dataclasses.asdict(tiling), "tiles": tiles, "memory": memory, "seed": seed}
    settings |= {"false_positive_rate": false_positive_rate, "preparation": preparation.get_settings(), **given}
    record = {"settings": settings, "data": pool.fingerprint}
    with locked(training_state(model)), _state_folder(model, record, resume) as state:
        write_record(state, {**record, "command": command or {}})
        for note, rows in ((HELD_OUT, split.held_out), (TRAINED, split.trained)):
            (state / note).write_text("".join(f"{whole_name(source.entries[row])}\n" for row in rows), encoding="utf-8")
        training = {"preparation": Preparation(image_shape, augment=preparation.augment), "seed": seed, **training}
        pixels = pool.pixels.subset(np.isin(pool.rows, split.trained))
        networks = train_networks(pixels, state, image_shape, tell=tell, progress=progress, **training)
        remembered = remember(pixels, memory, seed) if memory else None
        detector = AnoGAN.from_gan(*networks, memory=remembered, **searching)
        calibrate_on(detector, source, split.held_out, false_positive_rate, progress)
        detector.save(model)
    return detector, pool.skipped


def _check_wishes(memory, training, searching):
    """Raise a ValueError where one thing that is asked for is of no use without another that isn't."""
    if searching.get("mode", "search") != "search" and not training.get("encoder", True):
        raise ValueError(f"mode {searching['mode']!r} needs an encoder, and none is to be trained.")
    idle = {"self-supervision": training.get("self_supervision"), "memory": memory, "typicality": searching.get("typicality")}
    for option, given in idle.items():
        if given and searching.get("score", "loss") != "complexity":
            raise ValueError(f"--{option} counts only in the score 'complexity': train with --score complexity, or without it.")


def _state_folder(model, record, resume):
    """The folder of the training state; what an interrupted run has left in it is there where that is to be gone on with."""
    state = training_state(model)
    return replacing_folder(state, keep=resume and has_record(partial_folder(state), record))


def remember(pixels, count, seed=0):
    """A `Memory` of so many images, drawn at random from a `DiskArray` of prepared pixels in [0, 1], or of all."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(pixels))[:count])
    return Memory.of(to_network(pixels.take(rows)))


def calibrate_on(detector, source, rows, false_positive_rate=FALSE_POSITIVE_RATE, progress=silent):
    """Calibrate a detector on images of a source, given by their rows; returns it."""
    with progress("Calibrating", len(rows)) as advance:
        images = (sample.image for sample in sources.read_samples(source, detector.preparation, rows, strict=True))
        return detector.calibrate_prepared(map(fill_up, grouped(images, SCORING_BATCH)), false_positive_rate, advance)


def read_normals(source, preparation, image_shape, tiles=None, folder=None, seed=0, strict=False, progress=silent):
    """Read the normal images of a source, to train on and to hold out; only what can be read is in either.

    Args:
        source, preparation, seed, strict, progress: as for `train_files`.
        image_shape: `(H, W, C)` of the networks.
        tiles: how many to cut at random places, in all; None keeps whole images.
        folder: where the pool's file lies.

    Returns:
        `(Pool, Split)`, the split by rows of the source.
    """
    rows, given = normal_rows(source), normal_rows(source, "val")
    if not rows:
        raise ValueError("There are no normal images to train on.")
    given = np.sort(np.random.default_rng(seed).permutation(given)[:MOST_HELD_OUT]).astype(int)
    each = tiles and -(-tiles // len(rows))

    def cut(row, image):
        if not tiles:
            return image[np.newaxis]
        return random_tiles(image, image_shape[:2], each, np.random.default_rng((seed, row)))

    with progress("Reading", len(rows) + len(given)) as advance:
        pool = sources.fill_pool(source, preparation, rows, image_shape, cut, folder, strict, advance)
        # Looked at before hours of training, too.
        held_out = []
        if len(given):
            samples = sources.read_samples(source, preparation, given, strict=strict)
            for sample in sources.readable(samples, pool.skipped, advance):
                held_out.append(sample.row)
                advance()
    readable = np.unique(pool.rows)
    if len(given):
        return pool, Split(readable, np.array(held_out, int))
    groups = [source.entries[row].group or f"\0{row}" for row in readable]
    split = split_normals(len(readable), seed, groups if any(source.entries[row].group for row in readable) else None)
    return pool, Split(readable[split.trained], readable[split.held_out])


def whole_name(entry):
    """An entry's name by which it is known from any folder, on one line."""
    path = entry.path if entry.path.startswith("tfds:") else str(Path(entry.path).resolve())
    return "\\n".join(entry._replace(path=path).name.splitlines())


def names_used(model):
    """What a model was trained on, and what set its threshold: two sets of `whole_name`; None where it isn't known."""
    notes = [training_state(model) / note for note in (TRAINED, HELD_OUT)]
    if not all(note.exists() for note in notes):
        return None
    return tuple(set(note.read_text(encoding="utf-8").split("\n")) for note in notes)


def training_state(model):
    """The folder beside `MODEL.keras` that keeps its training state: `MODEL.train`."""
    return Path(model).with_suffix(".train")

"""What the commands do, end to end: train a calibrated detector on normal images, score files into a folder."""

import contextlib
import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anogan_tf import data, maps, plots
from anogan_tf.backend import keras
from anogan_tf.calibration import FALSE_POSITIVE_RATE, check_count
from anogan_tf.callbacks import Advance, SampleGrid
from anogan_tf.detector import BATCH_SIZE as SCORING_BATCH
from anogan_tf.detector import AnoGAN
from anogan_tf.encoder import EncoderTrainer
from anogan_tf.fitting import BATCH_SIZE
from anogan_tf.gan import GAN
from anogan_tf.networks import check_image_shape
from anogan_tf.preparation import Preparation
from anogan_tf.saving import replacing, replacing_folder

EPOCHS = 50
ENCODER_SHARE = 0.6  # passes of the encoder's training for each of the GAN's
ENCODER_BATCH, ENCODER_RATE = 32, 1e-3  # the learning rate falls to 0 along half a cosine
HELD_OUT_SHARE, LEAST_HELD_OUT, LEAST_TRAINED = 0.1, 50, 50
FILES_AT_ONCE = 64  # rows are written and the progress bar moves so often; fewer would leave rows of a block without work
SHOWN = 12  # images on the contact sheet
DISPLAY_SIDE = 512  # pixels; overlays are no larger
SCORE_COLUMNS = ("score", "residual_score", "discrimination_score", "p_value", "label")


@contextlib.contextmanager
def silent(description, total):
    """A progress display that shows nothing: gives `advance()`, to be called `total` times."""
    yield lambda: None


class Split(NamedTuple):
    """Rows to train on and rows to calibrate on."""

    trained: np.ndarray
    held_out: np.ndarray


def split_normals(count, seed=0):
    """Hold out 10% of the normals, at least 50, for the threshold; which ones depends on the seed alone."""
    held_out = max(LEAST_HELD_OUT, int(count * HELD_OUT_SHARE))
    if count - held_out < LEAST_TRAINED:
        raise ValueError(
            f"{count} normal images are too few: at least {LEAST_HELD_OUT} are held out for the threshold and at least "
            f"{LEAST_TRAINED} are trained on, so {LEAST_HELD_OUT + LEAST_TRAINED} are needed."
        )
    order = np.random.default_rng(seed).permutation(count)
    return Split(np.sort(order[held_out:]), np.sort(order[:held_out]))


def train_gan(
    pixels,
    state,
    image_shape,
    *,
    epochs=EPOCHS,
    batch_size=BATCH_SIZE,
    label_smoothing=0.0,
    progress=silent,
    **options,
):
    """Train a GAN on normal pixels and keep its training state in a folder.

    Args:
        pixels: as for `GAN.fit`.
        state: an empty folder for `gan.keras` (networks and optimisers), `log.csv` and `samples/`.
        image_shape, **options: as for `GAN`.
        epochs, batch_size: as for `GAN.fit`.
        label_smoothing: as for `GAN.compile`.
        progress: makes a progress display, see `silent`.

    Returns:
        The trained `GAN`.
    """
    state = Path(state)
    gan = GAN(image_shape, **options)
    gan.compile(label_smoothing=label_smoothing)
    with progress("Training", epochs * max(1, len(pixels) // batch_size)) as advance:
        callbacks = [
            keras.callbacks.CSVLogger(state / "log.csv"),
            SampleGrid(state / "samples", every=max(1, epochs // 10)),
            Advance(advance),
        ]
        gan.fit(pixels, batch_size=batch_size, epochs=epochs, callbacks=callbacks, verbose=0)
    gan.save(state / "gan.keras")
    return gan


def train_encoder(gan, pixels, state, *, epochs, batch_size=ENCODER_BATCH, progress=silent, **options):
    """Train an encoder for a GAN on the same pixels and keep its training state in the same folder.

    Args:
        gan: a trained `GAN`.
        pixels: as for `EncoderTrainer.fit`.
        state: a folder for `encoder.keras` (networks and optimiser) and `encoder.csv`.
        epochs, batch_size: as for `EncoderTrainer.fit`.
        progress: makes a progress display, see `silent`.
        **options: as for `EncoderTrainer.from_gan`.

    Returns:
        The trained encoder.
    """
    state, steps = Path(state), epochs * max(1, len(pixels) // batch_size)
    trainer = EncoderTrainer.from_gan(gan, **options)
    trainer.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(ENCODER_RATE, steps)))
    with progress("Encoder", steps) as advance:
        callbacks = [keras.callbacks.CSVLogger(state / "encoder.csv"), Advance(advance)]
        trainer.fit(pixels, batch_size=batch_size, epochs=epochs, callbacks=callbacks, verbose=0)
    trainer.save(state / "encoder.keras")
    return trainer.encoder


def train_networks(pixels, state, image_shape, *, encoder=True, epochs=EPOCHS, seed=0, progress=silent, **options):
    """`train_gan`, and `train_encoder` where an encoder is wanted.

    Args:
        encoder: whether one is wanted.
        epochs: of the GAN; the encoder gets `ENCODER_SHARE` as many.
        **options: as for `train_gan`.

    Returns:
        `(gan, encoder or None)`.
    """
    gan = train_gan(pixels, state, image_shape, epochs=epochs, seed=seed, progress=progress, **options)
    if not encoder:
        return gan, None
    sizes = {name: options[name] for name in ("preset", "width") if name in options}
    return gan, train_encoder(gan, pixels, state, epochs=math.ceil(ENCODER_SHARE * epochs), progress=progress, **sizes)


def calibrate_detector(gan, encoder, held_out, *, false_positive_rate=FALSE_POSITIVE_RATE, progress=silent, **options):
    """A detector of the networks, calibrated on held-out pixels. `**options` as for `AnoGAN.from_gan`."""
    detector = AnoGAN.from_gan(gan, encoder, **options)
    with progress("Calibrating", -(-len(held_out) // SCORING_BATCH)) as advance:
        detector.calibrate(held_out, false_positive_rate, callbacks=[Advance(advance)], verbose=0)
    return detector


def train_files(
    paths, model, image_shape, *, seed=0, false_positive_rate=FALSE_POSITIVE_RATE, training, searching, progress=silent
):
    """Train and calibrate a detector on files of normal images; write `MODEL.keras`, and its training state to `MODEL.train/`.

    Args:
        paths: as for `iterate_pictures`.
        model: the `.keras` file to write.
        image_shape: `(H, W, C)` of the networks.
        seed: of the split, the weights, the latent vectors and the search.
        false_positive_rate: as for `AnoGAN.calibrate`.
        training: dict, options of `train_networks`.
        searching: dict, options of `AnoGAN.from_gan`.
        progress: see `silent`.

    Returns:
        `(detector, skipped)`: the calibrated `AnoGAN`, and the `Picture`s that couldn't be read.
    """
    image_shape = check_image_shape(image_shape)
    with progress("Reading", data.count_pictures(paths)) as advance:
        images = data.load_images(paths, Preparation(image_shape).read, advance)
    split = split_normals(len(images.pixels), seed)
    check_count(len(split.held_out), false_positive_rate)
    options = {"false_positive_rate": false_positive_rate, "seed": seed, **searching}
    with replacing_folder(training_state(model)) as state:
        trained = train_networks(images.pixels[split.trained], state, image_shape, seed=seed, progress=progress, **training)
        (state / "held_out.txt").write_text("".join(f"{images.names[row]}\n" for row in split.held_out))
        detector = calibrate_detector(*trained, images.pixels[split.held_out], progress=progress, **options)
        detector.save(model)
    return detector, images.skipped


def training_state(model):
    """The folder beside `MODEL.keras` that keeps its training state: `MODEL.train`."""
    return Path(model).with_suffix(".train")


class Scored(NamedTuple):
    """What came of scoring: how many images were scored, called anomalous, still improving at the last step; those skipped."""

    scored: int
    anomalous: int
    unfinished: int
    skipped: list


def score_files(detector, paths, out, progress=silent):
    """Score files into a folder.

    Writes `scores.csv`, an overlay for each image below `heatmaps/`, `contact_sheet.png` of the most anomalous ones and,
    if any couldn't be read, `skipped.csv`.

    Rows are written as they come: an interrupt loses none but those of the batch being scored.

    Args:
        detector: a calibrated `AnoGAN`.
        paths: as for `iterate_pictures`.
        out: the folder.
        progress: see `silent`.

    Returns:
        `Scored`.
    """
    out, total = Path(out), data.count_pictures(paths)  # an error in the paths comes before anything is removed
    _remove(out, "skipped.csv")
    _remove(out / "heatmaps", "[0-9]*-*.png")
    (out / "heatmaps").mkdir(parents=True, exist_ok=True)
    skipped, scored, anomalous, unfinished, top = [], 0, 0, 0, []
    with open(out / "scores.csv", "w", newline="") as file, progress("Scoring", total) as advance:
        writer = csv.writer(file)
        writer.writerow(("file", *SCORE_COLUMNS, "steps", "converged", "heatmap"))
        for batch in _prepared_batches(detector, paths, skipped, advance):
            results = detector.predict(np.stack([pixels for *_, pixels in batch]), verbose=0)
            heats = detector.heatmap(results["residual"])
            overlays = _write_overlays(batch, heats, scored, out)
            for row, ((name, *_), overlay) in enumerate(zip(batch, overlays)):
                search = (results["steps"][row], bool(results["converged"][row]))
                writer.writerow((name, *score_columns(results, row), *search, overlay))
                advance()
            file.flush()
            scored += len(batch)
            anomalous += int(results["is_anomaly"].sum())
            unfinished += int((~results["converged"]).sum())
            top = _most_anomalous(top, batch, results, heats)
    if top:
        plots.save_figure(plots.contact_sheet(*zip(*(shown for _, shown in top))), out / "contact_sheet.png")
    if skipped:
        with replacing(out / "skipped.csv") as path, open(path, "w", newline="") as file:
            csv.writer(file).writerows([("file", "reason"), *((picture.name, picture.reason) for picture in skipped)])
    return Scored(scored, anomalous, unfinished, skipped)


def _prepared_batches(detector, paths, skipped, advance):
    """Yield lists of `(name, picture for display, network pixels)`; adds what can't be read to `skipped`."""
    batch = []
    for picture in data.iterate_pictures(paths):
        picture, pixels = data.prepare_picture(picture, detector.preparation.read)
        if pixels is None:
            skipped.append(picture)
            advance()
            continue
        batch.append((picture.name, _for_display(picture.pixels), pixels))
        if len(batch) == FILES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def score_columns(results, row):
    """One row of `AnoGAN.predict` as text, in the order of `SCORE_COLUMNS`."""
    label = "anomaly" if results["is_anomaly"][row] else "normal"
    return (*(f"{results[column][row]:.6g}" for column in SCORE_COLUMNS[:-1]), label)


def _write_overlays(batch, heats, first, out):
    """Write the heatmap over each picture of a batch; returns the paths below `out`."""
    paths = []
    for row, ((name, display, _), heat) in enumerate(zip(batch, heats)):
        # Cut, because a file's name has at most 255 bytes.
        paths.append(Path("heatmaps") / f"{first + row:06d}-{Path(name).stem[:60]}.png")
        with replacing(out / paths[-1]) as path:
            Image.fromarray(maps.overlay(display, heat)).save(path)
    return paths


def _most_anomalous(top, batch, results, heats):
    """The images of `top` and of the batch with the highest scores, as `(score, what the contact sheet shows of it)`."""
    for row, (name, _, pixels) in enumerate(batch):
        score = results["score"][row]
        title = f"{Path(name).name[-24:]}  {score:.0f}  p={results['p_value'][row]:.3f}"
        top = [*top, (score, (pixels, results["reconstruction"][row], heats[row], title))]
    return sorted(top, key=lambda entry: -entry[0])[:SHOWN]


def _remove(folder, pattern):
    """Remove what an earlier run left, so that it isn't taken for this one's."""
    for file in folder.glob(pattern):
        file.unlink()


def _for_display(pixels):
    """A picture as uint8, no larger than an overlay."""
    scale = {"uint8": 1.0, "uint16": 1.0 / 257.0}.get(pixels.dtype.name, 255.0)
    levels = np.uint8(np.round(pixels * scale))
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    image.thumbnail((DISPLAY_SIDE, DISPLAY_SIDE))
    display = np.asarray(image)
    return display if display.ndim == 3 else display[..., np.newaxis]

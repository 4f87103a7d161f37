"""What the commands do, end to end: train a calibrated detector on normal images, score files into a folder."""

import contextlib
import csv
import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anogan_tf import plots
from anogan_tf.backend import keras
from anogan_tf.calibration import FALSE_POSITIVE_RATE, check_count
from anogan_tf.callbacks import Advance, Checkpoint, SampleGrid
from anogan_tf.data import sources
from anogan_tf.data.layouts import check_labels
from anogan_tf.detector import BATCH_SIZE as SCORING_BATCH
from anogan_tf.detector import AnoGAN
from anogan_tf.encoder import EncoderTrainer
from anogan_tf.fitting import BATCH_SIZE
from anogan_tf.gan import GAN
from anogan_tf.maps import overlay, smooth
from anogan_tf.memory import Memory
from anogan_tf.networks import check_image_shape
from anogan_tf.preparation import Preparation, to_network, to_pixels
from anogan_tf.records import has_record, write_record
from anogan_tf.saving import partial_folder, replacing, replacing_folder
from anogan_tf.tiling import fill_up, grouped, images_of, random_tiles

EPOCHS, LEAST_STEPS = 50, 3000  # more epochs where images are so few that 50 are fewer steps: after hundreds a GAN draws haze
ENCODER_SHARE = 0.6  # passes of the encoder's training for each of the GAN's
ENCODER_BATCH, ENCODER_RATE = 32, 1e-3  # the learning rate falls to 0 along half a cosine
HELD_OUT_SHARE, LEAST_HELD_OUT, MOST_HELD_OUT, LEAST_TRAINED = 0.1, 50, 1000, 50
HELD_OUT, TRAINED = "held_out.txt", "trained.txt"  # names of images, in the training state
TILES, TILE_EPOCHS = 10_000, 20  # cut at random places to train on, in all, and passes over them
SECONDS_BETWEEN_SAVES = 30.0  # of what is being trained
FILES_AT_ONCE = 64  # rows are written and the progress bar moves so often; fewer would leave rows of a block without work
SHOWN = 12  # images on the contact sheet
DISPLAY_SIDE = 512  # pixels; overlays are no larger
SCORE_COLUMNS = ("score", "residual_score", "discrimination_score", "p_value", "label")


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
    samples = SampleGrid(state / "samples", every=max(1, epochs // 10))
    _train(gan, pixels, state / "gan.keras", state / "log.csv", epochs, batch_size, "Training", progress, samples)
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


def _train(model, pixels, file, log, epochs, batch_size, title, progress, *callbacks):
    """Train a model until it has made so many passes, from where it stands, with a log and checkpoints."""
    steps, seen = max(1, len(pixels) // batch_size), int(model.batches_seen.numpy())
    cut_log(log, seen // steps)
    with progress(title, epochs * steps) as advance:
        advance(seen)
        logger, checkpoint = keras.callbacks.CSVLogger(log, append=True), Checkpoint(file, SECONDS_BETWEEN_SAVES)
        callbacks = [logger, *callbacks, Advance(advance), checkpoint]
        model.fit_on(pixels, batch_size, epochs=epochs, callbacks=callbacks, verbose=0)


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


def rows_to_score(source, split="test"):
    """Rows of a source on one side of its splits, or of no split; for "all" all.

    Raises:
        ValueError: if there are none; or if images have labels and it isn't known which is normal, so not what was trained on.
    """
    if split != "all" and not any(entry.split for entry in source.entries):
        check_labels(source.entries)
    rows = [row for row, entry in enumerate(source.entries) if split == "all" or entry.split in ("", split)]
    if not rows:
        sides = sorted({entry.split for entry in source.entries})
        raise ValueError(f"No image is on the side {split!r} of the split; there are {', '.join(sides)}, and all (--split).")
    return rows


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
        progress: see `silent`.

    Returns:
        `(detector, skipped)`: the calibrated `AnoGAN`, and the `Picture`s that couldn't be read.
    """
    if searching.get("mode", "search") != "search" and not training.get("encoder", True):
        raise ValueError(f"mode {searching['mode']!r} needs an encoder, and none is to be trained.")
    idle = {
        "--self-supervision": training.get("self_supervision"),
        "--memory": memory,
        "--typicality": searching.get("typicality"),
    }
    for option, given in idle.items():
        if given and searching.get("score", "loss") != "complexity":
            raise ValueError(f"{option} counts only in the score 'complexity': train with --score complexity, or without it.")
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
    resume = resume and has_record(partial_folder(training_state(model)), record)
    with replacing_folder(training_state(model), keep=resume) as state:
        write_record(state, {**record, "command": command or {}})
        for note, rows in ((HELD_OUT, split.held_out), (TRAINED, split.trained)):
            (state / note).write_text("".join(f"{whole_name(source.entries[row])}\n" for row in rows), encoding="utf-8")
        training = {"preparation": Preparation(image_shape, augment=preparation.augment), "seed": seed, **training}
        pixels = pool.pixels.subset(np.isin(pool.rows, split.trained))
        networks = train_networks(pixels, state, image_shape, progress=progress, **training)
        remembered = remember(pixels, memory, seed) if memory else None
        detector = AnoGAN.from_gan(*networks, memory=remembered, **searching)
        calibrate_on(detector, source, split.held_out, false_positive_rate, progress)
        detector.save(model)
    return detector, pool.skipped


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


class Scored(NamedTuple):
    """What came of scoring: how many images were scored, called anomalous, still improving at the last step; those skipped."""

    scored: int
    anomalous: int
    unfinished: int
    skipped: list


def score_files(detector, source, out, *, rows=None, heatmaps=True, maps=False, strict=False, progress=silent):
    """Score images into a folder.

    Writes `scores.csv`, an overlay for each image below `heatmaps/`, `contact_sheet.png` of the most anomalous ones and,
    if any couldn't be read, `skipped.csv`.

    Rows are written as they come: an interrupt loses none but those of the batch being scored.

    Args:
        detector: a calibrated `AnoGAN`.
        source: a `FileSource` or `TfdsSource`.
        out: the folder.
        rows: of the source; by default all.
        heatmaps: whether overlays are written.
        maps: whether smoothed residuals are written below `maps/`, as TIFF of floats at the size of the prepared image.
        strict: whether an image that can't be read ends the run.
        progress: see `silent`.

    Returns:
        `Scored`.
    """
    out, rows = Path(out), range(len(source.entries)) if rows is None else rows
    _make_room(out, {"heatmaps": heatmaps, "maps": maps})
    skipped, scored, anomalous, unfinished, top = [], 0, 0, 0, []
    with open(out / "scores.csv", "w", newline="", encoding="utf-8") as file, progress("Scoring", len(rows)) as advance:
        writer = csv.writer(file)
        writer.writerow(("file", "truth", *SCORE_COLUMNS, "steps", "converged", "heatmap"))
        side = DISPLAY_SIDE if heatmaps else 0
        for batch, results, residuals in score_batches(detector, source, rows, skipped, side, strict, advance):
            heats = detector.heatmap(residuals) if heatmaps else None
            written = _write_overlays(detector, batch, heats, scored, out) if heatmaps else [""] * len(batch)
            if maps:
                _write_maps(batch, residuals, scored, out)
            for row, (sample, overlay) in enumerate(zip(batch, written)):
                search = (results["steps"][row], bool(results["converged"][row]))
                writer.writerow((sample.entry.name, sample.entry.label, *score_columns(results, row), *search, overlay))
                advance()
            file.flush()
            scored += len(batch)
            anomalous += int(results["is_anomaly"].sum())
            unfinished += int((~results["converged"]).sum())
            top = _most_anomalous(detector, top, batch, results, residuals)
    if top:
        plots.save_figure(plots.contact_sheet(*zip(*(shown for _, shown in top))), out / "contact_sheet.png")
    if skipped:
        with replacing(out / "skipped.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "reason"), *((picture.name, picture.reason) for picture in skipped)])
    return Scored(scored, anomalous, unfinished, skipped)


def _make_room(out, folders):
    """Remove what an earlier run left, so that it isn't taken for this one's, and make the folders that are wanted."""
    for name in ("skipped.csv", "contact_sheet.png"):
        (out / name).unlink(missing_ok=True)
    for name, wanted in folders.items():
        for file in (out / name).glob("[0-9]" * 6 + "-*"):
            file.unlink()
        if wanted:
            (out / name).mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def score_batches(detector, source, rows, skipped, display_side=0, strict=False, advance=lambda: None):
    """Score images of a source, some at a time.

    Args:
        detector, source, rows, strict: as for `score_files`.
        skipped: a list, to which the `Picture`s that can't be read are added.
        display_side: as for `image_dataset`.
        advance: called for each image that can't be read.

    Yields:
        `(samples, results, residuals)`: a list of `Sample`; what `predict_prepared` gives, with images of their own sizes; the
        residuals `[h, w, C]` as a list.
    """
    samples = sources.read_samples(source, detector.preparation, rows, display_side, strict)
    for batch in grouped(sources.readable(samples, skipped, advance), FILES_AT_ONCE, lambda sample: sample.image):
        images, sizes = fill_up([sample.image for sample in batch])
        results = detector.predict_prepared(images, sizes)
        results["reconstruction"] = images_of(results["reconstruction"], sizes)
        yield batch, results, images_of(results["residual"], sizes)


def score_columns(results, row):
    """One row of `AnoGAN.predict` as text, in the order of `SCORE_COLUMNS`."""
    label = "anomaly" if results["is_anomaly"][row] else "normal"
    return (*(f"{results[column][row]:.6g}" for column in SCORE_COLUMNS[:-1]), label)


def _write_overlays(detector, batch, heats, first, out):
    """Write the heatmap over each picture of a batch; returns the paths below `out`."""
    paths = []
    for row, (sample, heat) in enumerate(zip(batch, heats)):
        paths.append(Path("heatmaps") / _file_name(first + row, sample, ".png"))
        heat = detector.preparation.restore(heat[np.newaxis], sample.display.shape[:2])[0]
        with replacing(out / paths[-1]) as path:
            Image.fromarray(overlay(sample.display, heat)).save(path)
    return paths


def _write_maps(batch, residuals, first, out):
    for row, (sample, residual) in enumerate(zip(batch, residuals)):
        with replacing(out / "maps" / _file_name(first + row, sample, ".tiff")) as path:
            Image.fromarray(np.asarray(smooth(residual[np.newaxis]))[0]).save(path)


def _file_name(number, sample, suffix):
    # Cut, because a file's name has at most 255 bytes.
    entry = sample.entry
    stem = Path(entry.path).stem if entry.row is None else f"{entry.key or Path(entry.path).stem}-{entry.row}"
    stem = "-".join(part for part in (entry.label, stem) if part).replace("/", "-")
    return f"{number:06d}-{stem.encode('utf-8', 'backslashreplace')[:100].decode('utf-8', 'ignore')}{suffix}"


def _most_anomalous(detector, top, batch, results, residuals):
    """Of `top` and the batch the highest scores, each with what the contact sheet shows of it, no larger than an overlay."""
    scores = [*((score, shown) for score, shown in top), *((score, row) for row, score in enumerate(results["score"]))]
    highest = sorted(scores, key=lambda entry: -entry[0])[:SHOWN]

    def show(row):
        sample, step = batch[row], -(-max(residuals[row].shape) // DISPLAY_SIDE)
        heat = detector.heatmap([residuals[row]])[0]
        pictures = (to_pixels(sample.image), results["reconstruction"][row], heat)
        title = (
            f"{sample.entry.label} {Path(sample.entry.name).name[-24:]}".strip()
            + f"  {results['score'][row]:.4g}  p={results['p_value'][row]:.3f}"
        )
        # Copies: a part of a batch would keep all of it.
        return (*(picture[::step, ::step].copy() for picture in pictures), title)

    return [(score, shown if isinstance(shown, tuple) else show(shown)) for score, shown in highest]

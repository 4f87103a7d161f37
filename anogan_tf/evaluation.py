"""How good a detector is on labelled images: scores, maps, what the score is compared with, and what to look at."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from anogan_tf import comparisons
from anogan_tf.data import sources
from anogan_tf.data.sources import for_display
from anogan_tf.maps import overlay, smooth
from anogan_tf.metrics import PixelMetrics
from anogan_tf.preparation import Preparation, to_pixels
from anogan_tf.synthetic import SyntheticSource
from anogan_tf.tiling import fill_up, grouped
from anogan_tf.workflows import HELD_OUT, SCORE_COLUMNS, normal_rows, rows_to_score, score_batches, silent, training_state

PROBE_SIDE = 32  # pixels: the cheap probes see images no larger
PROBE_TRAINED = 5000  # training images that the probes are fitted to, at most
EMBEDDED = 500  # normals, and as many anomalies, whose features are embedded
TRACED_PIXELS = 32 * 64 * 64  # of the normals, and of the anomalies, whose loss is followed over the steps
TRACED = 32  # of them at most
TRACE_POINTS = 6
SHOWN = 6  # images of each kind: hits, misses, false alarms
SHOWN_SIDE = 256  # pixels


class Evaluation(NamedTuple):
    """What came of scoring labelled images.

    Attributes:
        rows: `[N]`, the source's row of each image that was scored.
        entries: `[N]`, its `Entry`.
        labels: `[N]`, 0 normal, 1 anomalous.
        results: `{name: [N]}`: the scores of `AnoGAN.predict`, p_value, is_anomaly, steps, converged.
        comparisons: `{method: [N]}`, other scores of the same images.
        pixels: `{label of the images: PixelMetrics}`, of the images whose mask is known, normals among them.
        embedding: `([M, 2], [M])`, t-SNE of discriminator features and the labels, or None.
        loss_curve: `(steps, {"normal": medians, "anomaly": medians})`, or None where nothing is searched.
        skipped: the `Picture`s that couldn't be read.
        synthetic: whether the anomalies were drawn.
    """

    rows: list
    entries: list
    labels: np.ndarray
    results: dict
    comparisons: dict
    pixels: dict
    embedding: tuple | None
    loss_curve: tuple | None
    skipped: list
    synthetic: bool

    @property
    def kinds(self):
        """`[N]`, the label of each image: that of the normal ones, or of the defect."""
        return np.array([kind_of(entry) for entry in self.entries])

    @property
    def all_pixels(self):
        """`PixelMetrics` of all images with a known mask, or None where no anomaly has one."""
        total = sum(self.pixels.values(), PixelMetrics())
        return total if total.complete else None


def synthetic_rows(source, model):
    """Rows of normal images to draw defects on: those held out when the model was trained, or of the source's test side.

    Args:
        source: a `FileSource` or `TfdsSource`.
        model: the model's file; `anogan train` writes the names of what it held out beside it.

    Returns:
        Rows, ascending.
    """
    if any(entry.split for entry in source.entries):
        return [row for row in rows_to_score(source) if source.entries[row].normal is not False]
    normals, note = normal_rows(source), training_state(model) / HELD_OUT
    held_out = set(note.read_text(encoding="utf-8").splitlines()) if note.exists() else set()
    return [row for row in normals if source.entries[row].name in held_out] or normals


def evaluate(detector, source, rows=None, *, probed=None, seed=0, strict=False, progress=silent):
    """Score labelled images and measure.

    Args:
        detector: a calibrated `AnoGAN`.
        source: a `FileSource`, `TfdsSource` or `SyntheticSource` with labels.
        rows: of the source, ascending; by default its test side.
        probed: a source whose images of the side "train" the cheap probes are fitted to; by default the same.
        seed: of samples.
        strict: whether an image that can't be read is an error.
        progress: see `workflows.silent`.

    Returns:
        `Evaluation`.

    Raises:
        ValueError: if there are not both normal images and anomalies, or a mask has another size than its image.
    """
    rows = rows_to_score(source) if rows is None else rows
    rows = [row for row in rows if source.entries[row].normal is not None]
    check_both_kinds([source.entries[row].normal for row in rows])
    seen = _Seen(detector)
    with progress("Scoring", len(rows)) as advance:
        masks = zip(rows, source.masks(rows))
        for batch, results, residuals in score_batches(detector, source, rows, seen.skipped, 0, strict, advance):
            seen.add(batch, results, residuals, masks_of(batch, masks))
            advance(len(batch))
    labels = np.array([int(not entry.normal) for entry in seen.entries])
    check_both_kinds(labels == 0)
    results = {name: np.concatenate(parts) for name, parts in seen.results.items()}
    return Evaluation(
        seen.rows,
        seen.entries,
        labels,
        results,
        _compare(detector, probed or source, seen, results, seed),
        seen.pixels,
        _embed(seen.features, seed),
        _follow_loss(detector, seen.traced, progress),
        seen.skipped,
        isinstance(source, SyntheticSource),
    )


def masks_of(batch, masks):
    """The masks of a batch of samples, from an iterator of `(row, mask)` in the same order; images may be missing."""
    return [next(mask for row, mask in masks if row == sample.row) for sample in batch]


def check_both_kinds(normal):
    """Raise a ValueError unless there are both normal images and anomalies."""
    normal = np.asarray(normal, bool)
    if normal.all() or not normal.any():
        raise ValueError(
            f"There are {int(normal.sum())} normal images and {int((~normal).sum())} anomalies to evaluate; both are needed. "
            "Name data with labels (folders `good` and others, or a table), or draw defects on normal images with --synthetic."
        )


class _Seen:
    """What is kept of each image while they pass by, in bounded memory but for a few numbers and small pictures."""

    def __init__(self, detector):
        self._detector = detector
        self._judge = None if detector.tiling else comparisons.judge(detector)
        self.rows, self.entries, self.skipped, self.pixels, self.results = [], [], [], {}, {}
        self.small, self.discriminator = [], []  # for the probes; P_D
        self.features = {True: [], False: []}  # by whether they are normal
        self.traced = {True: [], False: []}

    def add(self, batch, results, residuals, masks):
        self.rows += [sample.row for sample in batch]
        self.entries += [sample.entry for sample in batch]
        for name in (*SCORE_COLUMNS[:-1], "is_anomaly", "steps", "converged"):
            self.results.setdefault(name, []).append(results[name])
        for sample, residual, mask in zip(batch, residuals, masks):
            count_pixels(self.pixels, self._detector.preparation, sample, residual, mask)
            traced = self.traced[sample.entry.normal]
            if len(traced) < min(TRACED, max(2, TRACED_PIXELS // sample.image[..., 0].size)):
                traced.append(sample.image)
        if self._judge is not None:
            self._look(batch)

    def _look(self, batch):
        images = np.stack([sample.image for sample in batch])
        scores, features = self._judge(images)
        self.discriminator.append(scores)
        self.small.append(_small(to_pixels(images)))
        for sample, feature in zip(batch, features):
            kept = self.features[sample.entry.normal]
            if len(kept) < EMBEDDED:
                kept.append(feature)


def count_pixels(pixels, preparation, sample, residual, mask):
    """Add the pixels of an image to those of its kind.

    Args:
        pixels: `{kind: PixelMetrics}`.
        preparation: that made the image.
        sample: its `Sample`.
        residual: `[H, W, C]`, compared smoothed and at the size of the stored image.
        mask: `[h, w]` bool, or None: then all of a normal image's pixels are normal, and those of an anomaly aren't counted.

    Raises:
        ValueError: if the mask has another size than the image, naming both.
    """
    entry = sample.entry
    if mask is None and not entry.normal:
        return
    if mask is not None and mask.shape != sample.size:
        theirs, ours = (f"{height}x{width}" for height, width in (mask.shape, sample.size))
        raise ValueError(f"{entry.mask or 'The mask'} has {theirs} pixels, its image {entry.name} {ours}; they must agree.")
    restored = preparation.restore(smooth(residual[np.newaxis]), sample.size)
    pixels.setdefault(kind_of(entry), PixelMetrics()).add(np.asarray(restored)[0], mask)


def kind_of(entry):
    """What an evaluated image is called: by its label."""
    return entry.label or ("normal" if entry.normal else "anomaly")


def _small(pixels):
    """Pixels `[N, H, W, C]` in [0, 1], shrunk where they are larger than the probes look at."""
    if max(pixels.shape[1:3]) <= PROBE_SIDE:
        return pixels
    return np.clip(tf.image.resize(pixels, (PROBE_SIDE, PROBE_SIDE), antialias=True), 0.0, 1.0)


def _compare(detector, source, seen, results, seed):
    """Other scores of the same images: A's two terms, P_D and, where the set has images to train on, the probes."""
    scores = {"R": results["residual_score"], "D": results["discrimination_score"]}
    if detector.tiling:
        return scores
    scores["P_D"] = np.concatenate(seen.discriminator)
    rows = [row for row in normal_rows(source) if source.entries[row].split == "train"]
    if not rows:
        return scores
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:PROBE_TRAINED])
    samples = sources.readable(sources.read_samples(source, detector.preparation, rows), [], lambda: None)
    trained = np.concatenate([_small(to_pixels(sample.image[np.newaxis])) for sample in samples])
    queries = np.concatenate(seen.small)
    as_they_are = Preparation(queries.shape[1:])
    return scores | {name: probe(trained, queries, as_they_are) for name, probe in comparisons.PROBES.items()}


def _embed(features, seed):
    """`(points [M, 2], labels [M])`, or None where there are too few."""
    if min(map(len, features.values())) < 2:
        return None
    labels = np.repeat([0, 1], [len(features[True]), len(features[False])])
    return comparisons.embed_features(np.stack(features[True] + features[False]), seed=seed), labels


def _follow_loss(detector, images, progress):
    """`(steps, {"normal": medians, "anomaly": medians})` of the score when the search ends after so many steps."""
    most = detector.settings.steps
    if not most:
        return None
    steps = sorted({round(step) for step in np.geomspace(1, most + 1, TRACE_POINTS) - 1})
    curves = {"normal": [], "anomaly": []}
    with progress("Loss", len(steps)) as advance:
        for count in steps:
            follower = detector.with_settings(steps=count, tolerance=0.0)
            for kind, normal in (("normal", True), ("anomaly", False)):
                batches = map(fill_up, grouped(images[normal], TRACED))
                scores = [follower.predict_prepared(*batch)["score"] for batch in batches]
                curves[kind].append(float(np.median(np.concatenate(scores))))
            advance()
    return steps, curves


class Shown(NamedTuple):
    """An image to look at, each picture `[h, w, 3]` uint8, at the image's own size or smaller.

    Attributes:
        row: of the `Evaluation`.
        query, reconstruction, residual, overlay: the image, G(z), |x - G(z)| (white where a heatmap is at its hottest), and the
            heatmap over the image.
        mask: where the anomaly is, or None.
    """

    row: int
    query: np.ndarray
    reconstruction: np.ndarray
    residual: np.ndarray
    overlay: np.ndarray
    mask: np.ndarray | None


def choose_shown(evaluation, count=SHOWN):
    """Rows of the `Evaluation` worth looking at: the surest hits, the worst misses and the worst false alarms, as a dict."""
    scores, labels = evaluation.results["score"], evaluation.labels
    flagged = evaluation.results["is_anomaly"]
    order = np.argsort(-scores, kind="stable")
    return {
        "hits": [row for row in order if labels[row] and flagged[row]][:count],
        "misses": [row for row in order[::-1] if labels[row] and not flagged[row]][:count],
        "false alarms": [row for row in order if not labels[row] and flagged[row]][:count],
    }


def show(detector, source, evaluation, rows):
    """Score some images of an `Evaluation` again, for their pictures.

    Args:
        detector: the `AnoGAN`.
        source: what was evaluated, a source with the evaluation's rows.
        evaluation: the `Evaluation`.
        rows: of it.

    Returns:
        `{row: Shown}`.
    """
    by_source = {evaluation.rows[row]: row for row in rows}
    wanted = sorted(by_source)
    masks, shown = zip(wanted, source.masks(wanted)), {}
    for batch, results, residuals in score_batches(detector, source, wanted, [], SHOWN_SIDE):
        for number, (sample, mask) in enumerate(zip(batch, masks_of(batch, masks))):
            row = by_source[sample.row]
            shown[row] = _draw(detector, sample, results["reconstruction"][number], residuals[number], mask, row)
    return shown


def _draw(detector, sample, reconstruction, residual, mask, row):
    shape = sample.display.shape[:2]

    def restored(maps):
        """Channels `[h, w, C]` in [0, 1] as the stored image has them, `[h, w, 3]` uint8."""
        channels = np.asarray(detector.preparation.restore(np.moveaxis(maps, -1, 0), shape))
        return _as_rgb(np.moveaxis(channels, 0, -1))

    heat = np.asarray(detector.preparation.restore(np.asarray(detector.heatmap([residual])), shape))[0]
    scaled = np.clip(residual / max(detector.calibration.heat_high, 1e-6), 0.0, 1.0).mean(axis=-1, keepdims=True)
    drawn = None if mask is None else _as_rgb(for_display(mask[..., np.newaxis].astype(np.float32), SHOWN_SIDE) / 255.0)
    query = _as_rgb(sample.display / 255.0)
    return Shown(row, query, restored(reconstruction), restored(scaled), overlay(sample.display, heat), drawn)


def _as_rgb(values):
    levels = np.uint8(np.round(np.clip(values, 0.0, 1.0) * 255.0))
    return np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels

"""How good a detector is on labelled images: scores, maps, what the score is compared with, and what to look at."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from anogan_tf.data import sources
from anogan_tf.data.batching import batch_by_pixels, pad_and_stack
from anogan_tf.data.entries import DecodedImage, absolute_name
from anogan_tf.data.preprocessing import Preprocessing, to_pixels
from anogan_tf.data.sources import for_display, normal_rows, rows_to_score
from anogan_tf.data.synthetic import SyntheticSource
from anogan_tf.detection.detector import OF_IMAGE_SIZE, AnoGAN
from anogan_tf.detection.maps import as_rgb, overlay
from anogan_tf.detection.stream import SCORE_COLUMNS, score_batches
from anogan_tf.detection.trajectory import SearchTrajectory
from anogan_tf.evaluation import baselines
from anogan_tf.evaluation.metrics import PixelMetrics
from anogan_tf.runtime.progress import Progress, no_progress
from anogan_tf.runtime.types import Source

BASELINE_SIDE = 32  # pixels: the cheap baselines see images no larger
BASELINE_TRAINED = 5000  # training images that the baselines are fitted to, at most
NUM_EMBEDDED = 500  # normals, and as many anomalies, whose features are embedded
TRACED_PIXELS = 32 * 64 * 64  # of the normals, and of the anomalies, whose loss is followed over the steps
TRACED = 32  # of them at most
TRACE_POINTS = 6
SHOWN_OF_EACH = 6  # images of each kind: hits, misses, false alarms
REPORT_SIDE = 256  # pixels


class Evaluation(NamedTuple):
    """What came of scoring labelled images.

    Attributes:
        rows: `[N]`, the source's row of each image that was scored.
        entries: `[N]`, its `ImageRef`.
        labels: `[N]`, 0 normal, 1 anomalous.
        results: by name, `[N]` each: the scores of `AnoGAN.predict`, p_value, is_anomaly, steps, converged.
        comparisons: by method, `[N]` each: other scores of the same images.
        pixels: by label of the images, their `PixelMetrics`, of those whose mask is known, normals among them.
        embedding: `([M, 2], [M])`, t-SNE of discriminator features and the labels, or None.
        loss_curve: steps, and the medians of normal images and of anomalies by name, or None where nothing is searched.
        skipped: a `DecodedImage` for each image that couldn't be read.
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


def synthetic_rows(source, trained=(), split="test"):
    """Rows of normal images to draw defects on: of one side of the source's splits, without those that the model was trained on.

    Args:
        source: a `FileSource` or `TfdsSource`.
        trained: names of what the model was trained on, as `absolute_name` gives them.
        split: the side; where it has no normal images, all sides.

    Returns:
        Rows, ascending.

    Raises:
        ValueError: if there are none that weren't trained on.
    """
    normals = [row for row, entry in enumerate(source.entries) if entry.normal is not False]
    fresh = [row for row in normals if absolute_name(source.entries[row]) not in trained]
    rows = [row for row in fresh if split == "all" or source.entries[row].split in ("", split)] or (fresh if trained else [])
    if not rows:
        raise ValueError(
            f"None of {len(normals)} normal images can have a defect drawn on it: they were trained on, or lie on another side "
            f"of the split than {split!r} (--split). Pass normal images that the model hasn't seen."
        )
    return rows


def evaluate(
    detector: AnoGAN,
    source: Source,
    rows: Sequence[int] | np.ndarray | None = None,
    *,
    baseline_source: Source | None = None,
    seed: int = 0,
    strict: bool = False,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score labelled images and measure.

    Args:
        detector: a calibrated `AnoGAN`.
        source: a `FileSource`, `TfdsSource`, `ArraySource` or `SyntheticSource` with labels.
        rows: of the source, ascending; by default its test side.
        baseline_source: a source whose images of the side "train" the cheap baselines are fitted to; by default the same,
            without `rows`.
        seed: of samples.
        strict: whether an image or a mask that can't be read is an error; else it is skipped and listed, an image whose mask
            can't be used still counts as an image.
        progress: see `runtime.progress`.

    Returns:
        `Evaluation`.

    Raises:
        ValueError: if the detector has no threshold, or there are not both normal images and anomalies.
    """
    if detector.calibration is None:
        raise ValueError("The detector has no threshold: call calibrate() before it is evaluated.")
    rows = rows_to_score(source) if rows is None else rows
    rows = [row for row in rows if source.entries[row].normal is not None]
    check_both_kinds([source.entries[row].normal for row in rows])
    trained = (
        [] if detector.tiling else _rows_for_baselines(baseline_source or source, rows if baseline_source is None else (), seed)
    )
    seen = _Seen(detector, _sample(source, rows, seed), bool(trained), strict)
    with progress("Scoring", len(rows)) as on_progress:
        masks = zip(rows, source.masks(rows))
        for batch, results in score_batches(detector, source, rows, seen.skipped, 0, strict, on_progress):
            seen.add(batch, results, masks_of(batch, masks))
            on_progress(len(batch))
    if not seen.rows:
        raise ValueError(sources.none_readable(seen.skipped))
    labels = np.array([int(not entry.normal) for entry in seen.entries])
    check_both_kinds(labels == 0, seen.skipped)
    results = {name: np.concatenate(parts) for name, parts in seen.results.items()}
    others = {"R": results["residual_score"], "D": results["discrimination_score"]}
    if detector.score_settings.score != "loss" and not detector.tiling:  # with tiles R and D are those of other tiles
        others = {"A": _loss_of(detector.search_settings, results), **others}
    if not detector.tiling:
        others["P_D"] = np.concatenate(seen.discriminator)
    if trained:
        others |= _score_baselines(detector, baseline_source or source, trained, np.concatenate(seen.small))
    return Evaluation(
        seen.rows,
        seen.entries,
        labels,
        results,
        others,
        seen.pixels,
        _embed(seen.features, seed),
        _follow_loss(detector, seen.traced, progress),
        seen.skipped,
        isinstance(source, SyntheticSource),
    )


def _loss_of(settings, results):
    """The loss of the search from its two terms."""
    shares = (1.0, settings.kappa) if settings.loss == "f-anogan" else (1.0 - settings.weight, settings.weight)
    return shares[0] * results["residual_score"] + shares[1] * results["discrimination_score"]


def _sample(source, rows, seed):
    """Rows in a random order, `{whether normal: rows}`: what is looked at more closely are not the first by name."""
    order = np.random.default_rng(seed).permutation(rows)
    return {normal: [row for row in order if bool(source.entries[row].normal) is normal] for normal in (True, False)}


def masks_of(batch, masks):
    """The masks of a batch of samples, from an iterator of `(row, mask)` in the same order; images may be missing."""
    return [next(mask for row, mask in masks if row == sample.row) for sample in batch]


def check_both_kinds(normal, skipped=()):
    """Raise a ValueError unless there are both normal images and anomalies among those that weren't skipped."""
    normal = np.asarray(normal, bool)
    if normal.all() or not normal.any():
        counts = f"There are {int(normal.sum())} normal images and {int((~normal).sum())} anomalies to evaluate; both are needed."
        reason = f" {len(skipped)} were skipped, the first, {skipped[0].name}: {skipped[0].reason}." if skipped else ""
        raise ValueError(
            f"{counts}{reason} Name data with labels (folders `good` and others, or a table), or draw defects on normal images "
            "with --synthetic."
        )


class _Seen:
    """What is kept of each image while they pass by, in bounded memory but for a few numbers and small pictures."""

    def __init__(self, detector, sample, with_baselines, strict):
        self._detector, self._with_baselines, self._strict = detector, with_baselines, strict
        self._outputs: Any = None if detector.tiling else baselines.discriminator_outputs(detector)
        self.rows, self.entries, self.skipped, self.pixels, self.results = [], [], [], {}, {}
        self.small, self.discriminator = [], []  # for the baselines; P_D
        self._embedded, self._followed = (
            {row for rows in sample.values() for row in rows[:count]} for count in (NUM_EMBEDDED, TRACED)
        )
        self.features: dict[bool, list] = {True: [], False: []}  # by whether they are normal
        self.traced: dict[bool, list] = {True: [], False: []}

    def add(self, batch, results, masks):
        self.rows += [sample.row for sample in batch]
        self.entries += [sample.entry for sample in batch]
        for name in (*SCORE_COLUMNS[:-1], "is_anomaly", "steps", "converged"):
            self.results.setdefault(name, []).append(results[name])
        for sample, anomaly_map, mask in zip(batch, results["anomaly_map"], masks):
            self._count(sample, anomaly_map, mask)
            traced, size = self.traced[sample.entry.normal], sample.image[..., 0].size
            if sample.row in self._followed and len(traced) < max(2, TRACED_PIXELS // size):
                traced.append(sample.image)
        if self._outputs is not None:
            self._look(batch)

    def _count(self, sample, anomaly_map, mask):
        try:
            if isinstance(mask, ValueError):
                raise mask
            if mask is not None and not mask.any() and not sample.entry.normal:
                name = sample.entry.mask_name
                raise ValueError(f"{name} is empty, and {sample.entry.name} shows an anomaly; white is where it is.")
            count_pixels(self.pixels, self._detector.preprocessing, sample, anomaly_map, mask)
        except ValueError as error:
            if self._strict:
                raise
            self.skipped.append(
                DecodedImage(sample.entry.mask_name if sample.entry.masks else sample.entry.name, None, str(error))
            )

    def _look(self, batch):
        images = np.stack([sample.image for sample in batch])
        scores, features = self._outputs(images)
        self.discriminator.append(scores)
        if self._with_baselines:
            self.small.append(_small(to_pixels(images)))
        for sample, feature in zip(batch, features):
            if sample.row in self._embedded:
                self.features[sample.entry.normal].append(feature)


def count_pixels(pixels, preprocessing, sample, anomaly_map, mask):
    """Add the pixels of an image to those of its kind.

    Args:
        pixels: `{kind: PixelMetrics}`.
        preprocessing: that made the image.
        sample: its `Sample`.
        anomaly_map: `[H, W]`, compared at the size of the stored image.
        mask: `[h, w]` bool, or None: then all of a normal image's pixels are normal, and those of an anomaly aren't counted.

    Raises:
        ValueError: if the mask has another size than the image, naming both.
    """
    entry = sample.entry
    if mask is None and not entry.normal:
        return
    if mask is not None and mask.shape != sample.size:
        theirs, ours = (f"{height}x{width}" for height, width in (mask.shape, sample.size))
        raise ValueError(f"{entry.mask_name} has {theirs} pixels, its image {entry.name} {ours}; they must agree.")
    restored = preprocessing.restore(anomaly_map[np.newaxis], sample.size)
    pixels.setdefault(kind_of(entry), PixelMetrics()).add(np.asarray(restored)[0], mask)


def kind_of(entry):
    """What an evaluated image is called: by its label."""
    return entry.label.encode("utf-8", "backslashreplace").decode() or ("normal" if entry.normal else "anomaly")


def _small(pixels):
    """Pixels `[N, H, W, C]` in [0, 1], shrunk where they are larger than the baselines look at."""
    if max(pixels.shape[1:3]) <= BASELINE_SIDE:
        return pixels
    return np.clip(tf.image.resize(pixels, (BASELINE_SIDE, BASELINE_SIDE), antialias=True), 0.0, 1.0)


def _rows_for_baselines(source, left_out, seed):
    """Rows of normal images of the side "train" to fit the baselines to."""
    left_out = set(left_out)
    rows = [row for row in normal_rows(source) if source.entries[row].split == "train" and row not in left_out]
    return np.sort(np.random.default_rng(seed).permutation(rows)[:BASELINE_TRAINED]).astype(int).tolist()


def _score_baselines(detector, source, rows, queries):
    """Scores of the cheap baselines, fitted to some rows of a source."""
    samples = sources.readable(sources.read_samples(source, detector.preprocessing, rows), [], lambda: None)
    trained = [_small(to_pixels(sample.image[np.newaxis])) for sample in samples]
    if len(trained) < 2:
        return {}
    groups = (np.concatenate(trained), queries, Preprocessing(queries.shape[1:]))
    scores = {name: baseline(*groups) for name, baseline in baselines.BASELINES.items()}
    if detector.score_settings.score == "complexity":
        scores |= {name: baselines.by_complexity(baseline, *groups) for name, baseline in baselines.BY_COMPLEXITY.items()}
    return scores


def _embed(features, seed):
    """`(points [M, 2], labels [M])`, or None where there is nothing to lay out in a plane."""
    labels = np.repeat([0, 1], [len(features[True]), len(features[False])])
    features = np.array(features[True] + features[False])
    if len(features) < 4 or (np.ptp(features, axis=0) > 0.0).sum() < 2:
        return None
    return baselines.embed_features(features, seed=seed), labels


def _follow_loss(detector, images, progress):
    """`(steps, {"normal": medians, "anomaly": medians})` of the loss when the search ends after so many steps.

    None where nothing is searched, or none of the images drawn for it could be read.
    """
    most = detector.search_settings.steps
    if not most or not all(images.values()):
        return None
    steps = sorted({round(step) for step in np.geomspace(1, most + 1, TRACE_POINTS) - 1})
    trajectory, curves = SearchTrajectory(detector, steps), {}
    with progress("Loss", sum(map(len, images.values()))) as on_progress:
        for kind, normal in (("normal", True), ("anomaly", False)):
            losses = []
            for batch in map(pad_and_stack, batch_by_pixels(images[normal], TRACED)):
                losses.append([out["loss"] for out in trajectory.follow(*batch)])
                on_progress(len(batch[0]))
            curves[kind] = [float(median) for median in np.median(np.concatenate(losses, axis=1), axis=1)]
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


def choose_shown(evaluation, count=SHOWN_OF_EACH):
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
        rows: numbers of its images.

    Returns:
        `{row: Shown}`.
    """
    by_source = {evaluation.rows[row]: row for row in rows}
    wanted = sorted(by_source)
    masks, shown = zip(wanted, source.masks(wanted)), {}
    for batch, results in score_batches(detector, source, wanted, [], REPORT_SIDE):
        for number, (sample, mask) in enumerate(zip(batch, masks_of(batch, masks))):
            row = by_source[sample.row]
            maps = {name: results[name][number] for name in OF_IMAGE_SIZE}
            shown[row] = _draw(detector, sample, mask, row, **maps)
    return shown


def _draw(detector, sample, mask, row, *, reconstruction, residual, anomaly_map):
    shape = sample.display.shape[:2]

    def restored(maps):
        """Channels `[h, w, C]` in [0, 1] as the stored image has them, `[h, w, 3]` uint8."""
        channels = np.asarray(detector.preprocessing.restore(np.moveaxis(maps, -1, 0), shape))
        return as_rgb(np.moveaxis(channels, 0, -1))

    heat = np.asarray(detector.preprocessing.restore(detector.heatmap(anomaly_map[np.newaxis]), shape))[0]
    calibration = detector.calibration
    most = calibration.heat_high if calibration.map_scale is None else float(residual.max())
    scaled = np.clip(residual / max(most, 1e-6), 0.0, 1.0).mean(axis=-1, keepdims=True)
    drawn = (
        None
        if mask is None or isinstance(mask, ValueError)
        else as_rgb(for_display(mask[..., np.newaxis].astype(np.float32), REPORT_SIDE) / 255.0)
    )
    query = as_rgb(sample.display / 255.0)
    return Shown(row, query, restored(reconstruction), restored(scaled), overlay(sample.display, heat), drawn)

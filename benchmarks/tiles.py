"""Detection on the magnetic tiles of Huang et al. 2020, by kind of defect: `python -m benchmarks tiles`.

Trained on good tiles, tested on whole images with masks: which pixels are of the defect, and which images have one.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from anogan_tf.data.layouts import divide, list_images
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.data.sources import FileSource, rows_to_score
from anogan_tf.detection.complexity import ALIKE
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.stream import score_batches
from anogan_tf.detection.tiling import Tiling
from anogan_tf.evaluation import baselines, metrics
from anogan_tf.evaluation.evaluate import count_pixels, kind_of, masks_of
from anogan_tf.evaluation.metrics import PixelMetrics
from anogan_tf.runtime.files import replacing
from anogan_tf.runtime.progress import no_progress
from anogan_tf.training.comparator import STEPS
from anogan_tf.workflows.options import TrainingOptions
from anogan_tf.workflows.parts import JOINT_EPOCHS, SCENE
from anogan_tf.workflows.score import draw_sheet
from anogan_tf.workflows.train import TILE_EPOCHS, TILES, calibrate_on, read_normals, train
from benchmarks.one_class import MISTAKES, TITLES, append_row, dated, read_rows, rows_of
from benchmarks.tables import markdown_table

NORMAL, EVERY = "good", "all"
KINDS = {"MT_Free": NORMAL, **{f"MT_{kind.capitalize()}": kind for kind in ("blowhole", "crack", "break", "uneven", "fray")}}
DEFECTS = tuple(kind for kind in KINDS.values() if kind != NORMAL)
# By method, what its detector is set to.
COMPARED = {"mode": "encoder", "score": "complexity"}
SETTINGS: dict[str, dict[str, Any]] = {
    "pca": {"mode": "encoder"},
    "pca_complexity": {"mode": "encoder", "score": "complexity"},
    "encoder": {"mode": "encoder", "score": "loss"},
    "refine": {"mode": "refine", "score": "loss"},
    "complexity": {**COMPARED, "anomaly_map": 0.0},
    "comparator": COMPARED,
    "comparator_refine": {**COMPARED, "mode": "refine"},
    "without_logits": {**COMPARED, "logits": 0.0},
    "without_patches": {**COMPARED, "patches": 0.0},
    "without_residual": {**COMPARED, "relative_residual": 0.0},
}
METHODS = tuple(SETTINGS)
DEFAULT_METHODS = METHODS[:6]
HALVES = {"all": "All test images", "development": "Development half", "final": "Final half"}
SIDE, TILING = 32, Tiling(stride=16, top=3)  # pixels of a patch, at half size
PREPROCESSING: dict[str, Any] = {"image_shape": (None, None, 1), "scale": 0.5, "normalize": True}
MEASURES = {"auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pro": "PRO"}


def development_groups():
    """Groups of the test's pictures that settings may be chosen on; nothing is chosen on the others, the final half."""
    return set((Path(__file__).parent / "tiles_development.txt").read_text().split())


def read_tiles(path):
    """The set as a `FileSource`, split by groups: `MT_*/Imgs/*.jpg`, masks beside them as PNG.

    Args:
        path: the folder. `groups.csv` in it says with the columns file and group which pictures show one tile under several
            lamps; at random they would lie on both sides of the split.
    """
    path = Path(path)
    table = path / "groups.csv"
    if not table.exists():
        raise FileNotFoundError(
            f"{table} is missing. A tile shows in several pictures; the columns file and group say which are of one tile."
        )
    entries = []
    for entry in sorted(list_images(table, "MT_Free"), key=lambda entry: entry.path):
        kind = KINDS.get(Path(entry.path).relative_to(path).parts[0])
        if kind is None or not entry.group:
            raise ValueError(f"{table}: {entry.path} has no group, or lies in none of the folders {', '.join(KINDS)}.")
        masks = () if kind == NORMAL else (str(Path(entry.path).with_suffix(".png")),)
        entries.append(entry._replace(label=kind, normal=kind == NORMAL, masks=masks, split=""))
    return FileSource(divide(entries))


def run_tiles(path, out, *, seeds=1, defects=None, methods=DEFAULT_METHODS, epochs=None, progress=no_progress):
    """Run methods, appending a row for each half and kind of defect to `OUT/tiles.jsonl`, and write the table `OUT/tiles.md`.

    Args:
        path: see `read_tiles`.
        out, seeds, progress: as for `run_benchmark`.
        defects: of `DEFECTS`; by default all.
        methods: of `METHODS`.
        epochs: of the GAN.

    Returns:
        All rows of the file, a list of dicts.
    """
    out, defects, epochs = Path(out), tuple(defects or DEFECTS), epochs or TILE_EPOCHS
    for names, known, what in ((defects, DEFECTS, "kind of defect"), (methods, METHODS, "method of this benchmark")):
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(f"{', '.join(unknown)}: no such {what}; there are {', '.join(known)}.")
    table = out / "tiles.jsonl"
    wanted = (*defects, EVERY) if set(defects) == set(DEFECTS) else defects  # all together is of all kinds
    done = [(row["seed"], row["method"], row["defect"], row["config"]) for row in read_rows(table)]
    plan = [
        (seed, method)
        for seed in range(seeds)
        for method in METHODS
        if method in methods and not all((seed, method, defect, _config(method, epochs)) in done for defect in wanted)
    ]
    source = read_tiles(path) if plan else None
    for seed, method in plan:
        detector = _detector(method, source, out, seed, epochs, progress)
        head = {"dataset": "tiles", "normal_class": NORMAL, "seed": seed, "method": method}
        for row in _measure(detector, source, defects, wanted, progress):
            append_row(table, {**head, **row, "config": _config(method, epochs), **dated()})
        write_table(out)
    return read_rows(table)


def _config(method, epochs):
    """What is written down of a run; with another it counts as not done."""
    preprocessing = {**PREPROCESSING, "image_shape": list(PREPROCESSING["image_shape"])}
    relative = {"alike": ALIKE} if SETTINGS[method].get("score") == "complexity" else {}
    if not method.startswith("pca"):
        relative |= {"joint": JOINT_EPOCHS, "scene": SCENE, "comparator_steps": STEPS}
    return {"epochs": epochs, "patch": SIDE, **dataclasses.asdict(TILING), **preprocessing, **SETTINGS[method], **relative}


def draw_mistakes(path, out, method, *, epochs=None, progress=no_progress):
    """Draw the worst mistakes of a method, seed 0: `OUT/tiles-METHOD-misses.png` and `OUT/tiles-METHOD-false-alarms.png`.

    Args:
        path, out, epochs, progress: as for `run_tiles`.
        method: of `METHODS`.

    Returns:
        The paths of both pictures.
    """
    if method not in METHODS:
        raise ValueError(f"{method}: no such method of this benchmark; there are {', '.join(METHODS)}.")
    source, paths = read_tiles(path), []
    detector = _detector(method, source, Path(out), 0, epochs or TILE_EPOCHS, progress)
    if detector.calibration is None:  # which the heatmaps' scale is of
        calibrate_on(detector, source, _read_normals(source, 0, progress)[1].held_out, progress=progress)
    rows, found = np.array(rows_to_score(source)), []
    with progress("Scoring", len(rows)) as on_progress:
        for batch, results in score_batches(detector, source, rows, [], strict=True):
            found.append(results["score"])
            on_progress(len(batch))
    scores, good = np.concatenate(found), np.array([source.entries[row].label == NORMAL for row in rows])
    for what, sign, kind in (("misses", 1, ~good), ("false-alarms", -1, good)):
        worst = rows[kind][np.argsort(sign * scores[kind], kind="stable")[:MISTAKES]]
        paths.append(Path(out) / f"tiles-{method}-{what}.png")
        draw_sheet(detector, source, worst, paths[-1], lambda sample, score, _: f"{sample.entry.label}: {score:.3g}", columns=2)
    return paths


def _detector(method, source, out, seed, epochs, progress):
    preprocessing, shape, settings = Preprocessing(**PREPROCESSING), (SIDE, SIDE, 1), SETTINGS[method]
    of_a_pca, relative = method.startswith("pca"), settings.get("score") == "complexity"
    if of_a_pca or relative:
        pool, split = _read_normals(source, seed, progress)
    if of_a_pca:
        tiles = pool.pixels.take(np.flatnonzero(np.isin(pool.rows, split.trained)))
        detector = baselines.pca_detector(tiles, shape, tiling=TILING, preprocessing=preprocessing)
    else:
        model = out / "models" / f"tiles-seed{seed}-epochs{epochs}.keras"
        if not model.exists():
            options = TrainingOptions(
                patch=SIDE,
                stride=TILING.stride,
                top=TILING.top,
                channels=1,
                scale=0.5,
                normalize=True,
                patches=TILES,
                epochs=epochs,
                seed=seed,
            )
            train(source, model, options, progress=progress)
        detector = AnoGAN.load(model)
    detector = detector.with_settings(**settings)
    return calibrate_on(detector, source, split.held_out, progress=progress) if relative else detector


def _read_normals(source, seed, progress):
    return read_normals(source, Preprocessing(**PREPROCESSING), (SIDE, SIDE, 1), TILES, seed=seed, progress=progress)


def _measure(detector, source, defects, wanted, progress):
    """Yield what the row of each half and kind of defect holds, and that of all together where it is wanted."""
    rows = [row for row in rows_to_score(source) if source.entries[row].label in (NORMAL, *defects)]
    halves = {half: _Half() for half in HALVES}
    development, started = development_groups(), time.perf_counter()
    masks = zip(rows, source.masks(rows))
    with progress("Scoring", len(rows)) as on_progress:
        for batch, results in score_batches(detector, source, rows, [], strict=True):
            for sample, score, anomaly_map, mask in zip(batch, results["score"], results["anomaly_map"], masks_of(batch, masks)):
                half = "development" if sample.entry.group in development else "final"
                halves[half].add(detector, sample, score, anomaly_map, mask)
            on_progress(len(batch))
    seconds = round(time.perf_counter() - started, 1)
    halves["all"] = halves["development"] + halves["final"]
    for defect in wanted:
        if defect not in (*halves["all"].labels, EVERY):
            raise ValueError(f"The set has no pictures of the kind {defect!r}.")
    for half, seen in halves.items():
        for defect in wanted:
            if measured := seen.measure(defect):
                yield {"half": half, "defect": defect, **measured, "seconds": seconds}


class _Half:
    """Scores and pixels of some of the test's pictures."""

    def __init__(self, scores=(), labels=(), pixels=()):
        self._scores, self.labels, self._pixels = list(scores), list(labels), dict(pixels)

    def __add__(self, other):
        kinds = {*self._pixels, *other._pixels}
        both = {kind: self._pixels.get(kind, PixelMetrics()) + other._pixels.get(kind, PixelMetrics()) for kind in kinds}
        return _Half(self._scores + other._scores, self.labels + other.labels, both)

    def add(self, detector, sample, score, anomaly_map, mask):
        # One defect's mask is empty as published: its pixels count as normal, as for others who use the set.
        count_pixels(self._pixels, detector.preprocessing, sample, anomaly_map, mask)
        self._scores.append(score)
        self.labels.append(kind_of(sample.entry))

    def measure(self, defect):
        """The numbers of one kind against all good tiles, or of all; None where there is nothing to tell apart."""
        kinds = np.array(self.labels)
        chosen = np.isin(kinds, (NORMAL, defect)) if defect != EVERY else np.ones(len(kinds), bool)
        defective = (kinds[chosen] != NORMAL).astype(int)
        if len(set(defective)) < 2:
            return None
        # The pixels of a kind are those of its own images; of all together those of good tiles too.
        counted = self._pixels[defect] if defect != EVERY else sum(self._pixels.values(), PixelMetrics())
        return {
            "auroc": round(metrics.auroc(defective, np.array(self._scores)[chosen]), 4),
            "pixel_auroc": round(counted.auroc(), 4),
            "pixel_auprc": round(counted.auprc(), 4),
            "pro": round(counted.pro(), 4),
            "n_normal": int((defective == 0).sum()),
            "n_anomalous": int((defective == 1).sum()),
        }


def write_table(out):
    """Write the Markdown tables of the rows in `OUT/tiles.jsonl` as `OUT/tiles.md`."""
    rows = read_rows(out / "tiles.jsonl")
    text = ["# Magnetic tiles, by kind of defect", _EXPLANATION]
    for half, title in HALVES.items():
        lines = _lines([row for row in rows if row.get("half", "all") == half])
        text += [f"## {title}", markdown_table(lines)] if lines else []
    with replacing(out / "tiles.md") as path:
        path.write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _lines(rows):
    lines = []
    for method in METHODS:
        found = rows_of(method, rows)
        seeds = len({row["seed"] for row in found})
        for measure, title in MEASURES.items() if found else ():
            last = {(row["defect"], row["seed"]): row[measure] for row in found}
            cells = {}
            for defect in (*DEFECTS, EVERY):
                values = [value for (kind, _), value in last.items() if kind == defect]
                cells[defect] = f"{100.0 * np.mean(values):.1f}" if values else None
            lines.append({"": TITLES[method], "measure": title, "seeds": seeds, **cells})
    return lines


_EXPLANATION = f"""x 100, written by `python -m benchmarks tiles`; each run is rows of `tiles.jsonl` with settings, versions and
date. Trained on patches of {SIDE}x{SIDE} pixels of good tiles at half size, tested on whole pictures; groups of pictures of one
tile lie on one side of the split. Image AUROC: against all good tiles of the test. Pixel AUROC and PRO (to 30% false positives):
in the pictures with that defect alone; for all together in the good ones too. The PCA reconstructs the same patches, and its
maps are stitched and smoothed alike. "by complexity": patches are scored relative to those of held-out pictures that are as busy
and lie at the same edges; the maps are the same."""

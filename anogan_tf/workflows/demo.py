"""The built-in set end to end: trains, calibrates, scores, and writes pictures, numbers and the model."""

import csv
import json
import time
from pathlib import Path

import numpy as np

from anogan_tf.data.embedded import EMBEDDED_CLASSES, load_embedded
from anogan_tf.data.sources import ArraySource
from anogan_tf.detection.detector import SCORING_BATCH
from anogan_tf.detection.stream import SCORE_COLUMNS, score_columns
from anogan_tf.evaluation import baselines, metrics, plots
from anogan_tf.evaluation.report import write_report
from anogan_tf.runtime.files import replacing, replacing_folder
from anogan_tf.runtime.progress import ProgressCallback, no_progress
from anogan_tf.runtime.provenance import versions
from anogan_tf.workflows.options import DEFAULTS
from anogan_tf.workflows.splits import training_state
from anogan_tf.workflows.train import prepare_job

SHOWN_AT_EACH_END = 12  # images of each kind on the contact sheet
SCORE_NAMES = {"auroc": "score", "auroc_residual": "residual_score", "auroc_discrimination": "discrimination_score"}


def run_demo(out, options=DEFAULTS, *, progress=no_progress):
    """Train on the built-in boots, score the 606 test images, write everything to a folder.

    Args:
        out: the folder; gets `scores.csv`, `contact_sheet.png`, `roc.png`, `histogram.png`, `metrics.json`, `report/`,
            `model.keras` and the training state `model.train/`.
        options: `TrainingOptions`; those of the networks and of the search count.
        progress: see `runtime.progress`.

    Returns:
        The dict written to `metrics.json`.
    """
    out = Path(out)
    images = load_embedded()
    started = time.perf_counter()
    job = prepare_job(ArraySource(images.train, np.zeros(len(images.train)), name="boots"), options, progress=progress)
    with replacing_folder(training_state(out / "model.keras")) as state:
        detector = job.run(state)
    trained = time.perf_counter()
    with progress("Scoring", -(-len(images.test) // SCORING_BATCH)) as on_progress:
        results = detector.predict(images.test, SCORING_BATCH, verbose=0, callbacks=[ProgressCallback(on_progress)])
    scored = time.perf_counter()
    detector.save(out / "model.keras")
    seconds = {
        "seconds_training": round(trained - started, 1),
        "seconds_scoring": round(scored - trained, 1),
    }
    pca = baselines.pca_residual(images.train[job.split.trained], images.test, detector.preprocessing)
    numbers = {"mode": detector.search_settings.mode, **_measure(images.test_label, results, pca), **seconds, **versions()}
    _write_scores(out / "scores.csv", images, results)
    _draw(out, detector, images, results, pca)
    write_report(detector, _labelled(images, job.split.trained), out / "report", title="Ankle boots", progress=progress)
    with replacing(out / "metrics.json") as path:
        path.write_text(json.dumps(numbers, indent=2) + "\n")
    return numbers


def _labelled(images, trained):
    """The images as a source: those trained on as "train", for the baselines, the others as "test"."""
    kinds = [EMBEDDED_CLASSES[kind] for kind in images.test_class]
    normal_class = kinds[int(np.argmin(images.test_label))]
    pixels = np.concatenate([images.train[trained], images.test])
    splits = ["train"] * len(trained) + ["test"] * len(images.test)
    return ArraySource(pixels, [normal_class] * len(trained) + kinds, normal_class, splits=splits, name="boots")


def _measure(labels, results, pca):
    flagged = results["is_anomaly"]
    return {
        **{name: round(metrics.auroc(labels, results[score]), 4) for name, score in SCORE_NAMES.items()},
        "auroc_pca": round(metrics.auroc(labels, pca), 4),
        "false_positive_rate": round(float(flagged[labels == 0].mean()), 4),
        "true_positive_rate": round(float(flagged[labels == 1].mean()), 4),
        "mean_steps": round(float(results["steps"].mean()), 1),
    }


def _write_scores(path, images, results):
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "class", "truth", *SCORE_COLUMNS))
        for row, (kind, truth) in enumerate(zip(images.test_class, images.test_label)):
            writer.writerow((row, EMBEDDED_CLASSES[kind], "anomaly" if truth else "normal", *score_columns(results, row)))


def _draw(out, detector, images, results, pca):
    order = np.argsort(-results["score"], kind="stable")
    shown = np.concatenate([order[:SHOWN_AT_EACH_END], order[-SHOWN_AT_EACH_END:]])
    titles = [
        f"{EMBEDDED_CLASSES[images.test_class[row]]}  A={results['score'][row]:.0f}  p={results['p_value'][row]:.3f}"
        for row in shown
    ]
    pixels = np.asarray(detector.preprocessing.prepare(images.test[shown]))
    heat = detector.heatmap(results["anomaly_map"][shown])
    plots.save_figure(plots.contact_sheet(pixels, results["reconstruction"][shown], heat, titles), out / "contact_sheet.png")
    scores = {"anomaly score A": results["score"], "residual R": results["residual_score"]}
    scores |= {"discrimination D": results["discrimination_score"], "PCA-32 squared residual": pca}
    plots.save_figure(plots.roc_figure(images.test_label, scores), out / "roc.png")
    plots.save_figure(plots.score_histogram(images.test_label, results["score"], detector.threshold), out / "histogram.png")

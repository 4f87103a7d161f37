"""The report of an evaluation: `report.html`, one file that needs nothing else, and `metrics.json`."""

import base64
import dataclasses
import datetime
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from anogan_tf.data.entries import absolute_name
from anogan_tf.detection.complexity import NO_WEIGHTS
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.maps import colours
from anogan_tf.evaluation import metrics, plots
from anogan_tf.evaluation.evaluate import Evaluation, choose_shown, evaluate, show
from anogan_tf.runtime.files import replacing
from anogan_tf.runtime.progress import Progress, no_progress
from anogan_tf.runtime.provenance import machine
from anogan_tf.runtime.types import PathLike, Source

# What the report calls each number of `metrics.image_metrics`.
MEASURE_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1 at the threshold",
    "best_f1": "best F1 of any threshold",
    "false_positive_rate": "normal images flagged",
    "true_positive_rate": "anomalies found",
}
PREPROCESSING_SETTINGS = ("image_shape", "fit", "scale", "value_range", "normalize")
SHOWN_TITLES = {
    "hits": ("Surest hits", "Anomalies with the highest scores."),
    "misses": ("Worst misses", "Anomalies that were not flagged, those with the lowest scores first."),
    "false alarms": ("Worst false alarms", "Normal images that were flagged, those with the highest scores first."),
}


def write_report(
    detector: AnoGAN,
    source: Source,
    out: PathLike,
    *,
    title: str,
    rows: Sequence[int] | np.ndarray | None = None,
    baseline_source: Source | None = None,
    used: tuple[set[str], set[str]] | None = None,
    seed: int = 0,
    strict: bool = False,
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], Evaluation]:
    """Evaluate a detector on labelled images and write `report.html` and `metrics.json` to a folder.

    Args:
        detector, source, rows, baseline_source, seed, strict, progress: as for `evaluate`.
        out: the folder.
        title: of the page.
        used: what the model was trained and calibrated on, see `workflows.splits.load_training_names`; what of it is
            evaluated is told.

    Returns:
        `(numbers, evaluation)`: the dict that `metrics.json` holds, and the `Evaluation`.
    """
    evaluation = evaluate(detector, source, rows, baseline_source=baseline_source, seed=seed, strict=strict, progress=progress)
    title = title.encode("utf-8", "backslashreplace").decode()
    numbers = {"title": title, **measure(detector, evaluation), "used": _count_used(evaluation, used), "seed": seed}
    chosen = choose_shown(evaluation)
    shown = show(detector, source, evaluation, [row for rows in chosen.values() for row in rows])
    page = _render(detector, evaluation, numbers, {kind: [shown[row] for row in rows] for kind, rows in chosen.items()})
    for name, text in (("metrics.json", json.dumps(numbers, indent=2, ensure_ascii=False) + "\n"), ("report.html", page)):
        with replacing(Path(out) / name) as path:
            path.write_text(text, encoding="utf-8")
    return numbers, evaluation


def _count_used(evaluation, used):
    """How many of the evaluated images the model was trained on, and how many set its threshold; None where it isn't known."""
    if used is None:
        return None
    names = {absolute_name(entry) for entry in evaluation.entries}
    return dict(zip(("trained", "held_out"), (len(names & one) for one in used)))


def measure(detector, evaluation):
    """Every number of an evaluation, ready for JSON."""
    labels, scores, flagged = evaluation.labels, evaluation.results["score"], evaluation.results["is_anomaly"]
    measured = metrics.image_metrics(labels, scores, flagged)
    pixels = evaluation.all_pixels
    return {
        "score": score_name(detector),
        "synthetic": evaluation.synthetic,
        "comparator": detector.calibration.map_scale is not None,
        "images": {
            "normal": int((labels == 0).sum()),
            "anomalous": int((labels == 1).sum()),
            "skipped": {picture.name: picture.reason for picture in evaluation.skipped},
        },
        "threshold": detector.threshold,
        "calibrated_false_positive_rate": detector.calibration.false_positive_rate,
        "likely_false_positive_rate": _rounded(detector.calibration.likely_rates(2 * metrics.CONFIDENCE[1] - 1)[1]),
        "image": {name: dict(zip(("value", "low", "high"), map(_rounded, values))) for name, values in measured.items()},
        "best_f1_threshold": _rounded(metrics.best_f1(labels, scores)[1]),
        "confusion": metrics.confusion(labels, flagged),
        "pixel": pixels and _measure_pixels(pixels),
        "kinds": [_measure_kind(evaluation, kind) for kind in np.unique(evaluation.kinds[labels == 1]).tolist()],
        "comparisons": {
            name: {"auroc": _rounded(metrics.auroc(labels, values)), "auprc": _rounded(metrics.auprc(labels, values))}
            for name, values in {score_name(detector): scores, **evaluation.comparisons}.items()
        },
        "loss_curve": evaluation.loss_curve and {"steps": evaluation.loss_curve[0], **evaluation.loss_curve[1]},
        "settings": _settings(detector),
        "machine": machine(),
        "time": datetime.datetime.now().isoformat(timespec="minutes"),
    }


def score_name(detector):
    """What tables and legends call the detector's score."""
    complexity = detector.calibration.complexity
    if complexity is None:
        return "peak of the residual" if detector.score_settings.score == "peak" else "A"
    if complexity.map_alone:
        return "A, by the anomaly map"
    terms = ["complexity", *(name.replace("_", " ") for name in NO_WEIGHTS if getattr(complexity, name) is not None)]
    return f"A, by {', '.join(terms[:-1])} and {terms[-1]}" if terms[1:] else "A, by complexity"


def _measure_pixels(pixels):
    return {name: _rounded(getattr(pixels, name)()) for name in ("auroc", "auprc", "pro")} | {"regions": int(pixels.regions)}


def _measure_kind(evaluation, kind):
    """The anomalies of one kind against all normal images; pixels of the kind's own images alone."""
    labels, scores = evaluation.labels, evaluation.results["score"]
    members = (evaluation.kinds == kind) & (labels == 1)
    rows = members | (labels == 0)
    pixels = evaluation.pixels.get(kind)
    return {
        "kind": kind,
        "images": int(members.sum()),
        "auroc": _rounded(metrics.auroc(labels[rows], scores[rows])),
        "found": _rounded(evaluation.results["is_anomaly"][members].mean()),
        "median_score": _rounded(np.median(scores[members])),
        "pixel": _measure_pixels(pixels) if pixels is not None and pixels.complete else None,
    }


def _settings(detector):
    return {
        "search": dataclasses.asdict(detector.search_settings),
        "score": dataclasses.asdict(detector.score_settings),
        "image_shape": list(detector.image_shape),
        "tiling": detector.tiling and dataclasses.asdict(detector.tiling),
        "preprocessing": {
            name: value for name, value in detector.preprocessing.get_config().items() if name in PREPROCESSING_SETTINGS
        },
        "calibrated_on": len(detector.calibration.scores),
    }


def _rounded(value):
    return float(f"{float(value):.5g}")


def _render(detector, evaluation, numbers, shown):
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anogan_tf.evaluation"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "percent": lambda value: f"{100 * value:.1f}%"}
    sections = []
    for kind, (title, explanation) in SHOWN_TITLES.items():
        items = [_item(evaluation, one) for one in shown[kind]]
        sections.append({"title": title, "explanation": explanation, "items": items})
    return environment.get_template("report.html").render(
        numbers=numbers,
        image_names=MEASURE_NAMES,
        figures=_figures(detector, evaluation),
        sections=sections,
        gradient=", ".join(_hex(colours()(share)) for share in np.linspace(0.0, 1.0, 9)),
        settings=_flat({**numbers["settings"], **numbers["machine"], "evaluated": numbers["time"]}),
    )


FIGURE_NOTES = {
    "roc": "True-positive rate against false-positive rate over all thresholds; chance is the diagonal.",
    "precision-recall": "Share of anomalies among flagged images against share of anomalies that are flagged; chance is dotted.",
    "histogram": "How many images have which anomaly score; those to the right of the threshold are flagged.",
    "loss": "Median loss A if the search ends after so many steps. Normal images should fall, anomalies stay up.",
    "embedding": "The discriminator's features f(x), laid out by t-SNE: what is near is alike, the axes have no unit.",
}


def _figures(detector, evaluation):
    """`(SVG, what it shows)` of each."""
    labels, scores = evaluation.labels, evaluation.results["score"]
    every = {score_name(detector): scores, **evaluation.comparisons}
    figures = {
        "roc": plots.roc_figure(labels, every),
        "precision-recall": plots.precision_recall_figure(labels, every),
        "histogram": plots.score_histogram(labels, scores, detector.threshold),
    }
    if evaluation.loss_curve:
        steps, medians = evaluation.loss_curve
        figures["loss"] = plots.loss_curves({kind: (steps, values) for kind, values in medians.items()})
    if evaluation.embedding:
        figures["embedding"] = plots.embedding_figure(*evaluation.embedding)
    return [(plots.as_svg(figure, name), FIGURE_NOTES[name]) for name, figure in figures.items()]


def _item(evaluation, shown):
    entry = evaluation.entries[shown.row]
    results = {name: values[shown.row] for name, values in evaluation.results.items()}
    name = Path(entry.name).name
    pictures = {
        "query": shown.query,
        "reconstruction": shown.reconstruction,
        "residual": shown.residual,
        "heatmap": shown.overlay,
        "mask": shown.mask,
    }
    return {
        "name": name,
        "kind": evaluation.kinds[shown.row],
        "score": results["score"],
        "p_value": results["p_value"],
        "steps": int(results["steps"]),
        "pictures": [
            {"what": what, "alt": f"{what} of {name}", "png": _png(pixels), "small": max(pixels.shape[:2]) < 128}
            for what, pixels in pictures.items()
            if pixels is not None
        ],
    }


def _png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _flat(settings, prefix=""):
    """Nested settings as a list of `(name, text)`."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _number(value):
    return f"{value:.3f}" if 0.01 <= abs(value) < 10 or not value else f"{value:.4g}"


def _hex(colour):
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour[:3])

"""Figures: contact sheet, curves, histogram, embedding. matplotlib is imported when the first is drawn."""

import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anogan_tf.detection import maps
from anogan_tf.evaluation import metrics
from anogan_tf.runtime.files import replacing
from anogan_tf.runtime.types import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ((0, "normal", "tab:blue"), (1, "anomaly", "tab:orange"))  # label, name, colour


def save_figure(figure, path):
    """Write a figure to `path` (PNG, PDF or SVG by its suffix), beside and renamed."""
    with replacing(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight")


def as_svg(figure, name):
    """A figure as SVG to put into a page: transparent, and what is black has the colour of the page's text.

    Args:
        figure: from a function of this module.
        name: makes its identifiers differ from those of other figures on the page.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :].replace("#000000", "currentColor")
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    title = html.escape(" and ".join(axes.get_title() for axes in figure.axes if axes.get_title()))
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def contact_sheet(
    pixels: Array,
    reconstructions: Array,
    heat: Array,
    titles: Sequence[str],
    columns: int = 3,
) -> "Figure":
    """Query, reconstruction and heatmap over the query, side by side for each image, with a colour bar.

    Args:
        pixels: `[N, H, W, C]` uint8, or float in [0, 1], or a list of images of any sizes.
        reconstructions: `[N, H, W, C]` in [0, 1], or a list.
        heat: `[N, H, W]` in [0, 1], or a list.
        titles: N strings.
        columns: images in a row.

    Returns:
        A matplotlib figure.
    """
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    height, width = 1.05 * rows + 0.4, 2.7 * columns + 1.4
    figure = _figure(width, height)
    edges = {"left": 0.01, "right": 1.0 - 1.2 / width, "top": 1.0 - 0.4 / height, "bottom": 0.1 / height}
    outer = figure.add_gridspec(1, 2, width_ratios=(30 * columns, 2), wspace=0.03, **edges)
    cells = outer[0].subgridspec(rows, columns, wspace=0.08, hspace=0.22)
    for index, title in enumerate(titles):
        triple = cells[index // columns, index % columns].subgridspec(1, 3, wspace=0.03)
        pictures = (pixels[index], reconstructions[index], maps.overlay(pixels[index], heat[index]))
        for position, picture in enumerate(np.asarray(picture).squeeze() for picture in pictures):
            axes = figure.add_subplot(triple[position])
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255 if picture.dtype == np.uint8 else 1)
            axes.axis("off")
            if position == 0:
                axes.set_title(title, fontsize=7, loc="left", pad=2, parse_math=False)  # a $ in a name is a $
    _heat_bar(figure, figure.add_subplot(outer[1]))
    figure.suptitle("query, reconstruction, anomaly map over the query", fontsize=9, y=1.0, va="top")
    return figure


def search_strip(queries: Sequence[Array], reconstructions: np.ndarray, losses: np.ndarray, titles: Sequence[str]) -> "Figure":
    """How the search goes: a row for each image, first the query, then G(z) after so many steps with its loss.

    Args:
        queries: `[N, H, W, C]` in [0, 1].
        reconstructions: `[S, N, H, W, C]` in [0, 1], as `SearchTrajectory` gives them.
        losses: `[S, N]`, likewise.
        titles: S strings, the `titles` of the `SearchTrajectory`.

    Returns:
        A matplotlib figure.
    """
    figure = _figure(0.95 * (len(titles) + 1), 1.2 * len(queries) + 0.1)
    cells = figure.subplots(len(queries), len(titles) + 1, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=1.0 - 0.3 / len(queries), bottom=0.01, wspace=0.06, hspace=0.3)
    for row, (first, *others) in enumerate(cells):
        pictures = [
            (queries[row], "query"),
            *zip(reconstructions[:, row], (f"{loss:.4g}" if loss < 1e4 else f"{loss:.0f}" for loss in losses[:, row])),
        ]
        for axes, (picture, below) in zip((first, *others), pictures):
            axes.imshow(np.asarray(picture).squeeze(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=(), yticks=())
            axes.set_xlabel(below, fontsize=7, labelpad=2)
            axes.spines[:].set_visible(False)
    for axes, title in zip(cells[0, 1:], titles):
        axes.set_title(title, fontsize=7, pad=3)
    return figure


def roc_figure(labels: Array, scores: dict[str, Array]) -> "Figure":
    """ROC curves of several scores.

    Args:
        labels: `[N]`, 1 anomaly, 0 normal.
        scores: dict of name to `[N]`.
    """
    figure = _figure(4.2, 4.0)
    axes = figure.add_subplot()
    for name, values in scores.items():
        axes.plot(*metrics.roc_curve(labels, values), label=f"{name}  {metrics.auroc(labels, values):.3f}")
    axes.plot((0, 1), (0, 1), color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC curve", aspect="equal")
    _legend_below(axes, "AUROC")
    return figure


def precision_recall_figure(labels, scores):
    """Precision-recall curves of several scores. Arguments as for `roc_figure`."""
    figure = _figure(4.2, 4.0)
    axes = figure.add_subplot()
    for name, values in scores.items():
        axes.plot(*metrics.precision_recall_curve(labels, values), label=f"{name}  {metrics.auprc(labels, values):.3f}")
    axes.axhline(np.mean(labels), color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="recall", ylabel="precision", title="Precision-recall curve", aspect="equal", ylim=(0.0, 1.05))
    _legend_below(axes, "AUPRC")
    return figure


def embedding_figure(points: np.ndarray, labels: Array) -> "Figure":
    """Points `[N, 2]` of normal images and anomalies in the plane."""
    figure = _figure(4.2, 4.0)
    axes = figure.add_subplot()
    for label, name, colour in KINDS:
        axes.scatter(*points[labels == label].T, s=6, alpha=0.7, label=name, color=colour, linewidths=0)
    axes.set(xticks=(), yticks=(), title="t-SNE of discriminator features")
    axes.legend(fontsize=8, frameon=False, markerscale=2)
    return figure


def score_histogram(labels: Array, scores: Array, threshold: float) -> "Figure":
    """Histogram of normals' and anomalies' scores with the threshold."""
    figure = _figure(5.4, 3.4)
    axes = figure.add_subplot()
    bins = np.linspace(np.min(scores), np.max(scores), 50)
    for label, name, colour in KINDS:
        axes.hist(np.asarray(scores)[np.asarray(labels) == label], bins, alpha=0.6, label=name, color=colour)
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4g}")
    axes.set(xlabel="anomaly score", ylabel="images", title="Scores of the test images")
    axes.legend(fontsize=8, frameon=False)
    return figure


def score_among_normals(normals, score, threshold):
    """Histogram of held-out normals' scores, with the threshold and one image's score."""
    figure = _figure(5.4, 3.0)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    axes.hist(normals, 30, alpha=0.6, color="tab:blue", label="held-out normal images")
    axes.axvline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.4g}")
    axes.axvline(score, color="tab:orange", linewidth=2.0, label=f"this image {score:.4g}")
    axes.set(xlabel="anomaly score", ylabel="images")
    axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


def loss_curves(curves: dict[str, Any]) -> "Figure":
    """Median loss against steps of the search.

    Args:
        curves: dict of name to `(steps, losses)`.
    """
    figure = _figure(5.4, 3.8)
    axes = figure.add_subplot()
    for name, (steps, values) in curves.items():
        line = axes.plot(steps, values, marker=".", label=name)[0]
        axes.axhline(values[-1], color=line.get_color(), linewidth=0.6, linestyle=":")
    axes.set(xlabel="steps", ylabel="median loss", title="Loss against steps")
    if min(min(steps) for steps, _ in curves.values()) > 0:
        axes.set_xscale("log")
    else:  # a logarithm would drop the start
        axes.set_xscale("symlog")
        axes.set_xlim(left=0)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150)


def _legend_below(axes, title):
    """Many curves with their values leave no room inside."""
    axes.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=7, frameon=False)


def _heat_bar(figure, axes):
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=maps.colours()), cax=axes)
    bar.set_ticks((0.0, 0.5, 1.0), labels=("most pixels", "brightest spots", "twice that"))
    bar.set_label("anomaly map, in\nnormal images", fontsize=7)
    bar.ax.tick_params(labelsize=7)

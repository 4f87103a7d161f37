"""A page to try a detector on: `anogan app MODEL.keras`. Gradio is imported when the page is made."""

import csv
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anogan_tf.data.entries import DecodedImage
from anogan_tf.data.sources import FileSource, read_samples, readable
from anogan_tf.detection.maps import OPACITY, as_rgb, overlay
from anogan_tf.detection.stream import score_batches
from anogan_tf.detection.trajectory import SearchTrajectory
from anogan_tf.evaluation import plots
from anogan_tf.workflows.score import DISPLAY_SIDE, score_files

EXAMPLES, EXAMPLE_SIDE = 12, 96  # pictures to choose from, and their pixels
STRIP_SIDE, PAGE_SIDE = 112, 336  # pixels up to which small pictures are enlarged, in the strip and elsewhere


class Answer(NamedTuple):
    """What the page shows of one picture.

    Attributes:
        verdict: Markdown.
        histogram: a matplotlib figure.
        picture: `[h, w, c]` uint8.
        heat: `[h, w]` in [0, 1].
        reconstruction: `[h, w, 3]` uint8.
        strip: `(G(z) [h, w, 3] uint8, after how many steps)`, in their order.
    """

    verdict: str
    histogram: object
    picture: np.ndarray
    heat: np.ndarray
    reconstruction: np.ndarray
    strip: list


def answer(detector, trajectory, path):
    """Score one file.

    Args:
        detector: a calibrated `AnoGAN`.
        trajectory: its `SearchTrajectory`.
        path: of the file.

    Returns:
        `Answer`, about the file's first image.

    Raises:
        ValueError: for a file that can't be read, with the reason.
    """
    source = FileSource.of([path])
    skipped: list[DecodedImage] = []
    batches = list(score_batches(detector, source, [0], skipped, DISPLAY_SIDE))
    if skipped:
        raise ValueError(f"{Path(path).name}: {skipped[0].reason}")
    ((sample,), results) = batches[0]
    shape = sample.display.shape[:2]
    heat = np.asarray(detector.preprocessing.restore(detector.heatmap(np.stack(results["anomaly_map"])), shape))[0]
    generated = trajectory(sample.image[np.newaxis])["reconstruction"][:, 0]
    return Answer(
        _verdict(detector, source, results),
        plots.score_among_normals(detector.calibration.scores, float(results["score"][0]), detector.threshold),
        sample.display,
        heat,
        as_rgb(results["reconstruction"][0]),
        [(_enlarged(as_rgb(picture), STRIP_SIDE), title) for picture, title in zip(generated, trajectory.titles)],
    )


def _verdict(detector, source, results):
    score, p_value = float(results["score"][0]), float(results["p_value"][0])
    rate, count = detector.calibration.false_positive_rate, len(detector.calibration.scores)
    label = "Anomaly" if results["is_anomaly"][0] else "Normal"
    more = f" The file holds {len(source.entries)} images; this is the first." if len(source.entries) > 1 else ""
    return (
        f"## {label}\n\nscore **{score:.4g}**, threshold {detector.threshold:.4g}, p = **{p_value:.3f}**\n\n"
        f"{p_value:.1%} of normal images would score as high, judged by {count}; "
        f"at {100 * rate:g}% or less it is an anomaly.{more}"
    )


def _enlarged(picture, side):
    times = max(1, side // max(picture.shape[:2]))
    return np.kron(picture, np.ones((times, times, 1), np.uint8))


def score_to_csv(detector, paths, out):
    """Score files into `OUT/scores.csv`, and `OUT/skipped.csv` where some can't be read; files are called by their last name.

    Returns:
        `(paths of what was written, a sentence about it)`.
    """
    scored, written = score_files(detector, FileSource.of(paths), out, heatmaps=False), []
    for path in (Path(out) / "scores.csv", Path(out) / "skipped.csv"):
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                head, *rows = csv.reader(file)
            with open(path, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([head, *((Path(name).name, *others) for name, *others in rows)])
            written.append(str(path))
    first = f" {len(scored.skipped)} can't be read." if scored.skipped else ""
    return written, f"{scored.anomalous} of {scored.scored} images are anomalous.{first}"


def choose_examples(detector, paths, count=EXAMPLES):
    """`[(picture [h, w, c] uint8, path)]` of some files that can be read, spread over all of them."""
    chosen = [paths[row] for row in np.unique(np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int))]
    samples = read_samples(FileSource.of(chosen), detector.preprocessing, display_side=EXAMPLE_SIDE) if chosen else ()
    first: dict[str, np.ndarray] = {}
    for sample in readable(samples, [], lambda: None):
        first.setdefault(sample.entry.path, np.broadcast_to(sample.display, (*sample.display.shape[:2], 3)))
    return [(picture, path) for path, picture in first.items()]


def build_app(detector, title, examples=()):
    """The page, a `gradio.Blocks`.

    Args:
        detector: a calibrated `AnoGAN`.
        title: of the page.
        examples: paths of files to choose from; some are shown.

    Raises:
        ModuleNotFoundError: without Gradio, naming the extra.
        ValueError: for a detector without a threshold.
    """
    gradio = _import_gradio()
    if detector.calibration is None:
        raise ValueError("The detector has no threshold: call calibrate() before it is shown.")
    desk, shown_examples = _Desk(detector), choose_examples(detector, [str(path) for path in examples])
    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        page.desk = desk  # its files live as long as the page
        gradio.Markdown(f"# {title}")
        answered = gradio.State()
        with gradio.Tab("One picture"), gradio.Row():
            with gradio.Column():
                file = gradio.File(label="Drop a picture here", type="filepath", height=140)
                gallery = gradio.Gallery(
                    [picture for picture, _ in shown_examples],
                    label="Or choose one",
                    columns=6,
                    height=170,
                    allow_preview=False,
                    interactive=False,
                    visible=bool(shown_examples),
                )
                verdict = gradio.Markdown(min_height=120)
                histogram = gradio.Plot(show_label=False)
            with gradio.Column():
                picture = gradio.Image(label="Heatmap: where it is anomalous, on the scale of normal images", height=360)
                opacity = gradio.Slider(0.0, 1.0, OPACITY, label="Opacity of the heatmap")
                reconstruction = gradio.Image(label="Reconstruction: the normal image nearest to it", height=240)
                strip = gradio.Gallery(label="The search: G(z) after so many steps", columns=5, height=200)
        with gradio.Tab("Many files"):
            files = gradio.File(label="Drop files here", type="filepath", file_count="multiple")
            button = gradio.Button("Score", variant="primary")
            sentence, table = gradio.Markdown(), gradio.File(label="scores.csv", interactive=False, file_count="multiple")

        def choose(opacity, event: gradio.SelectData):  # type: ignore[name-defined]
            return desk.look(shown_examples[event.index][1], opacity)

        outputs = [verdict, picture, reconstruction, histogram, strip, answered]
        alone = {"concurrency_id": "search"}  # a search keeps all cores busy
        file.change(desk.look, [file, opacity], outputs, api_name="look", **alone)
        gallery.select(choose, opacity, outputs, api_name=False, **alone)
        opacity.change(desk.draw, [answered, opacity], picture, show_progress="hidden", api_name=False)
        button.click(desk.score_many, files, [table, sentence], api_name="score_many", **alone)
    return page


class _Desk:
    """What the page does: from what was dropped on it to what its fields show."""

    def __init__(self, detector):
        self._detector, self._trajectory = detector, SearchTrajectory(detector)
        self._folder = tempfile.TemporaryDirectory(prefix="anogan-app-")

    def look(self, path, opacity):
        """Verdict, heatmap, reconstruction, histogram, strip, and what `draw` takes."""
        if path is None:
            return (None,) * 6
        try:
            found = answer(self._detector, self._trajectory, path)
        except (ValueError, OSError) as error:
            return f"## Not scored\n\n{error}", *(None,) * 5
        answered = (found.picture, found.heat)
        return (
            found.verdict,
            self.draw(answered, opacity),
            _enlarged(found.reconstruction, PAGE_SIDE),
            found.histogram,
            found.strip,
            answered,
        )

    def draw(self, answered, opacity):
        if answered is None:
            return None
        picture, heat = answered
        return _enlarged(overlay(picture, heat, opacity), PAGE_SIDE)

    def score_many(self, paths):
        """Files that were written, and a sentence."""
        if not paths:
            return None, "Choose files first."
        try:
            return score_to_csv(self._detector, paths, tempfile.mkdtemp(dir=self._folder.name))
        except (ValueError, OSError) as error:
            return None, f"Not scored: {error}"


def run_app(detector, title, examples=(), *, host="127.0.0.1", port=None, block=True):
    """Serve the page until the process is interrupted.

    Args:
        detector, title, examples: as for `build_app`.
        host: the address it answers on; by default this machine alone can ask.
        port: by default the first free one from 7860 on.
        block: whether it returns only when interrupted.

    Returns:
        The page, whose `local_url` is its address.
    """
    gradio = _import_gradio()
    page = build_app(detector, title, examples)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from elsewhere
    page.launch(
        server_name=host,
        server_port=port,
        share=False,
        show_error=True,
        theme=gradio.themes.Default(**fonts),
        prevent_thread_lock=not block,
        footer_links=[],
    )
    return page


def _import_gradio():
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio
    except ModuleNotFoundError:
        raise ModuleNotFoundError("The page needs Gradio: pip install gradio.") from None
    return gradio

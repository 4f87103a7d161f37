"""Scoring a source of images into a folder, some at a time; an interrupted run can be gone on with."""

import csv
import dataclasses
import heapq
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anogan_tf.data.entries import DecodedImage
from anogan_tf.data.preprocessing import to_pixels
from anogan_tf.detection.maps import overlay
from anogan_tf.detection.stream import ANOMALY, SCORE_COLUMNS, score_batches, score_columns
from anogan_tf.evaluation import plots
from anogan_tf.runtime.files import locked, replacing
from anogan_tf.runtime.progress import no_progress
from anogan_tf.runtime.provenance import has_record, write_record

SHEET_IMAGES = 12  # images on the contact sheet
DISPLAY_SIDE = 512  # pixels; overlays are no larger
TABLE_COLUMNS = ("file", "truth", *SCORE_COLUMNS, "steps", "converged", "heatmap")  # of scores.csv


class Scored(NamedTuple):
    """What came of scoring: how many images were scored, called anomalous, still improving at the last step; those skipped."""

    scored: int
    anomalous: int
    unfinished: int
    skipped: list


def score_files(
    detector, source, out, *, rows=None, heatmaps=True, maps=False, strict=False, resume=False, record=None, progress=no_progress
):
    """Score images into a folder.

    Writes `scores.csv`, an overlay for each image below `heatmaps/`, `contact_sheet.png` of the most anomalous ones and,
    if any couldn't be read, `skipped.csv`; and `run.json`.

    Rows are written as they come: an interrupt loses none but those of the batch being scored.

    Args:
        detector: a calibrated `AnoGAN`.
        source: a `FileSource` or `TfdsSource`.
        out: the folder.
        rows: of the source; by default all.
        heatmaps: whether overlays are written.
        maps: whether anomaly maps are written below `maps/`, as TIFF of floats at the size of the prepared image.
        strict: whether an image that can't be read ends the run.
        resume: whether to keep what an interrupted call with the same arguments wrote, if one did, and to score the others.
        record: a dict that says which model this is; with another, there is no going on.
        progress: see `runtime.progress`.

    Returns:
        `Scored`, of the folder as a whole.
    """
    out, rows = Path(out), np.arange(len(source.entries)) if rows is None else np.asarray(rows, int)
    record = {"settings": {"heatmaps": heatmaps, "maps": maps, **(record or {})}}
    with locked(out):
        kept = _keep_rows(out, heatmaps or maps) if resume and has_record(out, record) else None
        if kept is None:
            _make_room(out, {"heatmaps": heatmaps, "maps": maps})
            kept = [TABLE_COLUMNS]
            with open(out / "scores.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(kept)
        write_record(out, record)
        done, tally = {line[0] for line in kept[1:]}, _Tally()
        tally.add(kept[1:])
        del kept  # of which there may be millions
        rows_left = [row for row in rows if source.entries[row].name not in done]
        return _score_rest(detector, source, out, rows, rows_left, tally, heatmaps, maps, strict, progress)


def _score_rest(detector, source, out, rows, rows_left, tally, heatmaps, maps, strict, progress):
    """Score the rows that have no line in `scores.csv` yet; the tally is of the others."""
    skipped: list[DecodedImage] = []
    with (
        open(out / "scores.csv", "a", newline="", encoding="utf-8") as file,
        progress("Scoring", len(rows)) as on_progress,
    ):
        writer = csv.writer(file)
        if tally.scored:
            on_progress(tally.scored)
        side = DISPLAY_SIDE if heatmaps else 0
        for batch, results in score_batches(detector, source, rows_left, skipped, side, strict, on_progress):
            heats = detector.heatmap(results["anomaly_map"]) if heatmaps else None
            written = _write_overlays(detector, batch, heats, tally.scored, out) if heatmaps else [""] * len(batch)
            if maps:
                _write_maps(batch, results["anomaly_map"], tally.scored, out)
            new = [_columns(sample.entry, results, row, path) for row, (sample, path) in enumerate(zip(batch, written))]
            writer.writerows(new)
            file.flush()
            tally.add(new)
            on_progress(len(new))
    if tally.top:
        _draw_most_anomalous(detector, source, rows, [name for _, name in tally.top], out)
    if skipped:
        with replacing(out / "skipped.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "reason"), *((picture.name, picture.reason) for picture in skipped)])
    return Scored(tally.scored, tally.anomalous, tally.unfinished, skipped)


@dataclasses.dataclass
class _Tally:
    """What is known of the lines written so far: little, since there may be millions."""

    scored: int = 0
    anomalous: int = 0
    unfinished: int = 0
    top: list = dataclasses.field(default_factory=list)  # `(score, name)` of the most anomalous

    def add(self, lines):
        score, label, converged = (TABLE_COLUMNS.index(name) for name in ("score", "label", "converged"))
        self.scored += len(lines)
        self.anomalous += sum(line[label] == ANOMALY for line in lines)
        self.unfinished += sum(line[converged] == "False" for line in lines)
        scores = [*self.top, *((float(line[score]), line[0]) for line in lines)]
        self.top = heapq.nlargest(SHEET_IMAGES, scores, key=lambda found: found[0])


def _columns(entry, results, row, overlay_path):
    """A line of `scores.csv`, as text."""
    search = (results["steps"][row], bool(results["converged"][row]))
    return [str(cell) for cell in (entry.name, entry.label, *score_columns(results, row), *search, overlay_path)]


def _keep_rows(out, pictures):
    """The lines of an interrupted run's `scores.csv`, its head first, less a half one at its end; None where there are none."""
    path = out / "scores.csv"
    if not path.exists():
        return None
    with open(path, newline="", encoding="utf-8") as file:
        text = file.read()
    lines = list(csv.reader(text[: text.rfind("\r\n") + 2].splitlines(keepends=True)))
    if not lines or tuple(lines[0]) != TABLE_COLUMNS:
        return None
    whole = [line for line in lines if len(line) == len(TABLE_COLUMNS)]
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(whole)
    if pictures:  # a kill leaves the picture that was being written, with a name of its own
        for leftover in (*out.glob("heatmaps/.[0-9]*"), *out.glob("maps/.[0-9]*")):
            leftover.unlink()
    return whole


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


def _write_overlays(detector, batch, heats, first, out):
    """Write the heatmap over each picture of a batch; returns the paths below `out`."""
    paths = []
    for row, (sample, heat) in enumerate(zip(batch, heats)):
        paths.append(Path("heatmaps") / _file_name(first + row, sample, ".png"))
        heat = detector.preprocessing.restore(heat[np.newaxis], sample.display.shape[:2])[0]
        with replacing(out / paths[-1]) as path:
            Image.fromarray(overlay(sample.display, heat)).save(path)
    return paths


def _write_maps(batch, anomaly_maps, first, out):
    for row, (sample, anomaly_map) in enumerate(zip(batch, anomaly_maps)):
        with replacing(out / "maps" / _file_name(first + row, sample, ".tiff")) as path:
            Image.fromarray(np.ascontiguousarray(anomaly_map)).save(path)


def _file_name(number, sample, suffix):
    # Cut, because a file's name has at most 255 bytes.
    entry = sample.entry
    stem = Path(entry.path).stem if entry.row is None else f"{entry.key or Path(entry.path).stem}-{entry.number}"
    stem = "-".join(part for part in (entry.label, stem) if part).replace("/", "-")
    return f"{number:06d}-{stem.encode('utf-8', 'backslashreplace')[:100].decode('utf-8', 'ignore')}{suffix}"


def _draw_most_anomalous(detector, source, rows, names, out):
    """Draw the contact sheet. Its few images are searched once more: an interrupted run has left no more than their scores."""
    row_of = {source.entries[row].name: row for row in rows if source.entries[row].name in names}

    def title(sample, score, p_value):
        return f"{sample.entry.label} {Path(sample.entry.name).name[-24:]}  {score:.4g}  p={p_value:.3f}".strip()

    draw_sheet(detector, source, [row_of[name] for name in names], out / "contact_sheet.png", title)


def draw_sheet(detector, source, rows, path, title, columns=3):
    """Score a few images and draw a contact sheet of them.

    Args:
        detector: a calibrated `AnoGAN`.
        source: a `FileSource` or `TfdsSource`.
        rows: of the source, in the order of the sheet; what can't be read is left out.
        path: of the picture.
        title: from a `Sample`, its score and its p-value to what stands above it.
        columns: images in a row.
    """
    drawn = {}
    for batch, results in score_batches(detector, source, sorted(rows), []):
        for number, sample in enumerate(batch):
            step = -(-max(results["anomaly_map"][number].shape) // DISPLAY_SIDE)
            heat = detector.heatmap([results["anomaly_map"][number]])[0]
            pictures = (to_pixels(sample.image), results["reconstruction"][number], heat)
            above = title(sample, results["score"][number], results["p_value"][number])
            drawn[sample.row] = (*(picture[::step, ::step] for picture in pictures), above)
    pixels, reconstructions, heat, titles = zip(*(drawn[row] for row in rows if row in drawn))
    sheet = plots.contact_sheet(pixels, reconstructions, heat, titles, columns=columns)
    plots.save_figure(sheet, path)

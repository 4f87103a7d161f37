import contextlib
import csv

import numpy as np
import pytest
from PIL import Image

from anogan_tf.data.sources import FileSource
from anogan_tf.detection import stream
from anogan_tf.evaluation import plots
from anogan_tf.runtime.progress import no_progress
from anogan_tf.workflows import score as workflow


def score(detector, paths, out, **options):
    return workflow.score_files(detector, FileSource.of(paths), out, **options)


def test_a_wrong_path_leaves_the_old_scores_alone(tiny_detector, pixels, tmp_path):
    tiny_detector.calibrate(pixels[:20])
    (tmp_path / "scores.csv").write_text("mine")
    with pytest.raises(FileNotFoundError):
        score(tiny_detector, tmp_path / "nowhere", tmp_path)
    assert (tmp_path / "scores.csv").read_text() == "mine"
    with pytest.raises(FileNotFoundError):
        score(tiny_detector, tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_progress_counts_each_image_once_it_is_scored(tiny_detector, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "FILES_AT_ONCE", 16)
    tiny_detector.calibrate(pixels[:20])
    np.save(tmp_path / "queries.npy", pixels)
    (tmp_path / "broken.png").touch()
    rows_at = []

    @contextlib.contextmanager
    def progress(description, total):
        assert total == 41
        written = tmp_path / "out" / "scores.csv"
        yield lambda count=1: rows_at.extend(count * [len(written.read_text().splitlines()) - 1])

    score(tiny_detector, tmp_path, tmp_path / "out", progress=progress)
    assert len(rows_at) == 41 and sorted(set(rows_at))[-3:] == [16, 32, 40]  # rows reach the file a batch at a time


def test_a_name_as_long_as_names_can_be(tiny_detector, pixels, tmp_path):
    tiny_detector.calibrate(pixels[:20])
    Image.fromarray(pixels[0, ..., 0]).save(tmp_path / f"{'ä' * 120}.png")
    assert score(tiny_detector, tmp_path, tmp_path / "out").scored == 1


def test_scoring_again_leaves_nothing_of_the_run_before(tiny_detector, pixels, tmp_path):
    tiny_detector.calibrate(pixels[:20])
    queries = tmp_path / "queries"
    queries.mkdir()
    for index in range(3):
        Image.fromarray(pixels[index, ..., 0]).save(queries / f"{index}.png")
    (queries / "broken.png").touch()
    first = score(tiny_detector, queries, tmp_path)
    assert (first.scored, first.unfinished, len(first.skipped)) == (3, 3, 1)
    mine = tmp_path / "heatmaps" / "mine.png"
    mine.touch()
    (queries / "broken.png").unlink()
    (queries / "2.png").unlink()
    score(tiny_detector, queries, tmp_path)
    assert not (tmp_path / "skipped.csv").exists()
    assert {path.name for path in (tmp_path / "heatmaps").iterdir()} == {"000000-0.png", "000001-1.png", "mine.png"}


@pytest.fixture
def queries(tiny_detector, pixels, tmp_path, monkeypatch):
    """A folder of 40 pictures and one that can't be read, to be scored eight at a time."""
    monkeypatch.setattr(stream, "FILES_AT_ONCE", 8)
    tiny_detector.calibrate(pixels[:20])
    (tmp_path / "queries").mkdir()
    for row, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(tmp_path / "queries" / f"{row:02d}.png")
    (tmp_path / "queries" / "05-broken.png").touch()
    return tmp_path / "queries"


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.promise("resumes")
def test_an_interrupted_run_is_gone_on_with(tiny_detector, queries, tmp_path, monkeypatch):
    whole = score(tiny_detector, queries, tmp_path / "whole", maps=True)
    scored, score_batches = [], workflow.score_batches

    def interrupted(*arguments):
        for number, (batch, *found) in enumerate(score_batches(*arguments)):
            if number == 2 and not scored[16:]:
                raise KeyboardInterrupt
            scored.extend(sample.entry.name for sample in batch)
            yield batch, *found

    out = tmp_path / "out"
    monkeypatch.setattr(workflow, "score_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(tiny_detector, queries, out, maps=True)
    with open(out / "scores.csv", "a", newline="") as file:
        file.write(f"{queries / '16.png'},,1")  # the half of a row
    (out / "heatmaps" / ".000016-16-x1y2.png").touch()  # the half of a picture
    again = score(tiny_detector, queries, out, maps=True, resume=True)
    assert again == whole and whole.scored == 40 and len(whole.skipped) == 1
    assert files_of(out) == files_of(tmp_path / "whole")
    assert len(scored) == 40 + workflow.SHEET_IMAGES and len(set(scored[:40])) == 40  # each once, but for the contact sheet


def test_two_runs_do_not_write_to_one_folder(tiny_detector, queries, tmp_path):
    def progress(description, total):
        with pytest.raises(ValueError, match="Another process writes to"):
            score(tiny_detector, queries, tmp_path / "out")
        return no_progress(description, total)

    assert score(tiny_detector, queries, tmp_path / "out", progress=progress).scored == 40


@pytest.mark.parametrize("resume", [False, True])
def test_of_what_another_model_scored_nothing_is_kept(tiny_detector, queries, tmp_path, resume):
    score(tiny_detector, queries, tmp_path / "out", record={"model": "a"})
    if resume:
        with pytest.raises(ValueError, match="differs in settings.model"):
            score(tiny_detector, queries, tmp_path / "out", record={"model": "b"}, resume=True)
    assert score(tiny_detector, queries, tmp_path / "out", record={"model": "b"}).scored == 40


def test_a_file_cut_anywhere_keeps_its_whole_rows(tmp_path):
    rows = [("a.png", "good", *"123456", "True", "heatmaps/a.png"), ("b,\n'\".png", "", *"654321", "False", "")]
    rows = [row[: len(workflow.TABLE_COLUMNS)] for row in rows]
    path = tmp_path / "scores.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([workflow.TABLE_COLUMNS, *rows])
    whole = path.read_bytes()
    ends = [whole.index(b"\r\n") + 2, whole.index(b"\r\nb" if b"\r\nb" in whole else b'\r\n"b') + 2, len(whole)]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept, complete = workflow._keep_rows(tmp_path, True), sum(cut >= end for end in ends) - 1
        assert (kept is None) == (complete < 0)
        if kept is not None:
            assert [tuple(row) for row in kept[1:]] == rows[:complete] and path.read_bytes() == whole[: ends[complete]]


def test_the_contact_sheet_shows_the_most_anomalous_in_order(tiny_detector, queries, tmp_path, monkeypatch):
    drawn, contact_sheet = [], plots.contact_sheet
    monkeypatch.setattr(plots, "contact_sheet", lambda *sheet, columns: drawn.extend(sheet) or contact_sheet(*sheet))
    score(tiny_detector, queries, tmp_path / "out")
    with open(tmp_path / "out" / "scores.csv", newline="") as file:
        lines = sorted(csv.DictReader(file), key=lambda line: -float(line["score"]))[: workflow.SHEET_IMAGES]
    pictures, _, _, titles = drawn
    assert [title.split()[0] for title in titles] == [line["file"][-24:].split("/")[-1] for line in lines]
    np.testing.assert_allclose(pictures[0][..., 0] * 255, np.asarray(Image.open(lines[0]["file"])), atol=1e-3)

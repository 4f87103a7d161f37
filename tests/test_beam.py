"""Scoring on Beam by its direct runner: the scores of a local run, whatever the images come in, and nothing lost unsaid."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from anogan_tf.cli.app import app
from anogan_tf.cli.console import SOME_SKIPPED
from anogan_tf.data.sources import FileSource, rows_to_score
from anogan_tf.data.tfds_sets import TfdsSource, open_set, prepare_set, splits_of
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.workflows import score

pytest.importorskip("apache_beam", reason="needs the extra beam")
from anogan_tf.workflows import beam  # noqa: E402

rng = np.random.default_rng(0)


def rows_of(out, name="scores"):
    """All lines of the shards, by the file they are of."""
    lines = [row for path in out.glob(f"{name}*.csv") for row in csv.DictReader(path.read_text().splitlines())]
    found = {row["file"]: row for row in lines}
    assert len(found) == len(lines)
    return found


def assert_alike(here, there):
    assert here.keys() == there.keys()
    for name, row in there.items():
        assert row == {column: here[name][column] for column in row}, name


PIXELS = rng.integers(0, 256, (40, 16, 16, 1), np.uint8)


@pytest.fixture(scope="module")
def detector(make_gan):
    return AnoGAN.from_gan(make_gan(), steps=3).calibrate(PIXELS[:20])


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    detector.export(folder, warm_up=())
    return folder


def test_files_of_every_kind_have_the_scores_of_a_local_run(detector, exported, tmp_path):
    queries = tmp_path / "queries"
    (queries / "below").mkdir(parents=True)
    for number in range(20):
        Image.fromarray(PIXELS[number, ..., 0]).save(queries / f"{'below/' * (number % 2)}{number}.png")
    Image.fromarray(rng.integers(0, 65536, (20, 30), np.uint16)).save(queries / "deep.tiff")
    Image.fromarray(rng.random((20, 30)).astype(np.float32)).save(queries / "float.tiff")
    Image.fromarray(rng.integers(0, 256, (33, 44, 3), np.uint8)).save(queries / "a, colour.jpg")
    np.save(queries / "many.npy", PIXELS[20:])
    Image.fromarray(3.0 * rng.random((20, 30)).astype(np.float32)).save(queries / "beyond.tiff")
    (queries / "broken.png").write_bytes(b"no picture")
    (queries / "notes.txt").write_text("no picture either")
    score.score_files(detector, FileSource.of(queries), tmp_path / "here", heatmaps=False)

    called = CliRunner().invoke(
        app, ["score", str(exported), str(queries), "-o", str(tmp_path / "there"), "--runner", "DirectRunner"]
    )
    assert called.exit_code == SOME_SKIPPED, called.output
    there = rows_of(tmp_path / "there")
    assert len(there) == 43
    assert_alike(rows_of(tmp_path / "here"), there)
    skipped, known = (rows_of(tmp_path / side, "skipped") for side in ("there", "here"))
    assert {*skipped} == {*known} == {str(queries / name) for name in ("beyond.tiff", "broken.png")}
    assert "outside [0, 1]" in skipped[str(queries / "beyond.tiff")]["reason"]
    assert skipped[str(queries / "broken.png")] == known[str(queries / "broken.png")]


def test_a_set_of_record_files_has_the_scores_of_a_local_run(detector, exported, tmp_path):
    for label in ("good", "bad"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (20 + number, 30), np.uint8)).save(tmp_path / "set" / label / f"{number}.png")
    prepare_set(FileSource.of(tmp_path / "set", "good"), "parts", tmp_path / "tfds")
    source, builder = TfdsSource("parts", data_dir=tmp_path / "tfds"), open_set("parts", tmp_path / "tfds")
    for side in ("train", "test", "all"):
        wanted = rows_to_score(source, side)
        score.score_files(detector, source, tmp_path / f"here-{side}", rows=wanted, heatmaps=False)
        read = beam.ReadTfds(builder, splits_of(builder, side))
        counts = beam.score_on_beam(exported / "1", read, tmp_path / f"there-{side}")
        assert (counts.scored, counts.skipped) == (len(wanted), 0)
        assert_alike(rows_of(tmp_path / f"here-{side}"), rows_of(tmp_path / f"there-{side}"))


def test_float_images_of_one_size_are_asked_for_together(exported):
    model = beam.SavedModelHandler(beam.find_version(exported))
    assert model.batch_elements_kwargs()["element_size_fn"](beam.Query("", "", b"", beam.PIXELS_AT_ONCE)) == beam.IMAGES_AT_ONCE
    images = [rng.random(shape).astype(np.float32) for shape in ((16, 16, 1), (20, 16, 1), (16, 16, 1))]
    loaded = model.load_model()
    together = model.run_inference([beam.Query(str(row), "", image, image.size) for row, image in enumerate(images)], loaded)
    assert [query.name for query, _ in together] == ["0", "1", "2"]
    for row, image in enumerate(images):
        ((_, alone),) = model.run_inference([beam.Query(str(row), "", image, image.size)], loaded)
        assert alone["score"] == together[row][1]["score"]


def test_a_copy_is_made_of_what_lies_elsewhere(monkeypatch):
    monkeypatch.setattr(beam.FileSystems, "open", lambda path, **options: io.BytesIO(b"pixels"))
    with beam._local("far://bucket/far.png") as path:
        assert Path(path).name == "far.png" and Path(path).read_bytes() == b"pixels"
    with beam._local("near.png") as path:
        assert path == "near.png"


def test_the_newest_version_is_taken(tmp_path):
    for version in ("9", "10", "other"):
        (tmp_path / "served" / version).mkdir(parents=True)
        (tmp_path / "served" / version / "saved_model.pb").touch()
    assert beam.find_version(tmp_path / "served") == str(tmp_path / "served" / "10")
    assert beam.find_version(tmp_path / "served" / "9") == str(tmp_path / "served" / "9")


def test_old_results_stay_until_there_are_new_ones(exported, tmp_path):
    Image.fromarray(PIXELS[0, ..., 0]).save(tmp_path / "0.png")
    out, old = tmp_path / "out", tmp_path / "out" / "scores-00001-of-00002.csv"
    out.mkdir()
    old.write_text("mine")
    (out / "skipped-00000-of-00001.csv").write_text("mine")
    with pytest.raises(ValueError, match="of another run"):
        beam.score_on_beam(exported, beam.ReadPatterns([tmp_path / "0.png"]), out)
    with pytest.raises(ValueError, match="there is no such file"):
        beam.score_on_beam(exported, beam.ReadPatterns([tmp_path / "1.png"]), out, overwrite=True)
    assert old.read_text() == "mine"
    assert beam.score_on_beam(exported, beam.ReadPatterns([tmp_path / "0.png"]), out, overwrite=True) == (1, 0, 0)
    assert [path.name for path in out.iterdir()] == ["scores-00000-of-00001.csv"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["MODEL", "nowhere/*"], "nowhere/*: there is no such file"),
        (["nowhere", "IMAGES"], "nowhere is no exported model"),
        (["MODEL"], "Name images by patterns of files, or a set with --tfds"),
        (["MODEL", "IMAGES", "--maps", "--resume"], "--maps, --resume: not together with --runner"),
        (["MODEL", "IMAGES", "--runner", ""], "only a runner can read"),
        (["MODEL", "BROKEN", "--strict"], "0.png: not a readable image"),
        (["MODEL", "IMAGES", "-o", "OLD"], "is of another run"),
        (["MODEL", "nowhere/*", "-o", "OLD", "--overwrite"], "nowhere/*: there is no such file"),
    ],
)
def test_what_can_t_be_done_is_said(exported, tmp_path, arguments, message):
    for folder in ("images", "broken", "old"):
        (tmp_path / folder).mkdir()
    Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / "images" / "0.png")
    (tmp_path / "broken" / "0.png").touch()
    (tmp_path / "old" / "scores-00000-of-00001.csv").touch()
    places = {"MODEL": exported, "IMAGES": tmp_path / "images", "BROKEN": tmp_path / "broken", "OLD": tmp_path / "old"}
    if "--runner" in arguments:
        places["IMAGES"] = "far://bucket/images/*"
    arguments = [str(places.get(argument, argument)) for argument in arguments]
    out = [] if "-o" in arguments else ["-o", str(tmp_path / "out")]
    runner = [] if "--runner" in arguments else ["--runner", "DirectRunner"]
    called = CliRunner().invoke(app, ["score", *arguments, *out, *runner])
    assert called.exit_code == 1 and message in called.output
    assert (tmp_path / "old" / "scores-00000-of-00001.csv").exists()

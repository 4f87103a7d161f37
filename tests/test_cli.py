"""The commands on tiny budgets, as a user would call them."""

import csv
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from typer.testing import CliRunner

from anogan_tf.cli import console
from anogan_tf.cli.app import app
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.tiling import Tiling
from anogan_tf.networks.architectures import LATENT_DIM
from anogan_tf.search.settings import SearchSettings
from anogan_tf.serving import warmup
from anogan_tf.training.encoder import EncoderTrainer
from anogan_tf.training.gan import GAN
from anogan_tf.training.trainer import TRAINING_BATCH
from anogan_tf.workflows import parts, train
from anogan_tf.workflows.options import HELPING

FAST = ["--size", "16", "--latent-dim", "4", "--base-filters", "4", "--epochs", "1", "--steps", "3"]


def anogan(*arguments, status=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output + repr(result.exception)
    return " ".join(result.output.split())  # the console folds long lines


@pytest.fixture(scope="module")
def good(tmp_path_factory, boots):
    folder = tmp_path_factory.mktemp("good")
    for index, image in enumerate(boots.train[:110]):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def model(good, tmp_path_factory, networks):
    path = tmp_path_factory.mktemp("model") / "boots.keras"
    anogan("train", good, "-o", path, *FAST)
    return path


@pytest.mark.promise("as written")
def test_train_writes_a_calibrated_detector_and_its_training_state(model):
    detector = AnoGAN.load(model)
    assert len(detector.calibration.scores) == 50 and detector.image_shape == (16, 16, 1)
    state = model.with_suffix(".train")
    assert {path.name for path in state.iterdir()} == {
        "gan.keras", "log.csv", "samples", "held_out.txt", "trained.txt", "encoder.keras", "encoder.csv", "run.json",
    }  # fmt: skip
    assert GAN.load(state / "gan.keras").optimizer.iterations.numpy() == 60 // 16
    assert EncoderTrainer.load(state / "encoder.keras").optimizer.iterations.numpy() == 60 // 32
    assert detector.search_settings.mode == "refine"


@pytest.mark.usefixtures("networks")
def test_train_without_an_encoder(good, tmp_path):
    anogan("train", good, "-o", tmp_path / "m.keras", *FAST, "--no-encoder", "--objective", "hinge")
    detector = AnoGAN.load(tmp_path / "m.keras")
    assert detector.encoder is None and detector.search_settings.mode == "search"
    assert "still improving" in anogan("score", tmp_path / "m.keras", good, "-o", tmp_path / "out")
    assert not (tmp_path / "m.train" / "encoder.keras").exists()
    assert GAN.load(tmp_path / "m.train" / "gan.keras").objective == "hinge"


def test_a_run_is_repeated_from_its_record(model, good, tmp_path):
    record = model.with_suffix(".train") / "run.json"
    again = tmp_path / "again.keras"
    said = anogan("train", "--config", record, "-o", again, "--range", "0:200")
    assert "are not those" not in said
    for one, other in zip(*(AnoGAN.load(path).generator.get_weights() for path in (model, again))):
        np.testing.assert_array_equal(one, other)
    repeated = json.loads((tmp_path / "again.train" / "run.json").read_text())
    first = json.loads(record.read_text())
    assert repeated["options"] == {**first["options"], "value_range": [0.0, 200.0]} and repeated["data"] == first["data"]
    assert repeated["images"] == first["images"]
    assert "finished already" in anogan("train", "--config", record, "-o", again, "--resume")
    (tmp_path / "other").mkdir()
    for row in range(100):
        Image.fromarray(np.full((16, 16), row, np.uint8)).save(tmp_path / "other" / f"{row}.png")
    options = ("--config", again.with_suffix(".train") / "run.json", "-o", tmp_path / "other.keras")
    assert "are not those of" in anogan("train", tmp_path / "other", *options)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"images": {}, "options": {"colour": 1}}', '{"images": {}}', '{"images": {}, "options": 3}']
)
def test_a_record_that_is_none_is_named(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    said = anogan("train", "--config", tmp_path / "run.json", "-o", tmp_path / "m.keras", status=2)
    assert "run.json" in re.sub(r"[\s│]", "", said)  # which typer wraps in a box


def test_an_interrupted_run_is_gone_on_with(model, good, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise ValueError("stopped")

    path = tmp_path / "m.keras"
    with monkeypatch.context() as patched:
        patched.setattr(train, "calibrate_on", interrupt)
        assert "stopped" in anogan("train", good, "-o", path, *FAST, status=1)
    assert "differs in options.base_filters" in anogan(
        "train", good, "-o", path, *FAST, "--base-filters", "8", "--resume", status=1
    )
    anogan("train", good, "-o", path, *FAST, "--resume")
    detectors = AnoGAN.load(path), AnoGAN.load(model)
    assert detectors[0].calibration.get_config() == detectors[1].calibration.get_config()
    out = tmp_path / "out"
    for resume in ((), ("--resume",), ("--overwrite",)):
        assert "110 images are anomalous" in anogan("score", path, good, "-o", out, *resume)
    assert "differs in settings.maps" in anogan("score", path, good, "-o", out, "--maps", "--resume", status=1)
    assert "isn't empty" in anogan("score", path, good, "-o", out, status=1)


def test_what_was_not_trained_on_is_listed(model):
    state = model.with_suffix(".train")
    assert len((state / "held_out.txt").read_text().splitlines()) == 50


@pytest.mark.promise("threshold")
def test_the_threshold_comes_from_images_that_were_not_trained_on(model, good, monkeypatch):
    detector = AnoGAN.load(model)
    names = (model.with_suffix(".train") / "held_out.txt").read_text().splitlines()
    held_out = np.stack([np.asarray(Image.open(name)) for name in names])
    np.testing.assert_allclose(np.sort(detector.predict(held_out, verbose=0)["score"]), detector.calibration.scores, rtol=1e-5)

    trained = []
    fit = GAN.fit
    monkeypatch.setattr(GAN, "fit", lambda gan, x, **options: trained.append(x) or fit(gan, x, **options))
    anogan("train", good, "-o", model.with_name("again.keras"), *FAST)

    def rounded(images):
        return {np.round(np.asarray(image) * 1000).tobytes() for image in images}

    held_out = rounded(detector.preprocessing.prepare(held_out))
    assert len(trained[0]) == 60 and len(held_out) == 50 and not held_out & rounded(trained[0].take(range(60)))


@pytest.mark.usefixtures("networks")
def test_options_reach_the_model(good, tmp_path):
    path = tmp_path / "options.keras"
    options = [
        "--weight",
        "0.2",
        "--restarts",
        "2",
        "--prior",
        "uniform",
        "--seed",
        "7",
        "--label-smoothing",
        "0.1",
        "--fpr",
        "0.1",
    ]
    anogan("train", good, "-o", path, *FAST, "--channels", "3", "--size", "16x20", "--batch-size", "8", *options)
    detector = AnoGAN.load(path)
    settings = detector.search_settings
    assert (settings.weight, settings.restarts, settings.prior, settings.seed, settings.steps) == (0.2, 2, "uniform", 7, 3)
    assert detector.image_shape == (16, 20, 3) and detector.calibration.false_positive_rate == 0.1
    gan = GAN.load(path.with_suffix(".train") / "gan.keras")
    assert (gan.label_smoothing, gan.prior, gan.seed, gan.latent_dim) == (0.1, "uniform", 7, 4)
    assert gan.optimizer.iterations.numpy() == 60 // 8


@pytest.mark.promise("as written")
def test_score_writes_a_row_and_a_heatmap_for_each_image(model, good, tmp_path):
    nested = tmp_path / "queries" / "nested"
    nested.mkdir(parents=True)
    Image.fromarray(np.full((700, 300, 3), 255, np.uint8)).save(nested / "white.jpg")
    out = tmp_path / "out"
    anogan("score", model, good / "000.png", tmp_path / "queries", "-o", out)
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [row["file"] for row in rows] == [str(good / "000.png"), str(nested / "white.jpg")]
    normal = AnoGAN.load(model).calibration.scores
    for row in rows:
        p_value = (1 + (normal >= float(row["score"])).sum()) / 51
        assert float(row["p_value"]) == pytest.approx(p_value, abs=1e-4)
        assert row["label"] == ("anomaly" if p_value <= 0.05 else "normal")
    sizes = [Image.open(out / row["heatmap"]).size for row in rows]
    assert sizes == [(28, 28), (219, 512)]
    expected = AnoGAN.load(model).predict(np.asarray(Image.open(good / "000.png"))[None], verbose=0)["score"][0]
    assert float(rows[0]["score"]) == pytest.approx(expected, rel=1e-5)


def test_unreadable_images_are_skipped_listed_and_change_the_exit_status(model, good, tmp_path):
    queries = tmp_path / "queries"
    queries.mkdir()
    (queries / "ok.png").write_bytes((good / "001.png").read_bytes())
    (queries / "broken.png").write_text("no picture")
    (queries / "empty.png").touch()
    output = anogan("score", model, queries, "-o", tmp_path / "out", status=3)
    assert "Skipped 2" in output and "broken.png" in output and "empty.png" in output
    assert len(list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))) == 1
    skipped = list(csv.DictReader((tmp_path / "out" / "skipped.csv").open()))
    assert [row["file"].rsplit("/", 1)[1] for row in skipped] == ["broken.png", "empty.png"]


@pytest.mark.usefixtures("networks")
@pytest.mark.promise("as written")
def test_demo_writes_everything(tmp_path):
    anogan("demo", "-o", tmp_path / "demo", "--epochs", "1", "--steps", "2")
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    pictures = {"contact_sheet.png", "roc.png", "histogram.png"}
    assert names == {"scores.csv", *pictures, "metrics.json", "report", "model.keras", "model.train"}
    assert {path.name for path in (tmp_path / "demo" / "report").iterdir()} == {"report.html", "metrics.json"}
    numbers = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    wanted = {"auroc", "auroc_residual", "auroc_discrimination", "auroc_pca", "seconds_training", "seconds_scoring"}
    assert wanted <= numbers.keys() and numbers["auroc_pca"] == pytest.approx(0.978, abs=0.002)
    assert len((tmp_path / "demo" / "scores.csv").read_text().splitlines()) == 607
    assert len(AnoGAN.load(tmp_path / "demo" / "model.keras").calibration.scores) == 200


def test_output_that_exists_is_kept(model, good, tmp_path):
    before = model.read_bytes()
    assert "pass --overwrite" in anogan("train", good, "-o", model, status=1)
    (tmp_path / "mine.txt").touch()
    assert "isn't empty" in anogan("score", model, good, "-o", tmp_path, status=1)
    assert "isn't empty" in anogan("demo", "-o", tmp_path, status=1)
    assert "is a file" in anogan("score", model, good, "-o", tmp_path / "mine.txt", status=1)
    assert model.read_bytes() == before


def test_errors_are_one_line_that_names_the_remedy(good, tmp_path):
    text = tmp_path / "text.keras"
    text.write_text("hello")
    empty = tmp_path / "empty"
    empty.mkdir()
    few = tmp_path / "few"
    few.mkdir()
    for index in range(19):
        (few / f"{index}.png").write_bytes((good / f"{index:03d}.png").read_bytes())
    model = tmp_path / "new.keras"
    cases = {
        "is not a .keras model file": ("score", text, good, "-o", tmp_path / "out"),
        "no such model file": ("score", tmp_path / "none.keras", good, "-o", tmp_path / "out"),
        "holds no images": ("train", empty, "-o", model),
        "no such file or folder": ("train", tmp_path / "nowhere", "-o", model),
        "19 normal images are too few": ("train", few, "-o", model, *FAST),
        "must end in .keras": ("train", good, "-o", tmp_path / "model.h5"),
        "divisible by 4": ("train", good, "-o", model, "--size", "30"),
        "at least 99 are needed": ("train", good, "-o", model, "--fpr", "0.01", *FAST),
    }
    for message, arguments in cases.items():
        assert message in anogan(*arguments, status=1), message
    assert not model.exists() and not model.with_suffix(".train").exists()


@pytest.mark.parametrize("gpus", [[], ["a GPU"]])
def test_a_gpu_is_told_to_repeat_itself(gpus, monkeypatch):
    told = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: told.append(True))
    with console.loading():
        assert told == [True] * len(gpus)


def test_an_interrupt_loses_no_model(model, good, monkeypatch):
    state = model.with_suffix(".train")
    before = model.read_bytes(), {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(GAN, "fit", interrupt)
    assert "Interrupted" in anogan("train", good, "-o", model, "--overwrite", *FAST, status=130)
    assert before == (model.read_bytes(), {path: path.read_bytes() for path in state.rglob("*") if path.is_file()})


def test_help_names_the_librarys_defaults(monkeypatch):
    """The help can't import them: that would take seconds."""
    monkeypatch.setenv("COLUMNS", "160")  # long names are cut on a narrow page
    settings = SearchSettings()
    steps = f"{SearchSettings(mode='refine').steps}, or {settings.steps} without encoder"
    text = anogan("train", "--help")
    epochs = f"{parts.EPOCHS} or {parts.MIN_STEPS:,} steps, {train.TILE_EPOCHS} for patches"
    defaults = {"epochs": epochs, "steps": steps, "weight": settings.weight, "restarts": settings.restarts}
    defaults |= {"patches": train.TILES, "comparator-steps": train.STEPS}
    defaults |= {name.replace("_", "-"): f"{value}, for patches 0" for name, value in HELPING.items()}
    defaults |= {"complexity-deviation": f"{HELPING['complexity_deviation']} of normalized images, else 0"}
    for name, value in {**defaults, "latent-dim": LATENT_DIM, "batch-size": TRAINING_BATCH}.items():
        described = text.split(f"--{name} ")[1].split("--")[0]
        assert f"({value})" in " ".join(described.replace("│", " ").split()), name


def test_nothing_scored_is_said(model, tmp_path):
    (tmp_path / "broken.png").touch()
    assert "No image could be scored" in anogan("score", model, tmp_path / "broken.png", "-o", tmp_path / "out", status=3)


def test_usage_errors_have_status_2():
    assert "Missing" in anogan("train", status=2)
    assert "--steps" in anogan("demo", "--steps", "-1", status=2)
    train = ("train", ".", "-o", "x.keras")
    assert "HEIGHTxWIDTH" in anogan(*train, "--size", "big", status=2)
    assert "1 channel (grey)" in anogan(*train, "--channels", "2", status=2)
    assert "between 0 and 1" in anogan(*train, "--fpr", "1.5", status=2)


@pytest.mark.promise("as written")
def test_export_writes_the_next_version(model, tmp_path):
    base = tmp_path / "serving" / "boots"
    assert f"Wrote {base / '1'}" in anogan("export", model, base)
    assert f"Wrote {base / '2'}" in anogan("export", model, base, "--threshold", 7.5, "--no-warm-up")
    assert [(base / version / warmup.FILE).exists() for version in ("1", "2")] == [True, False]
    first, second = (tf.saved_model.load(base / version).signatures["serving_default"] for version in ("1", "2"))
    images = tf.zeros((1, 16, 16, 1))
    assert first(images=images)["threshold"].numpy() == np.float32(AnoGAN.load(model).threshold)
    assert second(images=images)["threshold"].numpy() == 7.5


def test_export_says_what_is_missing(tiny_gan, model, tmp_path):
    AnoGAN.from_gan(tiny_gan).save(tmp_path / "bare.keras")
    assert "bare.keras has no threshold: give one with --threshold" in anogan(
        "export", tmp_path / "bare.keras", tmp_path / "base", status=1
    )
    anogan("export", tmp_path / "bare.keras", tmp_path / "base", "--threshold", 1, "--no-warm-up")
    (tmp_path / "file").touch()
    assert "file is a file; name a folder" in anogan("export", model, tmp_path / "file", status=1)
    assert "nowhere.keras: no such model file" in anogan("export", tmp_path / "nowhere.keras", tmp_path / "b", status=1)
    assert not (tmp_path / "b").exists()


@pytest.mark.usefixtures("networks")
@pytest.mark.promise("tiles")
def test_patches_of_large_images_from_a_benchmark_layout(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "SCENES", 1)  # as few as there are images
    rng = np.random.default_rng(0)
    for row in range(110):
        path = tmp_path / "set" / "train" / "good" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 65536, (rng.integers(30, 60), 50)).astype(np.uint16)).save(path)
    for name in ("good/a", "crack/b"):
        (tmp_path / "set" / "test" / name).parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (90, 50), np.uint8)).save(tmp_path / "set" / "test" / f"{name}.png")
    (tmp_path / "set" / "test" / "crack" / "c.png").touch()
    model, out = tmp_path / "m.keras", tmp_path / "out"
    options = [
        "--patch",
        16,
        "--stride",
        12,
        "--scale",
        0.5,
        "--top",
        3,
        "--patches",
        200,
        "--augment",
        "mirror,rotate",
        "--normalize",
        "--comparator-steps",
        2,
    ]
    output = anogan("train", tmp_path / "set", "-o", model, *FAST[2:], *options)
    assert "16x16 grey patches" in output and "is black" in output
    detector = AnoGAN.load(model)
    assert detector.comparator is not None and detector.patch_memory.count > 100 and detector.score_settings.score == "complexity"
    assert detector.tiling == Tiling(12, 3) and detector.preprocessing.augment == ("mirror", "rotate")
    assert (
        detector.preprocessing.scale == 0.5 and detector.preprocessing.normalize and detector.preprocessing.value_range[1] > 60000
    )
    assert GAN.load(model.with_suffix(".train") / "gan.keras").optimizer.iterations.numpy() == 2 * 60 // 16  # 2 of each image
    anogan("score", model, tmp_path / "set", "-o", out, "--maps", status=3)
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert [(row["file"].rsplit("/", 1)[1], row["truth"]) for row in rows] == [("b.png", "crack"), ("a.png", "good")]
    assert Image.open(out / "maps" / "000000-crack-b.tiff").size == (25, 45) and Image.open(out / rows[0]["heatmap"]).size == (
        50,
        90,
    )
    anogan("score", model, tmp_path / "set", "-o", tmp_path / "all", "--split", "all", "--no-heatmaps", status=3)
    assert len(list(csv.DictReader((tmp_path / "all" / "scores.csv").open()))) == 112
    assert not (tmp_path / "all" / "heatmaps").exists()
    assert "c.png: not a readable image" in anogan("score", model, tmp_path / "set", "-o", tmp_path / "s", "--strict", status=1)
    assert f"Wrote {tmp_path / 'serving' / '1'}" in anogan("export", model, tmp_path / "serving", "--no-warm-up")


@pytest.mark.usefixtures("networks")
def test_a_set_of_record_files(good, tmp_path):
    where = ("--data-dir", tmp_path / "sets")
    assert "anogan train --tfds boots" in anogan("prepare", good, "--name", "boots", *where)
    anogan("train", "--tfds", "boots:1.0.0", *where, "-o", tmp_path / "m.keras", *FAST)
    output = anogan("score", tmp_path / "m.keras", "--tfds", "boots", *where, "-o", tmp_path / "out")
    assert "of 110 images" in output
    one_of_both = "Name images (folders, files or tables), or a set with --tfds"
    assert one_of_both in anogan("score", tmp_path / "m.keras", "-o", tmp_path / "o", status=1)
    assert one_of_both in anogan("score", tmp_path / "m.keras", good, "--tfds", "boots", "-o", tmp_path / "o", status=1)
    assert "knows no such set" in anogan("train", "--tfds", "nothing_like_it", *where, "-o", tmp_path / "n.keras", status=1)


def test_options_that_do_not_go_together(good, tmp_path):
    train = ("train", good, "-o", tmp_path / "m.keras")
    assert "are for patches" in anogan(*train, "--stride", 8, "--size", 28, status=1)
    assert "--comparator counts only in the score 'complexity'" in anogan(*train, "--comparator", "--score", "loss", status=1)
    assert "give --comparator too" in anogan(*train, "--comparator-steps", 5, status=1)
    assert "would leave gaps" in anogan(*train, "--patch", 16, "--stride", 17, status=1)
    assert "scale=0.5 is for images of their own size" in anogan(*train, "--patch", 16, "--size", 28, "--scale", 0.5, status=1)
    assert "'turn' not among" in anogan(*train, "--augment", "turn", status=1)
    assert "give two numbers" in anogan(*train, "--range", "4095", status=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("networks")
def test_what_was_trained_on_is_not_scored_unawares(good, tmp_path):
    rows = [("path", "label"), *((f"{row:03d}.png", "A" if row else "B") for row in range(110))]
    with open(tmp_path / "parts.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    source = [tmp_path / "parts.csv", "--root", good]
    train = ("train", *source, "-o", tmp_path / "m.keras", *FAST)
    assert "name the one that is normal" in anogan(*train, status=1)
    assert "needs an encoder" in anogan(*train, "--normal-class", "A", "--no-encoder", "--mode", "refine", status=1)
    for idle in (("--self-supervision", "0.5"), ("--memory-bank", "9"), ("--complexity-deviation", "0.5")):
        assert f"{idle[0]} counts only in the score" in anogan(*train, "--normal-class", "A", "--score", "loss", *idle, status=1)
    np.save(good.parent / "more.npy", np.zeros((40, 28, 28), np.uint8))
    source.append(good.parent / "more.npy")
    anogan("train", *source, "-o", tmp_path / "m.keras", *FAST, "--normal-class", "A")
    score = ("score", tmp_path / "m.keras", *source)
    assert "name the one that is normal" in anogan(*score, "-o", tmp_path / "a", status=1)
    assert "Left out 87 images" in anogan(*score, "-o", tmp_path / "b", "--normal-class", "A")
    names = {row["file"] for row in csv.DictReader((tmp_path / "b" / "scores.csv").open())}
    assert len(names) == 63 and str(good / "000.png") in names


def test_evaluate_writes_a_report(good, model, tmp_path, boots):
    data = tmp_path / "data"
    for label, images in (("good", boots.train[200:230]), ("sandal", boots.test[-6:])):
        (data / "test" / label).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(data / "test" / label / f"{index}.png")
    (data / "train" / "good").mkdir(parents=True)
    for index, image in enumerate(boots.train[:40]):
        Image.fromarray(image).save(data / "train" / "good" / f"{index}.png")
    output = anogan("evaluate", model, data, "-o", tmp_path / "out", "--title", "My boots")
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["title"] == "My boots" and numbers["images"] == {"normal": 30, "anomalous": 6, "skipped": {}}
    assert [kind["kind"] for kind in numbers["kinds"]] == ["sandal"] and "auroc" in output
    assert any(name.startswith("PCA") for name in numbers["comparisons"])
    assert "exists and isn't empty" in anogan("evaluate", model, data, "-o", tmp_path / "out", status=1)


@pytest.mark.promise("as written")
def test_evaluate_draws_defects_on_what_was_held_out(good, model, tmp_path):
    assert "--synthetic" in anogan("evaluate", model, good, "-o", tmp_path / "none", status=1)
    anogan("evaluate", model, good, "-o", tmp_path / "out", "--synthetic")
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["synthetic"] and numbers["images"]["normal"] == numbers["images"]["anomalous"] == 50
    assert numbers["pixel"]["regions"] >= 50 and numbers["used"] == {"trained": 0, "held_out": 50}

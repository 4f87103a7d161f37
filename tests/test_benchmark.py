"""The protocols of the tables on sets so small that they take seconds; what they write, and where they go on."""

import functools
import gzip
import json
import struct

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.evaluation import baselines, metrics, plots
from anogan_tf.workflows import parts, train
from benchmarks import one_class, tiles
from benchmarks.__main__ import app


def write_idx(folder, name, array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    (folder / name).write_bytes(gzip.compress(head + array.tobytes()))


@pytest.fixture(scope="module")
def digits(tmp_path_factory, boots):
    """Ten classes: 0 is boots, the others what the test images show, 110 boots to train on."""
    folder = tmp_path_factory.mktemp("idx")
    others = boots.test[boots.test_label == 1]
    train = np.concatenate([boots.train[:110], others[:9]])
    test = np.concatenate([boots.train[110:122], others[9:54]])
    labels = np.arange(45) % 9 + 1
    for name, pixels, kinds in (("train", train, [0] * 110 + list(range(1, 10))), ("t10k", test, [0] * 12 + labels.tolist())):
        write_idx(folder, f"{name}-images-idx3-ubyte.gz", pixels)
        write_idx(folder, f"{name}-labels-idx1-ubyte.gz", np.array(kinds, np.uint8))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(one_class, "SAMPLE", 20)
    settings = {"paper": one_class.PAPER, "gan_r": baselines.GAN_R, "lambda=0.5": {**one_class.PAPER, "weight": 0.5}}
    short = {name: one_class._search(sampled=True, **{**one, "steps": 2}) for name, one in settings.items()}
    methods = {**one_class.METHODS, **short}
    monkeypatch.setattr(one_class, "METHODS", methods)
    monkeypatch.setattr(one_class, "train_networks", functools.partial(one_class.train_networks, base_filters=8))


@pytest.mark.usefixtures("networks")
def test_every_method_has_its_row(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(one_class, "STEPS", 3)  # of the comparator
    names = (*one_class.DEFAULT_METHODS, "neighbours", "neighbours_comparator", "wgan-gp", "lambda=0.5")
    rows = one_class.run_benchmark("mnist", digits, tmp_path, classes=["0"], methods=names, epochs=1)
    assert {row["method"] for row in rows} == set(names)
    for row in rows:
        sampled = row["method"] in ("paper", "gan_r", "lambda=0.5")
        assert row["n_normal"] + row["n_anomalous"] == (22 if sampled else 57), row  # of each class its rounded share
        assert (row["dataset"], row["normal_class"], row["seed"]) == ("mnist", "0", 0)
        assert 0.0 <= row["auroc"] <= 1.0 and row["seconds"] >= 0.0 and row["versions"]["keras"]
    by_method = {row["method"]: row for row in rows}
    assert by_method["lambda=0.5"]["config"]["weight"] == 0.5 and by_method["gan_r"]["config"]["loss"] == "reference"
    assert by_method["paper"]["config"]["keep"] == "last" and by_method["refine"]["config"]["mode"] == "refine"
    assert by_method["p_d"]["training_seconds"] > 0.0 and by_method["pca"]["training_seconds"] is None
    assert by_method["neighbours_comparator"]["auroc"] != by_method["neighbours"]["auroc"]
    task = one_class.read_set(digits)("0")
    pca = baselines.pca_residual(task.train, task.test, Preprocessing((28, 28, 1)))
    assert by_method["pca"]["auroc"] == round(metrics.auroc(task.labels, pca), 4)
    detector = AnoGAN.load(next((tmp_path / "models").glob("mnist-0-seed0-*-dcgan.keras")))
    assert by_method["refine"]["auroc"] == round(metrics.auroc(task.labels, detector.predict(task.test, verbose=0)["score"]), 4)


@pytest.mark.usefixtures("networks")
def test_mistakes_are_the_anomalies_scored_lowest_and_the_normals_scored_highest(digits, tmp_path, monkeypatch):
    sheets = []
    monkeypatch.setattr(one_class.plots, "contact_sheet", lambda *sheet, columns: sheets.append(sheet))
    monkeypatch.setattr(one_class.plots, "save_figure", lambda figure, path: path.touch())
    monkeypatch.setattr(one_class, "MISTAKES", 4)
    paths = one_class.draw_mistakes("mnist", digits, tmp_path, "complexity", classes=["0"], epochs=1)
    assert [path.name for path in paths] == ["mnist-complexity-misses.png", "mnist-complexity-false-alarms.png"]
    task = one_class.read_set(digits)("0")
    run = one_class.Run(
        task,
        next((tmp_path / "models").glob("*.keras")).with_name("mnist-0-seed0-latent16-epochs1"),
        seed=0,
        epochs=1,
        normalize=False,
    )
    scores = one_class.METHODS["complexity"].score(run, np.arange(57))
    for (queries, made, heat, titles), label, order in zip(sheets, (1, 0), (scores, -scores)):
        rows = [row for row in np.argsort(order, kind="stable") if task.labels[row] == label][:4]
        np.testing.assert_allclose(queries, task.test[rows] / 255.0, atol=1e-6)
        assert titles == tuple(f"{task.kinds[row]}, normal is 0: {scores[row]:.3g}" for row in rows)
        assert np.shape(made) == (4, 28, 28, 1) and np.shape(heat) == (4, 28, 28)
    with pytest.raises(ValueError, match="pca has no reconstructions to show; there are encoder, refine, complexity"):
        one_class.draw_mistakes("mnist", digits, tmp_path, "pca", classes=["0"])


@pytest.mark.usefixtures("networks")
def test_what_calibrates_the_surprise_was_not_trained_on(digits, tmp_path, monkeypatch):
    task, trained = one_class.read_set(digits)("0"), []

    def stop(pixels, *arguments, **options):
        trained.extend(picture.tobytes() for picture in pixels)
        raise InterruptedError

    monkeypatch.setattr(one_class, "train_networks", stop)
    run = one_class.Run(task, tmp_path / "kept", seed=0, epochs=1, normalize=False)
    with pytest.raises(InterruptedError):
        run.detector(self_supervision=0.5)
    held_out = [picture.tobytes() for picture in run.held_out]
    assert len(held_out) == 50 and sorted(trained + held_out) == sorted(picture.tobytes() for picture in task.train)


@pytest.mark.usefixtures("networks")
def test_what_has_its_row_isn_t_run_again(digits, tmp_path, monkeypatch):
    run = []
    counted = one_class.METHODS["pca"]._replace(score=lambda one, rows: run.append(one) or rows)
    monkeypatch.setitem(one_class.METHODS, "pca", counted)
    options = {"methods": ["pca"], "seeds": 2}
    one_class.run_benchmark("mnist", digits, tmp_path, classes=["0"], **options)
    rows = one_class.run_benchmark("mnist", digits, tmp_path, classes=["0", "3"], **options)
    assert [row["normal_class"] for row in rows] == ["0", "3"] and len(run) == 2  # a baseline knows no seed
    assert one_class.run_benchmark("mnist", "nowhere", tmp_path, classes=["0", "3"], **options) == rows
    monkeypatch.setitem(one_class.METHODS, "pca", counted._replace(config={"components": 8}))
    assert len(one_class.run_benchmark("mnist", digits, tmp_path, classes=["0"], **options)) == 3  # another run


def test_the_command_says_what_is_compared_by_default(monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 300)  # which is read when it is first imported
    help_of_mnist = CliRunner().invoke(app, ["mnist", "--help"]).output
    assert ",".join(one_class.DEFAULT_METHODS) in help_of_mnist


def test_a_damaged_row_is_named(tmp_path):
    (tmp_path / "mnist.jsonl").write_text('{"a": 1}\n{"a": 2')
    with pytest.raises(ValueError, match="mnist.jsonl, line 2 is no row"):
        one_class.read_rows(tmp_path / "mnist.jsonl")


def test_the_table_has_published_rows_and_means_once_they_are_whole(tmp_path):
    counts = {"seconds": 0.5, "n_normal": 100, "n_anomalous": 900}
    for kind in one_class.DIGITS:
        for seed in (0, 1):
            row = {"normal_class": kind, "seed": seed, "method": "refine", "auroc": 0.9 + 0.02 * seed, "config": {"epochs": 9}}
            row |= counts
            one_class.append_row(tmp_path / "mnist.jsonl", {**row, "auroc": 0.1, "config": {"epochs": 1}})
            one_class.append_row(tmp_path / "mnist.jsonl", row)
    p_d = {"normal_class": "4", "seed": 0, "method": "p_d", "auroc": 0.5, "config": {}, **counts, "seconds": 37.2}
    one_class.append_row(tmp_path / "mnist.jsonl", p_d)
    one_class.write_table("mnist", tmp_path)
    lines = [line for line in (tmp_path / "mnist.md").read_text().splitlines() if line.startswith("|")]
    assert lines[2].startswith("| AnoGAN, as published by Ruff et al. 2018 |  | 96.6 |") and lines[2].endswith("| 91.3 |  |")
    assert lines[3] == "| P_D | 1 |  |  |  |  | 50.0 |  |  |  |  |  |  | 37 |"
    assert lines[4] == "| AnoGAN, `refine` | 2 |" + " 91.0 |" * 11 + " 0.5 |"


def test_a_table_of_tiles_shows_one_configuration(tmp_path):
    row = {
        "method": "refine",
        "defect": "crack",
        "seed": 0,
        "auroc": 0.5,
        "pixel_auroc": 0.9,
        "pro": 0.7,
        "config": {"epochs": 20},
    }
    for one in ({**row, "seed": 1, "pro": 0.1, "config": {"epochs": 1}}, row):
        one_class.append_row(tmp_path / "tiles.jsonl", one)
    tiles.write_table(tmp_path)
    assert "| AnoGAN, `refine` | PRO | 1 |  | 70.0 |  |  |  |  |" in (tmp_path / "tiles.md").read_text()


def test_published_rows_are_whole():
    for one in one_class.BENCHMARKS.values():
        for values in one.published.values():
            assert len(values) == len(one.classes) + 1
            if values[0] is not None:
                assert np.mean(values[:-1]) == pytest.approx(values[-1], abs=0.1)  # from unrounded ones


def test_a_sample_has_each_class_in_proportion():
    kinds = np.repeat([0, 1, 2], [500, 300, 200])
    rows = one_class.sample_rows(kinds, 100)
    assert np.bincount(kinds[rows]).tolist() == [50, 30, 20] and len(set(rows)) == 100
    np.testing.assert_array_equal(rows, one_class.sample_rows(kinds, 100))
    np.testing.assert_array_equal(one_class.sample_rows(kinds[:50], 100), np.arange(50))


def test_wrong_names_are_named(digits, tmp_path):
    with pytest.raises(ValueError, match="pcaa: no such method; there are pca, .* gamma"):
        one_class.run_benchmark("mnist", digits, tmp_path, methods=["pcaa"])
    with pytest.raises(ValueError, match="12: mnist has no such class"):
        one_class.run_benchmark("mnist", digits, tmp_path, classes=["12"])
    assert one_class.resolve_methods(["gamma", "pca"])[0] == "pca" and "gamma=100" in one_class.resolve_methods(["gamma"])


def test_a_set_without_labels_is_refused(tmp_path, boots):
    np.save(tmp_path / "images.npy", boots.train[:10])
    with pytest.raises(ValueError, match="without a label or a split"):
        one_class.read_set(tmp_path)


@pytest.fixture(scope="module")
def tile_set(tmp_path_factory):
    """Good tiles in groups, two kinds of defects; one group mixes both."""
    folder, rng, table = tmp_path_factory.mktemp("tiles"), np.random.default_rng(0), ["file,class,exposure,group"]
    for kind, count in (("MT_Free", 130), ("MT_Crack", 4), ("MT_Fray", 3)):
        (folder / kind / "Imgs").mkdir(parents=True)
        for number in range(count):
            image = np.uint8(rng.integers(60, 130, (80, 96)))
            mask = np.zeros_like(image)
            if kind != "MT_Free":
                mask[20:44, 30:60] = 255
                image[mask > 0] = 250
            name = f"{kind}/Imgs/{number:03d}"
            Image.fromarray(image).save(folder / f"{name}.jpg")
            Image.fromarray(mask).save(folder / f"{name}.png")
            group = 0 if number == 0 else f"{kind}{number // 2}"
            table.append(f"{name}.jpg,{kind},1,{group}")
    (folder / "groups.csv").write_text("\n".join(table) + "\n")
    return folder


def test_groups_lie_on_one_side(tile_set):
    entries = tiles.read_tiles(tile_set).entries
    sides = {}
    for entry in entries:
        assert sides.setdefault(entry.group, entry.split) == entry.split
    assert sides["0"] == "test" and {entry.label for entry in entries} == {"good", "crack", "fray"}
    assert all(bool(entry.masks) != entry.normal for entry in entries)


@pytest.mark.usefixtures("networks")
def test_tiles_by_kind_of_defect(tile_set, tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "TILES", 200)
    monkeypatch.setattr(parts, "SCENES", 1)
    monkeypatch.setattr(train, "STEPS", 2)
    options = {"defects": ["crack", "fray"], "methods": ["pca", "pca_complexity", "encoder", "complexity", "comparator"]}
    options["epochs"] = 1
    rows = tiles.run_tiles(tile_set, tmp_path, **options)
    assert [(row["method"], row["half"], row["defect"]) for row in rows] == [
        (method, half, defect) for method in options["methods"] for half in ("all", "final") for defect in ("crack", "fray")
    ]
    assert all(
        row["pixel_auroc"] > 0.9 and row["pro"] > 0.5 and row["auroc"] > 0.9 for row in rows if row["method"].startswith("pca")
    )
    assert [row["pixel_auroc"] for row in rows[:4]] == [row["pixel_auroc"] for row in rows[4:8]]  # the same maps
    assert rows[8]["config"]["score"] == "loss" and rows[12]["config"]["anomaly_map"] == 0
    assert (rows[0]["n_anomalous"], rows[1]["n_anomalous"]) == (4, 3)
    assert tiles.run_tiles("nowhere", tmp_path, **options) == rows
    table = (tmp_path / "tiles.md").read_text()
    assert table.count("| AnoGAN, `encoder` |") == 6 and "| PRO |" in table
    assert "## Final half" in table and "## Development" not in table
    with pytest.raises(ValueError, match="no pictures of the kind 'blowhole'"):
        tiles.run_tiles(tile_set, tmp_path, methods=["pca"], epochs=1)
    drawn, sheet = [], plots.contact_sheet
    monkeypatch.setattr(plots, "contact_sheet", lambda *pictures, columns: drawn.append(pictures) or sheet(*pictures))
    monkeypatch.setattr(tiles, "MISTAKES", 3)
    paths = tiles.draw_mistakes(tile_set, tmp_path, "pca_complexity", epochs=1)
    assert [path.name for path in paths] == ["tiles-pca_complexity-misses.png", "tiles-pca_complexity-false-alarms.png"]
    titles = [[title.split(": ") for title in one[3]] for one in drawn]
    assert [len(one) for one in titles] == [3, 3] and all(kind == "good" for kind, _ in titles[1])
    assert not any(kind == "good" for kind, _ in titles[0])
    for found, order in zip(titles, (1, -1)):
        scores = [float(score) for _, score in found]
        assert scores == sorted(scores, reverse=order < 0)
    with pytest.raises(ValueError, match="magic: no such method"):
        tiles.draw_mistakes(tile_set, tmp_path, "magic")


def test_tiles_without_groups_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="groups.csv is missing"):
        tiles.read_tiles(tmp_path)
    with pytest.raises(ValueError, match="rust: no such kind of defect"):
        tiles.run_tiles(tmp_path, tmp_path, defects=["rust"])


@pytest.mark.usefixtures("networks")
def test_a_linear_network_is_a_pca(boots):
    pixels = boots.train[:200, ..., np.newaxis] / np.float32(255)
    detector = baselines.pca_detector(pixels, (28, 28, 1), 16)
    scores = detector.predict(boots.test[:50], verbose=0)["score"]
    expected = baselines.pca_residual(boots.train[:200], boots.test[:50], detector.preprocessing, 16)
    np.testing.assert_allclose(scores, expected * 4.0 / 784, rtol=1e-3)  # a mean, and the range of networks is 2


def test_a_row_survives_as_json(tmp_path):
    one_class.append_row(tmp_path / "x.jsonl", {"a": 1})
    one_class.append_row(tmp_path / "x.jsonl", {"a": None})
    assert one_class.read_rows(tmp_path / "x.jsonl") == [{"a": 1}, {"a": None}]
    assert [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()] == [{"a": 1}, {"a": None}]


def test_the_command_runs_a_protocol(tmp_path, boots):
    parts = {"train_images": boots.train[:40], "train_labels": np.zeros((40, 1), np.uint8)}
    parts |= {"test_images": boots.test[::20], "test_labels": boots.test_label[::20, np.newaxis]}
    np.savez(tmp_path / "pneumoniamnist.npz", **parts)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, " ".join(result.output.split())

    arguments = ["pneumonia", "--data", tmp_path / "pneumoniamnist.npz", "-o", tmp_path / "out"]
    assert run(*arguments, "--methods", "pca,knn")[0] == 0
    assert len((tmp_path / "out" / "pneumonia.jsonl").read_text().splitlines()) == 2
    assert "| PCA-32, squared residual |" in (tmp_path / "out" / "pneumonia.md").read_text()
    status, said = run(*arguments, "--methods", "pcb")
    assert status == 1 and "no such method" in said
    status, said = run("tiles", "--data", tmp_path, "-o", tmp_path / "tiles")
    assert status == 1 and "groups.csv is missing" in said

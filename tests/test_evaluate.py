"""Evaluation and its report on a small detector of real boots, and on tiles with masks."""

import html.parser
import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from anogan_tf.data.entries import absolute_name
from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.data.sources import ArraySource, FileSource
from anogan_tf.data.synthetic import SyntheticSource
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.maps import smooth
from anogan_tf.detection.memory_bank import MemoryBank
from anogan_tf.detection.tiling import Tiling
from anogan_tf.evaluation import baselines, metrics
from anogan_tf.evaluation.evaluate import _embed, choose_shown, evaluate, show, synthetic_rows
from anogan_tf.evaluation.report import write_report
from anogan_tf.training.gan import GAN
from anogan_tf.workflows.splits import load_training_names


@pytest.fixture(scope="module")
def detector(trained_gan, trained_encoder, boots):
    return AnoGAN.from_gan(trained_gan, trained_encoder, steps=3).calibrate(boots.train[1900:])


@pytest.fixture(scope="module")
def quick(detector, boots):
    """One that doesn't search, so that no loss is followed over its steps."""
    return detector.with_settings(mode="encoder").calibrate(boots.train[1900:])


@pytest.fixture(scope="module")
def source(boots):
    """40 boots to fit baselines to, 40 boots and 40 others to test."""
    rows = np.concatenate([np.flatnonzero(boots.test_label == label)[:40] for label in (0, 1)])
    kinds = ["boot"] * 80 + [f"class {kind} <b>" for kind in boots.test_class[rows[40:]]]
    pixels = np.concatenate([boots.train[:40], boots.test[rows]])
    return ArraySource(pixels, kinds, "boot", splits=["train"] * 40 + ["test"] * 80)


@pytest.fixture(scope="module")
def evaluation(detector, source):
    return evaluate(detector, source)


def test_scores_are_those_of_predict(detector, source, evaluation):
    pixels = np.stack([source.read(row).pixels for row in evaluation.rows])
    expected = detector.predict(pixels, verbose=0)
    for name in ("score", "p_value", "is_anomaly", "steps"):
        np.testing.assert_array_equal(evaluation.results[name], expected[name])
    np.testing.assert_allclose(
        evaluation.comparisons["P_D"], baselines.discriminator_score(detector, pixels), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(evaluation.labels, np.repeat([0, 1], 40))


def test_probes_are_fitted_to_the_training_side(source, evaluation):
    pixels = [np.stack([source.read(row).pixels for row in rows]) for rows in (range(40), range(40, 120))]
    for name, baseline in baselines.BASELINES.items():
        expected = baseline(*pixels, Preprocessing((28, 28, 1)))
        np.testing.assert_allclose(evaluation.comparisons[name], expected, rtol=2e-2, err_msg=name)


def test_a_score_by_complexity_has_the_loss_beside_it(detector, source, evaluation, tmp_path, boots):
    relative = detector.with_settings(score="complexity").calibrate(boots.train[1900:])
    numbers, found = write_report(relative, source, tmp_path, title="boots")
    np.testing.assert_allclose(found.comparisons["A"], evaluation.results["score"], rtol=1e-5)
    assert found.loss_curve == evaluation.loss_curve
    names = list(numbers["comparisons"])
    assert names[:4] == ["A, by complexity", "A", "R", "D"]
    assert set(baselines.BY_COMPLEXITY) < set(names) and not set(baselines.BY_COMPLEXITY) & set(evaluation.comparisons)
    assert "standard deviations the logarithm of A" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("networks")
def test_a_score_with_surprise_says_so(source, tmp_path, boots):
    gan = GAN((28, 28, 1), base_filters=4, self_supervision=0.5)
    gan.compile()
    detector = AnoGAN.from_gan(gan, steps=1, candidates=1, score="complexity").calibrate(boots.train[1950:])
    numbers, _ = write_report(detector, source, tmp_path, title="boots")
    assert list(numbers["comparisons"])[0] == numbers["score"] == "A, by complexity and pretext"
    assert "turns and shifts" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("networks")
def test_terms_of_a_score_are_named_and_explained(source, tmp_path, boots):
    gan = GAN((28, 28, 1), base_filters=4)
    gan.compile()
    memory = MemoryBank.of(gan.preprocessing(boots.train[:100]))
    detector = AnoGAN.from_gan(gan, steps=1, candidates=1, score="complexity", complexity_deviation=0.5, memory_bank=memory)
    numbers, _ = write_report(detector.calibrate(boots.train[1950:]), source, tmp_path, title="boots")
    assert numbers["score"] == "A, by complexity, neighbours and complexity deviation"
    text = (tmp_path / "report.html").read_text()
    assert "nearest normal images of its memory" in text and "All of them are added" in text and "turns and shifts" not in text


def test_a_peak_is_called_one(detector, source, tmp_path, boots):
    numbers, found = write_report(
        detector.with_settings(score="peak").calibrate(boots.train[1950:]), source, tmp_path, title="boots"
    )
    assert list(numbers["comparisons"])[:2] == ["peak of the residual", "A"] == [numbers["score"], "A"]
    text = (tmp_path / "report.html").read_text()
    assert "highest value of the smoothed residual" in text and "By complexity" not in text
    assert 0.0 < found.results["score"].max() <= 2.0


def test_the_loss_falls_with_the_steps(detector, evaluation):
    steps, curves = evaluation.loss_curve
    assert steps[0] == 0 and steps[-1] == detector.search_settings.steps == 3
    for values in curves.values():
        assert len(values) == len(steps) and all(np.diff(values) <= 0.0)


def test_features_are_embedded_with_their_labels(evaluation):
    points, labels = evaluation.embedding
    assert points.shape == (80, 2) and labels.sum() == 40


def test_what_is_shown(detector, source, evaluation):
    chosen = choose_shown(evaluation, 3)
    scores = evaluation.results["score"]
    anomalies = np.flatnonzero(evaluation.labels & evaluation.results["is_anomaly"])
    assert chosen["hits"] == sorted(anomalies, key=lambda row: -scores[row])[:3]
    shown = show(detector, source, evaluation, chosen["hits"])
    out = detector.predict(np.stack([source.read(evaluation.rows[row]).pixels for row in shown]), verbose=0)
    for row, made in zip(shown, out["reconstruction"]):
        stored = source.read(evaluation.rows[row]).pixels
        np.testing.assert_array_equal(shown[row].query, np.repeat(stored, 3, axis=-1))
        assert np.abs(shown[row].reconstruction / 255.0 - made).max() < 1.0 / 255.0
        assert shown[row].residual.shape == shown[row].overlay.shape == (28, 28, 3) and shown[row].mask is None


def test_without_both_kinds_the_remedy_is_named(detector, boots):
    with pytest.raises(ValueError, match="12 normal images and 0 anomalies .* --synthetic"):
        evaluate(detector, ArraySource(boots.train[:12], [0] * 12))


def test_an_image_that_can_t_be_read_is_skipped(quick, boots, tmp_path):
    for label, rows in (("good", boots.train[:4]), ("bad", boots.test[-4:])):
        (tmp_path / label).mkdir()
        for number, image in enumerate(rows):
            Image.fromarray(image).save(tmp_path / label / f"{number}.png")
    (tmp_path / "bad" / "1.png").write_bytes(b"no image")
    rows = range(8)
    evaluation = evaluate(quick, FileSource.of(tmp_path), rows)
    assert len(evaluation.rows) == 7 and [picture.name[-9:] for picture in evaluation.skipped] == ["bad/1.png"]
    with pytest.raises(ValueError, match="bad/1.png"):
        evaluate(quick, FileSource.of(tmp_path), rows, strict=True)


@pytest.fixture(scope="module")
def patches(trained_gan, trained_encoder):
    """A detector of tiles, and images of several sizes with masks."""
    rng = np.random.default_rng(0)
    images = [np.uint8(rng.integers(60, 120, (40 + 4 * number, 44))) for number in range(10)]
    masks = [None] * 6
    for image in images[6:]:
        mask = np.zeros(image.shape, bool)
        mask[8:20, 10:20] = True
        image[mask] = 250
        masks.append(mask)
    detector = AnoGAN.from_gan(trained_gan, trained_encoder, tiling=Tiling(14), mode="encoder").calibrate(images[:4], 0.3)
    return detector, ArraySource(images, [0] * 6 + [1] * 4, masks=masks)


def test_pixels_are_compared_at_the_size_of_the_stored_image(patches):
    detector, source = patches
    pixels = evaluate(detector, source).all_pixels
    maps = [
        np.asarray(smooth(one[np.newaxis]))[0]
        for one in detector.predict([source.read(row).pixels for row in range(10)])["residual"]
    ]
    truth = [np.zeros(one.shape, bool) if mask is None else mask for one, mask in zip(maps, source.masks(range(10)))]
    expected = metrics.auroc(np.concatenate([one.ravel() for one in truth]), np.concatenate([one.ravel() for one in maps]))
    assert pixels.auroc() == pytest.approx(expected, abs=1e-4)
    assert pixels.regions == 4


def test_a_mask_of_another_size_is_named(patches):
    detector, source = patches
    wrong = ArraySource(source._pixels, [0] * 6 + [1] * 4, masks=[None] * 6 + [np.ones((5, 5), bool)] * 4)
    evaluation = evaluate(detector, wrong)
    assert len(evaluation.rows) == 10 and len(evaluation.skipped) == 4 and evaluation.all_pixels is None
    assert "mask has 5x5 pixels, its image images[6] 64x44" in evaluation.skipped[0].reason
    with pytest.raises(ValueError, match=r"mask has 5x5 pixels, its image images\[6\] 64x44"):
        evaluate(detector, wrong, strict=True)
    empty = ArraySource(source._pixels, [0] * 6 + [1] * 4, masks=[np.zeros(one.shape, bool) for one in source._pixels])
    with pytest.raises(ValueError, match="mask is empty, and images"):
        evaluate(detector, empty, strict=True)


def test_anomalies_without_a_mask_aren_t_counted_as_normal_pixels(patches):
    detector, source = patches
    without = ArraySource(source._pixels, [0] * 6 + [1] * 4)
    evaluation = evaluate(detector, without)
    assert evaluation.all_pixels is None and set(evaluation.pixels) == {"normal"}


class _Page(html.parser.HTMLParser):
    """Images, links to elsewhere and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.images, self.elsewhere, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(attributes)
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name, "")
            if value and not value.startswith(("data:", "#")):
                self.elsewhere.append(value)


@pytest.fixture(scope="module")
def report(detector, source, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    numbers, _ = write_report(detector, source, out, title="Boots & <others>")
    return numbers, out


def test_the_report_is_one_file_with_alt_texts(report):
    _, out = report
    text = (out / "report.html").read_text()
    page = _Page(text)
    assert page.elsewhere == [] and "script" not in page.tags
    assert page.images and all(image["alt"] and image["src"].startswith("data:image/png;base64,") for image in page.images)
    assert page.tags.count("svg") == 5
    assert "Boots &amp; &lt;others&gt;" in text and " &lt;b&gt;</td>" in text  # names are text, not markup
    assert "Synthetic" not in text


def test_identifiers_that_figures_refer_to_are_their_own(report):
    text = (report[1] / "report.html").read_text()
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'xlink:href="#([^"]+)"', text))
    assert used and all(len(re.findall(f'id="{name}"', text)) == 1 for name in used)


def test_the_numbers_are_those_of_the_evaluation(report, evaluation, detector):
    numbers, out = report
    assert json.loads((out / "metrics.json").read_text()) == numbers
    labels, scores = evaluation.labels, evaluation.results["score"]
    assert numbers["image"]["auroc"]["value"] == pytest.approx(metrics.auroc(labels, scores), abs=1e-4)
    assert numbers["confusion"] == metrics.confusion(labels, scores > detector.threshold)
    assert sum(kind["images"] for kind in numbers["kinds"]) == 40
    assert numbers["comparisons"]["A"]["auroc"] == numbers["image"]["auroc"]["value"]
    assert numbers["pixel"] is None and numbers["settings"]["search"]["steps"] == 3


def test_a_report_on_drawn_defects_says_so(quick, boots, tmp_path):
    normals = ArraySource(boots.train[1900:1924], [0] * 24)
    numbers, evaluation = write_report(
        quick, SyntheticSource(normals, range(24)), tmp_path, title="Drawn", baseline_source=normals
    )
    text = (tmp_path / "report.html").read_text()
    assert numbers["synthetic"] and "Synthetic defects." in text
    assert numbers["images"] == {"normal": 24, "anomalous": 24, "skipped": {}}
    assert {kind["kind"] for kind in numbers["kinds"]} == {"scratch", "blot", "missing piece", "texture swap"}
    assert 0.5 < numbers["pixel"]["auroc"] <= 1.0 and "mask" in text
    assert numbers["image"]["auroc"]["value"] > 0.5


def test_defects_are_never_drawn_on_what_was_trained_on(tmp_path, boots, monkeypatch):
    (tmp_path / "good").mkdir()
    for number in range(4):
        Image.fromarray(boots.train[number]).save(tmp_path / "good" / f"{number}.png")
    model, state = tmp_path / "model.keras", tmp_path / "model.train"
    assert synthetic_rows(FileSource.of(tmp_path / "good")) == [0, 1, 2, 3]  # nothing is known of the model
    split = ArraySource(boots.train[:4], [0, 0, 0, 1], splits=["train", "test", "test", "test"])
    assert synthetic_rows(split) == [1, 2]
    state.mkdir()
    for note, numbers in (("held_out.txt", (1, 3)), ("trained.txt", (0, 2))):
        (state / note).write_text("".join(f"{tmp_path / 'good' / str(number)}.png\n" for number in numbers))
    assert synthetic_rows(FileSource.of(tmp_path / "good"), load_training_names(model)[0]) == [1, 3]
    monkeypatch.chdir(tmp_path)  # by whatever path they are named
    assert synthetic_rows(FileSource.of("good"), load_training_names(model)[0]) == [1, 3]
    with pytest.raises(ValueError, match="None of 2 normal images .* trained on"):
        synthetic_rows(FileSource.of(["good/0.png", "good/2.png"]), load_training_names(model)[0])


def test_the_page_tells_what_was_trained_on(quick, source, tmp_path, evaluation):
    names = [f"{entry.name}" for entry in evaluation.entries]
    used = ({absolute_name(entry) for entry in evaluation.entries[:5]}, {absolute_name(evaluation.entries[7])})
    numbers, _ = write_report(quick, source, tmp_path, title="\udcff", used=used)
    assert numbers["used"] == {"trained": 5, "held_out": 1} and len(set(names)) == 80
    text = (tmp_path / "report.html").read_text()
    assert "5 of these images were trained on." in text and "1 of these images set the threshold" in text


def test_a_detector_without_a_threshold_is_refused(trained_gan, source):
    with pytest.raises(ValueError, match="no threshold: call calibrate"):
        evaluate(AnoGAN.from_gan(trained_gan), source)


def test_features_that_don_t_differ_aren_t_embedded():
    same = {normal: [np.ones(5, np.float32)] * 6 for normal in (True, False)}
    assert _embed(same, 0) is None


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_report(report, width, tmp_path, browser):
    """Every image loads, nothing is wider than the screen, and the console stays empty."""
    baseline = """<script>addEventListener("load", () => { document.title = [...document.images].filter(one => one.complete &&
      one.naturalWidth > 0).length + " of " + document.images.length + ", " + (document.documentElement.scrollWidth <=
      innerWidth) })</script></body>"""
    page = tmp_path / "report.html"
    skipped = f"<ul><li>/{'a_long_name_' * 9}.png: it has no end</li></ul></main>"
    page.write_text((report[1] / "report.html").read_text().replace("</body>", baseline).replace("</main>", skipped))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},900"]
    ran = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    loaded, whole, fits = re.search(r"<title>(\d+) of (\d+), (\w+)</title>", ran.stdout).groups()
    assert loaded == whole != "0" and fits == "true"
    assert "CONSOLE" not in ran.stderr

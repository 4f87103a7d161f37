"""The page of `anogan app`: what it answers, and that a browser could ask it. Driving a real browser is not part of the suite."""

import numpy as np
import pytest
from PIL import Image

from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.trajectory import SearchTrajectory
from anogan_tf.networks.architectures import build_encoder
from anogan_tf.workflows import web_app


@pytest.fixture
def detector(tiny_gan, pixels):
    return AnoGAN.from_gan(tiny_gan, build_encoder((16, 16, 1), 4, base_filters=4), steps=2).calibrate(pixels[:30])


@pytest.fixture
def files(tmp_path, boots):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, boots.test):
        Image.fromarray(picture[..., 0]).resize((50, 40)).save(path)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    return [*map(str, paths), str(broken)]


def test_an_answer_is_what_predict_says(detector, files):
    found = web_app.answer(detector, SearchTrajectory(detector), files[0])
    out = detector.predict(np.asarray(Image.open(files[0]))[np.newaxis], verbose=0)
    assert f"score **{out['score'][0]:.4g}**" in found.verdict and f"p = **{out['p_value'][0]:.3f}**" in found.verdict
    assert ("Anomaly" if out["is_anomaly"][0] else "Normal") in found.verdict
    assert found.picture.shape[:2] == found.heat.shape == (40, 50)
    assert [caption for _, caption in found.strip] == ["0 steps", "1 step", "2 steps"]
    np.testing.assert_allclose(found.reconstruction[..., :1] / 255.0, out["reconstruction"][0], atol=0.003)


def test_files_become_a_table_and_a_sentence(detector, files, tmp_path):
    written, sentence = web_app.score_to_csv(detector, files, tmp_path / "out")
    assert [path.rsplit("/", 1)[1] for path in written] == ["scores.csv", "skipped.csv"]
    assert "of 3 images are anomalous. 1 can't be read." in sentence
    with open(written[0]) as file:
        assert [line.split(",")[0] for line in file] == ["file", "0.png", "1.png", "2.png"]


def test_examples_are_those_that_can_be_read_spread_over_all(detector, files):
    assert [path for _, path in web_app.choose_examples(detector, files)] == files[:3]
    ((picture, path),) = web_app.choose_examples(detector, files, count=1)
    assert path == files[0] and picture.shape == (40, 50, 3)
    assert web_app.choose_examples(detector, []) == []


@pytest.mark.promise("as written")
def test_the_page_answers_over_http_and_stays_on_this_machine(detector, files):
    gradio_client = pytest.importorskip("gradio_client")
    page = web_app.run_app(detector, "parts", files[:2], block=False)
    try:
        assert page.local_url.startswith("http://127.0.0.1:") and page.share_url is None and not page.analytics_enabled
        client = gradio_client.Client(page.local_url, verbose=False)
        verdict, picture, *_ = client.predict(gradio_client.handle_file(files[0]), 0.5, api_name="/look")
        assert "threshold" in verdict and picture
        refused, *others = client.predict(gradio_client.handle_file(files[3]), 0.5, api_name="/look")
        assert "broken.png" in refused and not any(others[:1])
    finally:
        page.close()


def test_a_detector_without_a_threshold_is_refused(tiny_detector):
    pytest.importorskip("gradio")
    with pytest.raises(ValueError, match="call calibrate"):
        web_app.build_app(tiny_detector, "parts")

"""The benchmark on networks so small that it takes seconds: its rows, its counting, its report. No time is judged."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.detection.detector import AnoGAN
from anogan_tf.evaluation import metrics
from anogan_tf.networks import architectures
from anogan_tf.runtime.backend import keras
from benchmarks import speed

TINY = (speed.Size(16, "light", 1.0, (20,), 20), speed.Size(20, "light", 0.0, (16,), 0))


@pytest.fixture(scope="module")
def report(tmp_path_factory, boots, networks):
    out = tmp_path_factory.mktemp("speed")
    patch = pytest.MonkeyPatch()
    patch.setattr(speed, "load_embedded", lambda: boots._replace(train=boots.train[:300]))
    for name, value in {"STEPS": 6, "REPEATS": 2, "LADDER": (1, 2), "CURVE": (1, 6), "PASSES": 1, "PASSED": 128}.items():
        patch.setattr(speed, name, value)
    patch.setattr(speed, "TIMED", {**speed.TIMED, "steps": 2})
    patch.setattr(speed, "PAPER", {**speed.PAPER, "steps": 6})
    patch.setattr(speed, "_matmul_gflops", lambda dtype: 100.0)
    patch.setattr(metrics, "auroc_change", functools.partial(metrics.auroc_change, samples=20))
    yield speed.run_speed(out, epochs=1, sizes=TINY), out
    patch.undo()


def test_every_row_has_every_column(report):
    rows = report[0]["rows"]
    assert all(tuple(row) == speed.COLUMNS for row in rows)
    names = [row["name"] for row in rows if row["image_size"] == 16]
    for name in (
        "Keras fit on one image",
        "GradientTape loop, one image",
        "search, blocks of 16",
        "search, no blocks",
        "encoder",
    ):
        assert name in names
    assert any(name.startswith("refine, 1 steps") for name in names)
    assert {row["batch"] for row in rows} == {1, 16, 20, 40}
    assert all(row["ms_per_image"] > 0 for row in rows)
    timed = [row for row in rows if row["gflops"] is not None]
    assert all(row["share_of_ceiling"] == pytest.approx(row["gflops"] / 100.0, abs=1e-3) for row in timed)


def test_what_it_writes_is_what_it_returns(report):
    result, out = report
    assert json.loads((out / "speed.json").read_text()) == json.loads(json.dumps(result))
    text = (out / "speed.md").read_text()
    assert all(f"| {name} |" in text for name in result["ratios"])
    assert (out / "loss_curves.png").stat().st_size > 1000
    assert result["ratios"]["16x16: scores that refilling changes"] == 0


def test_detection_of_each_mode_is_there(report):
    modes = report[0]["modes"]
    assert {"search", "refine", "encoder", "encoder, f-AnoGAN's score"} <= {mode["name"] for mode in modes}
    assert all(0.0 <= mode["auroc"] <= 1.0 for mode in modes)


@pytest.mark.usefixtures("networks")
def test_operations_are_counted_by_hand():
    images = keras.layers.Input((8, 8, 2))
    x = keras.layers.Conv2D(3, 4, strides=2, padding="same")(images)  # 4x4 places, 4x4x2x3 products
    x = keras.layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x)  # 4x4 places, 3x3x5x3
    network = keras.Model(images, keras.layers.Dense(7)(keras.layers.Flatten()(x)))  # 8x8x5x7
    assert speed._flops(network) == 2 * (16 * 96 + 16 * 135 + 320 * 7)


def test_a_step_is_forward_and_back_without_weights(make_gan):
    gan = make_gan()
    extractor = architectures.feature_extractor(gan.discriminator)
    forward = speed._flops(gan.generator) + speed._flops(extractor)
    assert speed.flops_per_step(AnoGAN.from_gan(gan)) == 2 * forward


def test_the_loops_of_others_find_what_ours_finds(trained_gan, boots, monkeypatch):
    """The rows that ours is compared with do the same job: their loss ends where ours does."""
    monkeypatch.setattr(speed, "STEPS", 150)
    pixels = boots.test[300:301]
    subject = speed._Subject(speed.SIZES[0], trained_gan, None, pixels, np.zeros(1))
    images = tf.constant(np.asarray(trained_gan.preprocessing(pixels)))
    ours = AnoGAN.from_gan(trained_gan, **{**speed.PAPER, "steps": 150}).predict(pixels, verbose=0)["score"][0]
    for loop in (speed._keras_loop, speed._tape_loop):
        assert loop(subject, images) == pytest.approx(ours, rel=0.3)
    assert trained_gan.discriminator.trainable and not trained_gan.ema_generator.trainable

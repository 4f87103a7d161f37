import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.data.sources import ArraySource, Images
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.runtime.backend import keras
from anogan_tf.workflows import pace
from anogan_tf.workflows.anomaly_detector import AnomalyDetector
from anogan_tf.workflows.pace import Pace, as_time

SMALL = {"base_filters": 4, "latent_dim": 4, "epochs": 1, "memory_bank": 10}


@pytest.fixture(scope="module")
def fitted(networks, boots):
    detector = AnomalyDetector((16, 16, 1), **SMALL)
    detector.compile(steps=2)
    history = detector.fit(boots.train[:110], verbose=0)
    return detector, history


@pytest.mark.promise("as written")
def test_fit_predict_heatmap(fitted, boots, tmp_path):
    detector, history = fitted
    assert {"gan_generator_loss", "gan_transform_loss", "encoder_loss"} <= history.history.keys()
    assert isinstance(history, keras.callbacks.History) and len(history.history["encoder_loss"]) == 1
    out = detector.predict(boots.test[:5], verbose=0)
    np.testing.assert_array_equal(out["is_anomaly"], out["score"] > detector.threshold)
    assert detector.heatmap(out["anomaly_map"]).shape == (5, 16, 16)
    assert len(detector.calibration.scores) == detector.expected.images == 50
    assert detector.options.normalize is None and detector.chosen.normalize is False and detector.chosen.size == (16, 16)
    settings = detector.anogan.score_settings
    assert settings.score == "complexity" and detector.anogan.memory_bank.count == 10 and detector.anogan.classifier is not None
    detector.save(tmp_path / "d.keras")
    for loaded in (AnomalyDetector.load(tmp_path / "d.keras"), AnoGAN.load(tmp_path / "d.keras")):
        np.testing.assert_array_equal(loaded.predict(boots.test[:5], verbose=0)["score"], out["score"])
    assert (detector.export(tmp_path / "served", warm_up=()) / "saved_model.pb").exists()


def test_before_it_has_learned_it_says_so():
    for ask in (lambda one: one.predict(np.zeros((1, 16, 16))), lambda one: one.save("x.keras"), lambda one: one.threshold):
        with pytest.raises(ValueError, match=r"has learned nothing yet: call fit\(\)"):
            ask(AnomalyDetector())


def test_what_is_asked_for_is_checked(boots):
    with pytest.raises(TypeError, match="colour"):
        AnomalyDetector(colour=True)
    with pytest.raises(TypeError, match="knows no depth; there are augment"):
        AnomalyDetector().compile(depth=3)
    with pytest.raises(ValueError, match="needs an encoder"):
        AnomalyDetector(mode="refine", encoder=False)
    with pytest.raises(ValueError, match="takes no labels"):
        AnomalyDetector().fit(boots.train, np.zeros(2000))
    with pytest.raises(ValueError, match="19 normal images are too few, at least 20"):
        AnomalyDetector(**SMALL).fit(boots.train[:19], verbose=0)
    with pytest.raises(ValueError, match="images of the split 'val' set the threshold"):
        AnomalyDetector().fit(ArraySource(boots.train, np.zeros(2000)), validation_data=boots.train)
    assert AnomalyDetector((16, 20, 3), augment="mirror").options.augment == ("mirror",)


@pytest.mark.usefixtures("networks")
def test_every_way_to_give_images_is_the_same(boots):
    images, held_out = boots.train[:40], boots.train[40:70]
    ways = [
        (images, held_out),
        (list(images), list(held_out)),
        (tf.data.Dataset.from_tensor_slices(images).batch(7), tf.data.Dataset.from_tensor_slices(held_out)),
        (tf.data.Dataset.from_tensor_slices((images, np.zeros(40))), held_out),
        (Images(list(images), [], []), Images(list(held_out), [], [])),
    ]
    scores = []
    for x, validation_data in ways:
        detector = AnomalyDetector((16, 16), **SMALL, encoder=False, steps=1)
        detector.fit(x, validation_data=validation_data, verbose=0)
        scores.append(detector.calibration.scores)
        assert len(scores[-1]) == 30
    for other in scores[1:]:
        np.testing.assert_array_equal(other, scores[0])


@pytest.mark.usefixtures("networks")
def test_of_few_images_each_is_judged_by_detectors_that_never_saw_it(boots, monkeypatch):
    seen, across = [], AnoGAN.calibrate_across

    def calibrate(detector, folds, *arguments):
        folds = list(folds)
        seen.extend((other, [np.concatenate([images for images, _ in batches])]) for other, batches in folds)
        return across(detector, [(other, [(images[0], None)]) for other, images in seen], *arguments)

    monkeypatch.setattr(AnoGAN, "calibrate_across", calibrate)
    detector = AnomalyDetector((16, 16), **{**SMALL, "memory_bank": 100}, encoder=False, steps=1)
    called = []
    detector.fit(boots.train[:24], verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_train_end=lambda _: called.append(1))])
    assert len(seen) == 4 and len(called) == 5 and len(detector.calibration.scores) == 24
    assert detector.anogan.memory_bank.count == 24
    for other, (images,) in seen:
        assert len(images) == 6 and other.memory_bank.count == 18
        assert (other.memory_bank(images) > detector.anogan.memory_bank(images)).numpy().all()  # which holds the image itself


def test_the_time_is_told_once_from_what_steps_cost(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(pace, "_part", lambda model: "gan")
    told = Pace([("gan", 1000), ("encoder", 500), ("comparator", 100)], (32, 32, 1), 64, False, said.append)
    for _ in range(60):
        now[0] += 0.5
        told.on_train_batch_end(0)
    seconds = 0.5 * (1000 + 1.7 * 500 + 0.63 * 4 * 100)
    assert said == [f"It will take about {round(seconds / 60)} minutes."]


@pytest.mark.parametrize("seconds, words", [(3, "5 seconds"), (62, "60 seconds"), (100, "2 minutes"), (9000, "2.5 hours")])
def test_times_in_words(seconds, words):
    assert as_time(seconds) == words

"""A run that is killed at any moment goes on to the same weights, and loses nothing that was written."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from anogan_tf.data.sources import FileSource
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.runtime.provenance import RECORD, has_record, write_record
from anogan_tf.training.callbacks import Checkpoint
from anogan_tf.training.gan import GAN
from anogan_tf.workflows import parts
from anogan_tf.workflows import train as workflow
from anogan_tf.workflows.options import TrainingOptions

OPTIONS = {"size": (16, 16), "base_filters": 4, "latent_dim": 4, "epochs": 4, "steps": 2}
# Saves after every step, so that a kill often meets a save.
CHILD = """
import sys
from anogan_tf.data.sources import FileSource
from anogan_tf.workflows import parts
from anogan_tf.workflows import train as workflow
from anogan_tf.workflows.options import TrainingOptions
parts.SECONDS_BETWEEN_SAVES = 0.0
source = FileSource.of(sys.argv[1])
workflow.train(source, sys.argv[2], TrainingOptions(**{options!r}), resume=True)
"""


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / "set.npy", np.random.default_rng(0).integers(0, 256, (130, 16, 16), np.uint8))
    return FileSource.of(tmp_path / "set.npy")


def train(source, model, resume=False, **changes):
    return workflow.train(source, model, TrainingOptions(**{**OPTIONS, **changes}), resume=resume)[0]


def assert_same_run(one, other):
    """Two models' weights, calibration and logs."""
    detectors = [AnoGAN.load(path) for path in (one, other)]
    for part in ("generator", "discriminator", "encoder"):
        for weights in zip(*(getattr(detector, part).get_weights() for detector in detectors)):
            np.testing.assert_array_equal(*weights)
    assert detectors[0].calibration.get_config() == detectors[1].calibration.get_config()
    for log in ("log.csv", "encoder.csv"):
        passes = [[line.split(",")[0] for line in (path.with_suffix(".train") / log).open()] for path in (one, other)]
        assert passes[0] == passes[1]
    assert not other.with_suffix(".train.partial").exists()


def kill_while_training(source_path, model, moments):
    """Start training again and again, each time killed so many seconds after its first save; the last one may end."""
    child = [sys.executable, "-c", CHILD.format(options=OPTIONS), str(source_path), str(model)]
    state = workflow.partial_folder(workflow.training_state(model))
    for moment in moments:
        before = {path: path.stat().st_mtime_ns for path in state.glob("*.keras")}
        with subprocess.Popen(child, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and before == {path: path.stat().st_mtime_ns for path in state.glob("*.keras")}:
                time.sleep(0.01)
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.communicate()
    done = subprocess.run(child, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.promise("resumes")
def test_killed_it_goes_on_to_the_same_weights(source, tmp_path, process):
    train(source, tmp_path / "whole.keras")
    draw = random.Random(0)
    moments = [draw.uniform(0.0, 1.0) for _ in range(int(os.environ.get("ANOGAN_KILLS", "2")))]
    kill_while_training(tmp_path / "set.npy", tmp_path / "killed.keras", moments)
    assert_same_run(tmp_path / "whole.keras", tmp_path / "killed.keras")


@pytest.mark.parametrize("stop", ["encoder.keras", "calibration"])
@pytest.mark.usefixtures("networks")
def test_interrupted_after_the_gan_it_goes_on(source, tmp_path, monkeypatch, stop):
    train(source, tmp_path / "whole.keras")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        where = (parts, "train_encoder") if stop == "encoder.keras" else (workflow, "calibrate_on")
        patched.setattr(*where, interrupt)
        train(source, tmp_path / "other.keras")
    partial = tmp_path / "other.train.partial"
    made = (partial / "gan.keras").stat().st_mtime_ns
    train(source, tmp_path / "other.keras", resume=True)
    assert (tmp_path / "other.train" / "gan.keras").stat().st_mtime_ns == made  # not trained again
    assert_same_run(tmp_path / "whole.keras", tmp_path / "other.keras")


@pytest.mark.usefixtures("networks")
def test_a_run_with_other_settings_or_data_is_not_gone_on_with(source, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "train_encoder", lambda *arguments, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(source, tmp_path / "m.keras")
    state = tmp_path / "m.train.partial"
    made = (state / "gan.keras").read_bytes()
    with pytest.raises(ValueError, match="differs in options.epochs, options.steps; give the same"):
        train(source, tmp_path / "m.keras", resume=True, epochs=9, steps=3)
    np.save(tmp_path / "set.npy", np.zeros((130, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="differs in data;"):
        train(source, tmp_path / "m.keras", resume=True)
    assert (state / "gan.keras").read_bytes() == made  # nothing lost


def test_records(tmp_path):
    record = {"settings": {"a": (1, 2), "b": None}, "data": "x"}
    assert not has_record(tmp_path, record)
    write_record(tmp_path, {**record, "command": {}})
    assert has_record(tmp_path, record)
    kept = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**kept, "versions": {**kept["versions"], "keras": "0"}}))
    with pytest.raises(ValueError, match="differs in versions.keras"):
        has_record(tmp_path, record)
    for text in ("{", "[1]", "3", "[" * 100_000):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(ValueError, match="damaged.*remove it"):
            has_record(tmp_path, record)


@pytest.mark.usefixtures("networks")
def test_a_checkpoint_in_the_middle_of_a_pass_is_gone_on_from(pixels, tmp_path):
    class Stop(Checkpoint):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.batches_seen.numpy()) == 4:
                self._save()
                raise KeyboardInterrupt

    def make():
        gan = GAN((16, 16, 1), 4, base_filters=4)
        gan.compile()
        return gan

    whole, stopped = make(), make()
    whole.fit_on(pixels, 12, epochs=3, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit_on(pixels, 12, epochs=3, verbose=0, callbacks=[Stop(tmp_path / "gan.keras")])
    loaded = GAN.load(tmp_path / "gan.keras")
    assert int(loaded.batches_seen.numpy()) == 4  # three make a pass
    loaded.fit_on(pixels, 12, epochs=3, verbose=0)
    assert int(loaded.batches_seen.numpy()) == 9
    for one, other in zip(whole.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_of_a_log_only_what_is_done_stays(tmp_path):
    log = tmp_path / "log.csv"
    parts.truncate_log(log, 3)
    log.write_text("epoch,loss\n0,1.0\n1,0.9\n2,0.")
    parts.truncate_log(log, 2)
    assert log.read_text() == "epoch,loss\n0,1.0\n1,0.9\n"

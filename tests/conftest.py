"""What tests share, and how they are told apart: quick ones by what they build, slow ones by what they would notice."""

import gc
import os
import shutil
import subprocess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # else scikit-learn starts a process to count cores
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores; threads of each would be in the others' way
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import helpers
import keras
import numpy as np
import pytest
from promises import PROMISES

from anogan_tf.data.embedded import load_embedded
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.runtime.files import locked
from anogan_tf.training.encoder import EncoderTrainer

# A test that builds a network, starts a process or a browser takes one of these, or a fixture that does.
SLOW = {"networks", "make_gan", "trained", "process", "browser"}


def pytest_configure():
    gc.set_threshold(200_000, 20, 20)  # traces are millions of small objects; looking through them took an eighth of the time


def pytest_collection_modifyitems(items):
    for item in items:
        if not SLOW.intersection(item.fixturenames):
            item.add_marker("quick")
        for mark in item.iter_markers("promise"):
            if mark.args[0] not in PROMISES:
                raise pytest.UsageError(f"{item.nodeid}: promise {mark.args[0]!r} is none of those in tests/promises.py.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A quick test that builds a network or starts a process all the same fails, whichever of its fixtures does it."""
    with pytest.MonkeyPatch.context() as patched:
        if item.get_closest_marker("quick"):
            patched.setattr(keras.Model, "__new__", _refuse("makes a model", "networks"))
            patched.setattr(subprocess.Popen, "__init__", _refuse("starts a process", "process"))
        return (yield)


def _refuse(what, name):
    def refused(*arguments, **options):
        pytest.fail(f"A quick test {what}. Have it take the fixture {name!r}: @pytest.mark.usefixtures({name!r}).")

    return refused


@pytest.fixture(scope="session")
def networks():
    """The test builds networks of its own."""


@pytest.fixture(scope="session")
def process():
    """The test starts processes."""


@pytest.fixture(scope="session")
def browser():
    return shutil.which("chromium") or pytest.skip("needs chromium")


@pytest.fixture(scope="session")
def boots():
    return load_embedded()


@pytest.fixture(scope="session")
def make_gan():
    return helpers.make_gan


@pytest.fixture
def tiny_gan(make_gan):
    return make_gan()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """`trained(name, train)`: a model that `train()` makes, once for all processes of a run."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def load_or_train(name, train):
        path = folder / f"{name}.keras"
        with locked(path, wait=True):
            if not path.exists():
                train().save(path)
            return keras.saving.load_model(path)

    return load_or_train


@pytest.fixture(scope="session")
def trained_gan(trained, boots):
    """Networks of half the default width: a search with them takes a third of the time."""
    return trained("gan", lambda: helpers.train_on(boots, base_filters=16))


@pytest.fixture(scope="session")
def trained_encoder(trained, trained_gan, boots):
    def train():
        trainer = EncoderTrainer.from_gan(trained_gan)
        trainer.compile()
        trainer.fit(boots.train[:1800], epochs=7, verbose=0)
        return trainer

    return trained("encoder", train).encoder


@pytest.fixture(scope="session")
def trained_detector(trained_gan):
    """Every image takes all of its 100 steps: enough for a last bit to grow."""
    return AnoGAN.from_gan(trained_gan, steps=100, tolerance=0.0)


@pytest.fixture(scope="session")
def _traced(make_gan):
    detector = AnoGAN.from_gan(make_gan(), steps=3)
    detector._make_scorer()
    return detector


@pytest.fixture
def tiny_detector(_traced):
    """A detector of each test's own, which shares with the others networks and what takes seconds to trace."""
    detector = _traced.with_settings()
    detector._scorer = _traced._scorer
    return detector


@pytest.fixture(scope="session")
def pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    pixels.setflags(write=False)  # shared by all tests
    return pixels

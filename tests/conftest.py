import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores; threads of each would be in the others' way
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import keras
import numpy as np
import pytest

from anogan_tf.data import load_embedded
from anogan_tf.detector import AnoGAN
from anogan_tf.encoder import EncoderTrainer
from anogan_tf.gan import GAN
from anogan_tf.saving import locked


def pytest_configure():
    gc.set_threshold(200_000, 20, 20)  # traces are millions of small objects; looking through them took an eighth of the time


# Those that take longest: begun last, one process would end long after the others (`--dist loadfile --no-loadscope-reorder`).
FIRST = [
    *("test_notebooks", "test_detector", "test_serving", "test_cli", "test_gan", "test_benchmark", "test_speed"),
    *("test_distribution", "test_resume", "test_docs", "test_evaluation"),
]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def boots():
    return load_embedded()


def make_gan(image_shape=(16, 16, 1), latent_dim=4, **options):
    gan = GAN(image_shape, latent_dim, width=4, **options)
    gan.compile()
    return gan


@pytest.fixture
def tiny_gan():
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


def train_on(boots, **options):
    """A GAN after some hundred steps on real boots: far enough that boots come out as boots."""
    gan = GAN((28, 28, 1), **options)
    gan.compile()
    gan.fit(boots.train[:1800], epochs=10, verbose=0)
    return gan


@pytest.fixture(scope="session")
def trained_gan(trained, boots):
    """Networks of half the default width: a search with them takes a third of the time."""
    return trained("gan", lambda: train_on(boots, width=16))


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
    return AnoGAN.from_gan(trained_gan, tolerance=0.0)


@pytest.fixture(scope="session")
def _traced():
    return AnoGAN.from_gan(make_gan(), steps=3)


@pytest.fixture
def tiny_detector(_traced):
    """One detector for all tests, since tracing takes seconds; each finds it without a calibration and with its own settings."""
    settings = _traced.settings
    yield _traced
    if _traced.settings != settings:
        _traced.settings = settings
    if _traced.calibration:
        _traced.calibration = None


@pytest.fixture(scope="session")
def pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    pixels.setflags(write=False)  # shared by all tests
    return pixels

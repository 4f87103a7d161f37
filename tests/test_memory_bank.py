import subprocess
import sys

import keras
import numpy as np
import pytest

from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.memory_bank import MemoryBank
from anogan_tf.evaluation.baselines import nearest_pixels

RNG = np.random.default_rng(0)
NORMALS, QUERIES = RNG.random((50, 28, 28), np.float32), RNG.random((7, 28, 28), np.float32)
PREPROCESSING = Preprocessing((28, 28, 1))


def prepared(pixels):
    return PREPROCESSING(PREPROCESSING.check(pixels))


@pytest.mark.usefixtures("networks")
def test_distances_are_those_to_the_nearest_neighbours_on_blurred_pixels():
    distances = MemoryBank.of(prepared(NORMALS))(prepared(QUERIES))
    np.testing.assert_allclose(np.asarray(distances) / 2.0, nearest_pixels(NORMALS, QUERIES, PREPROCESSING), rtol=1e-3)


def test_what_is_remembered_three_times_has_no_distance():
    distances = np.asarray(MemoryBank.of(prepared(np.concatenate([NORMALS[:2]] * 3)))(prepared(NORMALS[:3])))
    assert distances[:2].max() < 0.01 < 1.0 < distances[2]


@pytest.mark.parametrize("shape", [(64, 48, 3), (20, 40, 1)])
def test_large_images_are_remembered_small(shape):
    images = np.full((2, *shape), 0.25, np.float32)
    memory = MemoryBank.of(images)
    assert memory.kept.shape == (2, {64: 32 * 24 * 3, 20: 16 * 32}[shape[0]])
    np.testing.assert_allclose(memory.kept.numpy(), 0.25 * 32767, atol=0.6)
    np.testing.assert_allclose(memory(np.full((3, *shape), 0.75, np.float32)), 0.5 * memory.kept.shape[1] ** 0.5, rtol=1e-3)


def test_few_images_and_none():
    assert np.asarray(MemoryBank.of(prepared(NORMALS[:1]))(prepared(QUERIES))).shape == (7,)
    with pytest.raises(ValueError, match="at least one image"):
        MemoryBank.of(np.zeros((0, 28, 28, 1)))


@pytest.fixture
def remembering(tiny_gan, pixels):
    memory = MemoryBank.of(tiny_gan.preprocessing(pixels[:15]))
    return AnoGAN.from_gan(tiny_gan, steps=2, score="complexity", memory_bank=memory).calibrate(pixels[15:])


def test_neighbours_are_part_of_the_relative_score(remembering, pixels, tmp_path):
    out = remembering.predict(pixels, verbose=0)
    assert out["score"][:15].mean() < out["score"][15:].mean() - 1.0
    without = remembering.with_settings(neighbours=0.0).calibrate(pixels[15:])
    assert without.memory_bank is remembering.memory_bank and without.calibration.complexity.neighbours is None
    assert np.abs(without.predict(pixels[:15], verbose=0)["score"] - out["score"][:15]).min() > 0.1
    np.testing.assert_array_equal(remembering.predict(pixels[7:9], verbose=0)["score"], out["score"][7:9])
    remembering.save(tmp_path / "detector.keras")
    loaded = AnoGAN.load(tmp_path / "detector.keras")
    np.testing.assert_array_equal(loaded.memory_bank.kept.numpy(), remembering.memory_bank.kept.numpy())
    np.testing.assert_array_equal(loaded.predict(pixels, verbose=0)["score"], out["score"])


def test_a_file_with_a_memory_is_loaded_by_whoever_knows_the_detector_alone(remembering, tmp_path, process):
    remembering.save(tmp_path / "detector.keras")
    code = f"from anogan_tf import AnoGAN; print(AnoGAN.load({str(tmp_path / 'detector.keras')!r}).memory_bank.count)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "15\n", done.stderr


def test_another_score_needs_no_memory(remembering, pixels):
    out = remembering.with_settings(score="loss").predict(pixels[:3], verbose=0)
    alone = AnoGAN(*(getattr(remembering, part) for part in ("generator", "discriminator")), steps=2)
    np.testing.assert_array_equal(out["score"], alone.predict(pixels[:3], verbose=0)["score"])


def test_a_memory_of_other_images_is_refused(tiny_gan):
    with pytest.raises(ValueError, match=r"memory bank is of images \(28, 28, 1\); the networks' are \(16, 16, 1\)"):
        AnoGAN.from_gan(tiny_gan, memory_bank=MemoryBank(3, (28, 28, 1)))
    with pytest.raises(TypeError, match="must be a MemoryBank: MemoryBank.of"):
        AnoGAN.from_gan(tiny_gan, memory_bank=np.zeros((3, 16, 16, 1)))


@pytest.mark.usefixtures("networks")
def test_a_memory_is_a_layer(tmp_path):
    memory, images = MemoryBank.of(prepared(NORMALS)), keras.Input((28, 28, 1))
    model = keras.Model(images, memory(images))
    np.testing.assert_allclose(model.predict(prepared(QUERIES), verbose=0), memory(prepared(QUERIES)), rtol=1e-5)

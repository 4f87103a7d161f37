"""Anomaly maps of a detector with a comparator: their terms against NumPy, their sum in the score, and their independence."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.detection import calibration
from anogan_tf.detection.anomaly_map import TERMS, MapScale, map_each, relative_residual, smoothed_residual
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.maps import local_mean
from anogan_tf.detection.patch_memory import PatchMemory
from anogan_tf.detection.tiling import Tiling, cover, random_scenes
from anogan_tf.networks.architectures import build_encoder
from anogan_tf.networks.comparator import build_comparator, comparator_input, patch_features

pytestmark = pytest.mark.usefixtures("networks")
SHAPE, TILING = (16, 16, 1), Tiling(8, 2, context=32)
NUMBERS = ("score", "residual_score", "p_value", "is_anomaly")


def random_images(count=3, shape=(20, 30, 2), seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape)).astype(np.float32)


def photographs(count=20, seed=1):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*draw.integers(20, 80, 2), 1), np.uint8) for _ in range(count)]


def comparing(reconstruct=False):
    """A comparator, and a memory of patches as it describes them; nobody trained it."""
    comparator = build_comparator(SHAPE, 4, with_reconstruction=reconstruct)
    shown = {"reconstruct": (lambda images: 0.5 * images)} if reconstruct else {}
    return {"comparator": comparator, "patch_memory": PatchMemory.of(comparator, [random_images(20, SHAPE)], 30, **shown)}


@pytest.fixture(scope="module")
def whole(make_gan, pixels):
    return AnoGAN.from_gan(make_gan(), steps=3, score="complexity", **comparing()).calibrate(pixels, 0.1)


@pytest.fixture(scope="module")
def tiled(make_gan):
    preprocessing = Preprocessing((None, None, 1), normalize=True)
    settings = {"steps": 3, "score": "complexity", "preprocessing": preprocessing, "tiling": TILING}
    return AnoGAN.from_gan(make_gan(), **settings, **comparing()).calibrate(photographs(), 0.1)


# ---------------------------------------------------------------- terms


def test_a_mean_around_a_pixel_counts_only_what_is_there():
    images = random_images()
    kernel = {"sigma": 8, "axes": (1, 2), "mode": "constant", "truncate": 3}
    expected = ndimage.gaussian_filter(images, **kernel) / ndimage.gaussian_filter(np.ones_like(images), **kernel)
    np.testing.assert_allclose(local_mean(images, 8.0), expected, atol=1e-5)


def test_a_residual_relative_to_the_variation_around_it():
    images, residual = random_images(), np.abs(random_images(seed=1))
    slopes = sum(np.square(np.gradient(np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], "edge"), axis=axis)) for axis in (1, 2))
    slopes = slopes[:, 1:-1, 1:-1].mean(-1)
    squares = ndimage.gaussian_filter(np.square(residual).mean(-1), 1, axes=(1, 2), mode="reflect", truncate=3)
    around = {"sigma": 8, "axes": (1, 2), "mode": "constant", "truncate": 3}
    varied = ndimage.gaussian_filter(slopes, **around) / ndimage.gaussian_filter(np.ones_like(slopes), **around)
    found = relative_residual(tf.constant(images), tf.constant(residual))
    np.testing.assert_allclose(found[..., 0], np.log(squares + 4e-5) - 0.7 * np.log(varied + 4e-5), rtol=1e-4, atol=1e-4)


def test_terms_come_to_a_map_and_a_number():
    draw = np.random.default_rng(0)
    normal, terms = draw.normal(3, 2, (500, 3)), draw.normal(3, 4, (2, 5, 8, 3)).astype(np.float32)
    scale = MapScale.fit(normal, {"logits": 1.0, "patches": 2.0, "relative_residual": 0.5})
    standard = (terms - normal.mean(0)) / normal.std(0)
    expected = np.log1p(np.exp(2 * standard[..., 0])) / 2 + 2 * standard[..., 1] + 0.5 * standard[..., 2]
    maps, numbers = scale.combine(tf.constant(terms))
    np.testing.assert_allclose(maps[..., 0], expected, rtol=1e-4, atol=1e-5)
    ordered = np.sort(expected.reshape(2, -1))
    np.testing.assert_allclose(numbers, ordered[:, -20:].mean(1) + ordered[:, -10:].mean(1), rtol=1e-5)  # 10: a quarter of 40
    few, number = scale.combine(tf.constant(terms[:, :2, :2]))  # fewer pixels than it is the mean of
    np.testing.assert_allclose(number, np.mean(few, axis=(1, 2, 3)) + np.max(few, axis=(1, 2, 3)), rtol=1e-5)


def test_each_image_within_its_own_size():
    images, sizes = np.abs(random_images(3, (20, 30, 1))), np.array([(20, 30), (7, 9), (12, 25)], np.int32)
    maps, peaks = map_each(smoothed_residual, (tf.constant(images),), tf.constant(sizes), TILING, 16, 1)
    for row, (height, width) in enumerate(sizes):
        alone, peak = smoothed_residual(tf.constant(images[row : row + 1, :height, :width]))
        np.testing.assert_array_equal(maps[row, :height, :width], alone[0])
        assert peaks[row] == peak[0] and not maps[row, height:].numpy().any() and not maps[row, :, width:].numpy().any()


def test_beyond_an_image_there_is_nothing():
    images, sizes = random_images(2, (6, 8, 1)), np.array([(6, 8), (4, 5)], np.int32)
    covered = cover(tf.constant(images), sizes, 2).numpy()
    np.testing.assert_array_equal(covered[0, 2:-2, 2:-2], images[0])
    np.testing.assert_array_equal(covered[1, 2:6, 2:7], images[1, :4, :5])
    assert np.isnan(covered).sum() == covered.size - 6 * 8 - 4 * 5


def test_scenes_are_pieces_of_an_image_and_of_what_lies_around_it():
    image = np.arange(40 * 30, dtype=np.float32).reshape(40, 30, 1)
    scenes = random_scenes(image, 32, 4, 200, np.random.default_rng(0))
    assert scenes.shape == (200, 32, 32, 1)
    for scene in scenes:
        known = ~np.isnan(scene[..., 0])
        rows, columns = np.flatnonzero(known.any(1)), np.flatnonzero(known.any(0))
        assert known[np.ix_(rows, columns)].all() and len(rows) >= 28 and len(columns) >= 26
        first = np.divmod(int(scene[rows[0], columns[0], 0]), 30)
        there = image[first[0] : first[0] + len(rows), first[1] : first[1] + len(columns)]
        np.testing.assert_array_equal(scene[np.ix_(rows, columns)], there)
    (all_of_it,) = random_scenes(image, 64, 4, 1, np.random.default_rng(0))
    assert np.isfinite(all_of_it).sum() == image.size


# ---------------------------------------------------------------- patches


def test_the_distance_to_the_nearest_patch_in_deviations():
    draw = np.random.default_rng(0)
    known, asked = draw.normal(2, (1, 5, 0.1), (50, 3)), draw.normal(2, (1, 5, 0.1), (2, 4, 6, 3))
    memory = PatchMemory.of_descriptions(known.astype(np.float32), count=100)
    scaled = [values / (known.std(0) + 1e-3 * known.std()) for values in (known, asked)]
    squares = np.square(scaled[1][..., np.newaxis, :] - scaled[0]).sum(-1).min(-1)
    np.testing.assert_allclose(memory(asked.astype(np.float32)), 0.5 * np.log(squares + 1e-3), atol=1e-4)
    np.testing.assert_allclose(memory(known.astype(np.float32)[np.newaxis, np.newaxis]), 0.5 * np.log(1e-3), atol=1e-3)


def test_some_of_the_patches_that_are_of_an_image_are_remembered():
    comparator = build_comparator((32, 32, 1), 4, with_reconstruction=False)
    images = random_images(5, (32, 32, 1))
    images[:, :, 16:] = np.nan
    memory, same, few = (PatchMemory.of(comparator, [images[:2], images[2:]], count) for count in (1000, 1000, 7))
    assert (memory.count, few.count, memory.features) == (5 * 4 * 2, 7, 14)
    np.testing.assert_array_equal(memory.kept, same.kept)
    patches = np.asarray(patch_features(comparator)(comparator_input(images))[1])
    found = np.asarray(memory(patches))
    assert found[:, :, :2].max() < -3 < found[:, :, 2:].min()
    again = PatchMemory.from_config(memory.get_config())
    assert (again.count, again.features) == (40, 14)
    with pytest.raises(ValueError, match="no patches to remember"):
        PatchMemory.of(comparator, [])
    with pytest.raises(ValueError, match="count=0, features=3: a memory needs at least one patch"):
        PatchMemory(0, 3)


# ---------------------------------------------------------------- the detector


def test_the_map_counts_in_the_score(whole, pixels):
    """In deviations of held-out normals, beside what the score was without it."""
    out, calibrated = whole.predict(pixels, verbose=0), whole.calibration
    assert out["anomaly_map"].shape == (40, 16, 16)
    assert np.mean(out["score"]) == pytest.approx(0, abs=1e-3) and np.std(out["score"]) == pytest.approx(1, abs=1e-3)
    plain = whole.with_settings(anomaly_map=0.0).calibrate(pixels, 0.1).predict(pixels, verbose=0)
    ordered = np.sort(out["anomaly_map"].reshape(40, -1))
    mapped = ordered[:, -20:].mean(1) + ordered[:, -64:].mean(1)
    summed = plain["score"] + (mapped - mapped.mean()) / mapped.std()
    np.testing.assert_allclose(out["score"], summed / summed.std(), atol=1e-3)
    np.testing.assert_array_equal(out["anomaly_map"], plain["anomaly_map"])
    assert calibrated.map_scale.weights == [1.0, 1.0, 0.5] and len(calibrated.map_scale.means) == len(TERMS)
    assert np.mean(out["anomaly_map"] <= calibrated.heat_low) == pytest.approx(0.95, abs=0.01)


def test_a_loss_is_without_it(whole, pixels):
    loss = whole.with_settings(score="loss").calibrate(pixels, 0.1)
    out = loss.predict(pixels, verbose=0)
    assert loss.calibration.map_scale is None
    np.testing.assert_array_equal(out["anomaly_map"], smoothed_residual(out["residual"])[0][..., 0])


def test_terms_can_be_left_out(whole, pixels):
    """Only the residual's share is left, and the number follows from it."""
    alone = whole.with_settings(logits=0.0, patches=0.0).calibrate(pixels, 0.1)
    out = alone.predict(pixels, verbose=0)
    expected = relative_residual(whole.preprocessing(pixels), out["residual"]).numpy()[..., 0]
    np.testing.assert_allclose(out["anomaly_map"], 0.5 * (expected - expected.mean()) / expected.std(), atol=1e-3)


@pytest.mark.parametrize("name", ["whole", "tiled"])
def test_bits_depend_on_nobody_else_and_survive_a_file(name, request, tmp_path, pixels, monkeypatch):
    detector = request.getfixturevalue(name)
    images = list(pixels) if name == "whole" else photographs()
    out = detector.predict(images)
    monkeypatch.setattr(calibration, "FEW", 0)  # each image judged by all of them, itself included
    np.testing.assert_array_equal(np.sort(out["score"]), detector.with_settings().calibrate(images, 0.1).calibration.scores)
    monkeypatch.undo()
    detector.save(tmp_path / "detector.keras")
    again = AnoGAN.load(tmp_path / "detector.keras")
    assert again.tiling == detector.tiling and again.calibration.map_scale == detector.calibration.map_scale
    order = np.random.default_rng(0).permutation(len(images))
    for rows, one in ((order, detector), (np.arange(len(images)), again), *(([row], detector) for row in (0, 7, 19))):
        part = one.predict([images[row] for row in rows])
        for column in NUMBERS:
            np.testing.assert_array_equal(part[column], out[column][rows])
        for place, row in enumerate(rows):
            np.testing.assert_array_equal(part["anomaly_map"][place], out["anomaly_map"][row])


def test_maps_of_tiles_have_their_images_size_whatever_it_is(tiled):
    images = [np.full((*size, 1), 100, np.uint8) for size in ((16, 16), (17, 90), (31, 33), (128, 20))]
    maps = tiled.predict(images)["anomaly_map"]
    for image, found, heat in zip(images, maps, tiled.heatmap(maps)):
        assert found.shape == heat.shape == image.shape[:2] and np.isfinite(found).all()


def test_a_tile_is_seen_as_when_it_was_learned(tiled):
    """An image that fits one tile: what the network says of it with the margin beyond it, and nothing is mirrored there."""
    image = photographs(1)[0][:16, :16]
    prepared = tiled.preprocessing(image[np.newaxis])
    padded = np.full((1, 48, 48, 1), np.nan, np.float32)
    padded[0, 16:32, 16:32] = prepared
    terms = tiled._make_scorer().map_terms(prepared, tf.constant([[16, 16]]), tf.ones_like(prepared)).numpy()
    network = patch_features(tiled.comparator)
    corners = [(top, left) for top in (0, 16) for left in (0, 16)]  # tiles of 32, every 16
    seen = {at: network(comparator_input(padded[:, at[0] : at[0] + 32, at[1] : at[1] + 32]))[0].numpy() for at in corners}
    taper = np.minimum(np.arange(1, 33), np.arange(32, 0, -1))
    for row, column in ((0, 0), (3, 12), (15, 8)):
        places = [(16 + row - top, 16 + column - left) for top, left in corners]
        values = [seen[at][0, down, right, 0] for at, (down, right) in zip(corners, places)]
        weights = [taper[down] * taper[right] for down, right in places]
        assert terms[0, row, column, 0] == pytest.approx(np.average(values, weights=weights), rel=1e-4)


def test_a_comparator_may_see_the_reconstruction(make_gan, pixels):
    encoder = build_encoder(SHAPE, 4, base_filters=4)
    detector = AnoGAN.from_gan(make_gan(), encoder, mode="encoder", score="complexity", **comparing(reconstruct=True))
    detector.calibrate(pixels, 0.1)
    out = detector.predict(pixels[:5], verbose=0)
    images = detector.preprocessing(pixels[:5])
    terms = detector._make_scorer().map_terms(images, tf.fill((5, 2), 16), tf.constant(out["residual"]))
    shown = comparator_input(images, 2 * out["reconstruction"] - 1)
    np.testing.assert_allclose(terms[..., :1], detector.comparator(shown), atol=1e-4)


def test_the_scale_is_of_as_many_pixels_as_are_kept(whole, pixels, monkeypatch):
    """Beyond, maps are made as they come, and the scale stays."""
    monkeypatch.setattr(calibration, "PIXELS_FOR_SCALE", 16 * 16 * 10)
    part = whole.with_settings().calibrate(pixels, 0.1, batch_size=11)
    first = whole.with_settings().calibrate(pixels[:11], 0.1)
    assert part.calibration.map_scale == first.calibration.map_scale != whole.calibration.map_scale
    assert len(part.calibration.scores) == 40


def test_errors(tiny_gan, make_gan):
    fits, memory = (comparing()[name] for name in ("comparator", "patch_memory"))
    with pytest.raises(ValueError, match=r"patch_memory holds what a comparator says of patches: pass comparator="):
        AnoGAN.from_gan(tiny_gan, patch_memory=memory)
    with pytest.raises(ValueError, match="The patch memory is of 3 features; the comparator gives 14"):
        AnoGAN.from_gan(tiny_gan, comparator=fits, patch_memory=PatchMemory(5, 3))
    with pytest.raises(ValueError, match="needs an encoder, and can't cut images into tiles"):
        AnoGAN.from_gan(tiny_gan, comparator=build_comparator(SHAPE, 4))
    with pytest.raises(ValueError, match="takes 10 channels, it would be shown 2"):
        AnoGAN.from_gan(tiny_gan, comparator=build_comparator((16, 16, 3), 4))
    with pytest.raises(ValueError, match=r"context=40 must be a multiple of 16"):
        AnoGAN.from_gan(tiny_gan, preprocessing=Preprocessing((None, None, 1)), tiling=Tiling(8, context=40))
    with pytest.raises(ValueError, match="patches=-1"):
        AnoGAN.from_gan(tiny_gan, comparator=fits, patches=-1.0)


@pytest.mark.promise("serves")
@pytest.mark.parametrize("name", ["whole", "tiled"])
def test_a_served_model_gives_the_same_maps_and_scores(name, request, tmp_path, pixels):
    detector = request.getfixturevalue(name)
    images = pixels[:5] if name == "whole" else np.stack([photographs(1)[0]] * 2)
    expected = detector.predict(images) if name == "tiled" else detector.predict(images, verbose=0)
    model = tf.saved_model.load(str(detector.export(tmp_path, warm_up=())))
    answer = model.signatures["localize"](images=tf.constant(images / np.float32(255)))
    for output in ("score", "p_value", "anomaly_map", "residual"):
        np.testing.assert_array_equal(answer[output], expected[output], err_msg=output)
    np.testing.assert_array_equal(answer["heatmap"], detector.heatmap(expected["anomaly_map"]))

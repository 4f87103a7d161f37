import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.detection import calibration, complexity
from anogan_tf.detection.complexity import ALL_BORDERS, Complexity, image_complexity
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.tiling import Tiling
from anogan_tf.detection.trajectory import SearchTrajectory
from anogan_tf.networks import architectures
from anogan_tf.networks.pretext import transform_tables
from anogan_tf.search.settings import SearchSettings

KEYS = {"score", "residual_score", "discrimination_score", "residual", "anomaly_map", "reconstruction", "z", "steps", "converged"}


def predict(detector, pixels, **options):
    return detector.predict(pixels, verbose=0, **options)


def assert_same(one, other, rows=slice(None)):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name][rows], other[name], err_msg=name)


def test_output(tiny_detector, pixels):
    out = predict(tiny_detector, pixels)
    assert out.keys() == KEYS
    assert {name: value.shape[1:] for name, value in out.items()} == {
        **dict.fromkeys(("score", "residual_score", "discrimination_score", "steps", "converged"), ()),
        **dict.fromkeys(("residual", "reconstruction"), (16, 16, 1)),
        "anomaly_map": (16, 16),
        "z": (4,),
    }
    assert all(len(value) == len(pixels) for value in out.values())
    assert out["reconstruction"].min() >= 0.0 and out["reconstruction"].max() <= 1.0


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_no_image_is_dropped(tiny_detector, pixels, count):
    assert len(predict(tiny_detector, pixels[:count], batch_size=16)["score"]) == count


@pytest.mark.promise("learns")
def test_everything_is_taken_at_the_returned_z(trained_detector, boots):
    """Score, picture, residual and z belong together: recomputed from z, in NumPy where it can be."""
    detector, pixels = trained_detector, boots.test[-20:]
    out = predict(detector, pixels)
    images, made = np.asarray(detector.preprocessing(pixels)), np.asarray(detector.generator(out["z"]))
    np.testing.assert_allclose(out["reconstruction"], (made + 1) / 2, atol=1e-5)
    np.testing.assert_allclose(out["residual"], np.abs(images - made), atol=1e-5)
    np.testing.assert_allclose(out["residual_score"], out["residual"].sum((1, 2, 3)), rtol=1e-5)
    features = architectures.feature_extractor(detector.discriminator)
    difference = np.abs(np.asarray(features(images)) - np.asarray(features(made))).reshape(20, -1).sum(1)
    np.testing.assert_allclose(out["discrimination_score"], difference, rtol=1e-4)
    np.testing.assert_allclose(out["score"], 0.9 * out["residual_score"] + 0.1 * out["discrimination_score"], rtol=1e-5)


@pytest.mark.promise("learns")
def test_residual_is_not_signed(trained_detector, boots):
    residual = predict(trained_detector, boots.test[:16])["residual"]
    assert residual.min() >= 0.0 and residual.max() > 0.5


@pytest.mark.promise("learns")
def test_the_search_searches(trained_gan, boots):
    """Reconstructions come nearer than the start, and boots nearer than other garments."""
    pixels, labels = boots.test[::2], boots.test_label[::2]
    scores = [predict(AnoGAN.from_gan(trained_gan, steps=steps), pixels)["score"] for steps in (0, 100)]
    assert (scores[1] < scores[0]).mean() > 0.99
    normal, anomalous = (np.median(scores[1][labels == label]) for label in (0, 1))
    assert anomalous > 1.8 * normal


def test_reference_loss_scores_by_the_logits(trained_gan, boots):
    detector = AnoGAN.from_gan(trained_gan, loss="reference", steps=20)
    out = predict(detector, boots.test[:16])
    logits = np.asarray(detector.discriminator(2 * out["reconstruction"] - 1))[:, 0]
    np.testing.assert_allclose(out["discrimination_score"], np.log1p(np.exp(-logits)), rtol=1e-3)


def traces(detector):
    return [stage.experimental_get_tracing_count() for stage in detector._make_scorer().searcher.stages]


@pytest.mark.promise("bits")
def test_bit_identical_alone_in_any_batch_in_any_order_again_and_reloaded(trained_detector, boots, tmp_path):
    pixels = boots.test[270:302]
    together = predict(trained_detector, pixels)
    assert (together["steps"] == 100).all()
    order = np.random.default_rng(0).permutation(32)
    assert_same(together, predict(trained_detector, pixels[order]), order)
    assert_same(together, predict(trained_detector, pixels, batch_size=7))
    assert_same(together, predict(trained_detector, pixels))
    for row in (0, 17):
        assert_same(together, predict(trained_detector, pixels[row : row + 1]), slice(row, row + 1))
    trained_detector.save(tmp_path / "detector.keras")
    assert_same(together, predict(AnoGAN.load(tmp_path / "detector.keras"), pixels))
    assert traces(trained_detector) == [1, 1, 1]


def test_nothing_leaks_from_query_to_query(tiny_detector, pixels):
    before = tiny_detector.get_weights()
    first = predict(tiny_detector, pixels[:20])
    predict(tiny_detector, pixels[20:])
    assert_same(first, predict(tiny_detector, pixels[:20]))
    for old, new in zip(before, tiny_detector.get_weights()):
        np.testing.assert_array_equal(old, new)


@pytest.mark.promise("search")
def test_one_trace_whatever_the_number_of_images(tiny_detector, pixels):
    for count in (1, 16, 23, 40):
        predict(tiny_detector, pixels[:count])
    assert traces(tiny_detector) == [1, 1, 1]


def test_xla_takes_the_same_way(trained_gan, boots):
    """After 5 steps equal but for an image at a kink of the loss; after 500 more end elsewhere, on average they don't."""
    losses = {}
    for jit in (False, True):
        trajectory = SearchTrajectory(AnoGAN.from_gan(trained_gan, jit_compile=jit), (5, 500))
        losses[5, jit], losses[500, jit] = trajectory(trained_gan.preprocessing(boots.test[278:294]))["loss"]
    assert np.isclose(losses[5, True], losses[5, False], rtol=1e-4).mean() >= 0.9
    np.testing.assert_allclose(losses[5, True], losses[5, False], rtol=1e-2)
    np.testing.assert_allclose(np.median(losses[500, True] / losses[500, False]), 1.0, rtol=5e-3)


def test_block_none_scores_the_same_within_rounding(tiny_gan, pixels):
    blocks, at_once = (predict(AnoGAN.from_gan(tiny_gan, steps=5, block=block), pixels)["score"] for block in (16, None))
    np.testing.assert_allclose(blocks, at_once, rtol=1e-4)


def test_any_size_and_channels_whatever_came_before(tiny_detector, pixels):
    """Sizes, channels and refusals in turn, through each door: the answer is that of a fresh detector."""
    colour = np.repeat(pixels, 3, -1)
    queries = [pixels, colour, np.pad(pixels, ((0, 0), (4, 0), (0, 9), (0, 0))), np.pad(colour, ((0, 0), (8, 8), (0, 3), (0, 0)))]
    fresh = AnoGAN.from_config(tiny_detector.get_config())
    fresh.set_weights(tiny_detector.get_weights())
    expected = []
    for query in queries:
        fresh.calibration = None  # forgets its graphs
        expected.append(predict(fresh, query)["score"])
    for use in (lambda x: predict(tiny_detector, x), tiny_detector.predict_on_batch):
        for query, score in [*zip(queries, expected), *zip(queries, expected)]:
            np.testing.assert_array_equal(use(query)["score"], score)
            with pytest.raises(ValueError, match="with 2 channels; expected 1"):
                use(query[..., [0, 0]])


def test_a_copy_is_taken_of_the_gan(tiny_gan, pixels):
    detector = AnoGAN.from_gan(tiny_gan, steps=3)
    before = predict(detector, pixels)
    tiny_gan.fit(pixels, verbose=0)
    assert_same(before, predict(detector, pixels))


def test_the_detector_draws_with_the_averaged_generator(tiny_gan, pixels):
    tiny_gan.fit(pixels, verbose=0)
    kernel = AnoGAN.from_gan(tiny_gan).generator.get_weights()[0]
    np.testing.assert_array_equal(kernel, tiny_gan.ema_generator.get_weights()[0])
    assert not np.array_equal(kernel, tiny_gan.generator.get_weights()[0])


def test_another_layer_gives_another_discrimination_score_and_is_saved(tiny_gan, pixels, tmp_path):
    by_layer = {}
    for layer in ("features", "down1_relu"):
        # Of several candidates the best is taken by a loss that the layer is a part of.
        detector = AnoGAN.from_gan(tiny_gan, features=layer, steps=0, candidates=1)
        by_layer[layer] = predict(detector, pixels)
        detector.save(tmp_path / "detector.keras")
        assert_same(by_layer[layer], predict(AnoGAN.load(tmp_path / "detector.keras"), pixels))
    np.testing.assert_array_equal(*(out["residual_score"] for out in by_layer.values()))
    assert (by_layer["features"]["discrimination_score"] != by_layer["down1_relu"]["discrimination_score"]).all()


def test_networks_handed_over_directly_stay_trainable(tiny_gan, pixels):
    AnoGAN(tiny_gan.generator, tiny_gan.discriminator, steps=1)
    before = tiny_gan.generator.get_weights()[0]
    tiny_gan.fit(pixels, verbose=0)
    assert not np.array_equal(before, tiny_gan.generator.get_weights()[0])


def test_from_gan_takes_the_prior_and_the_preparation(make_gan):
    gan = make_gan(prior="uniform")
    detector = AnoGAN.from_gan(gan, restarts=3, candidates=5)
    assert detector.search_settings.prior == "uniform" and detector.preprocessing.image_shape == (16, 16, 1)
    assert detector._starts.shape == (5, 4) and np.abs(detector._starts).max() <= 1.0


@pytest.mark.promise("file")
def test_calibrate_and_save(tiny_detector, pixels, tmp_path):
    assert tiny_detector.threshold is None
    tiny_detector.calibrate(pixels[:20], false_positive_rate=0.1)
    out = predict(tiny_detector, pixels)
    assert out.keys() == KEYS | {"p_value", "is_anomaly"}
    np.testing.assert_array_equal(out["is_anomaly"], out["score"] > tiny_detector.threshold)
    normal = out["score"][:20]
    np.testing.assert_allclose(out["p_value"], [(1 + (normal >= s).sum()) / 21 for s in out["score"]], rtol=1e-6)
    tiny_detector.save(tmp_path / "detector.keras")
    for again in (AnoGAN.load(tmp_path / "detector.keras"), keras.saving.load_model(tmp_path / "detector.keras")):
        assert again._settings() == tiny_detector._settings() and again.threshold == tiny_detector.threshold
        assert_same(out, predict(again, pixels))
        np.testing.assert_array_equal(again.heatmap(out["anomaly_map"]), tiny_detector.heatmap(out["anomaly_map"]))


def test_scores_do_not_depend_on_the_other_queries(tiny_detector, pixels):
    """No scaling by what else is scored: neither minimum and maximum nor mean."""
    tiny_detector.calibrate(pixels[:20])
    alone, company = predict(tiny_detector, pixels[20:22]), predict(tiny_detector, np.concatenate([pixels[20:22], 255 - pixels]))
    assert_same(company, alone, slice(0, 2))


@pytest.mark.promise("threshold")
def test_a_calibration_holds_for_its_settings_alone(tiny_detector, pixels):
    tiny_detector.calibrate(pixels[:20])
    other = tiny_detector.with_settings(steps=4, weight=0.2)
    assert other.calibration is None and "p_value" not in predict(other, pixels)
    other.calibration = tiny_detector.calibration
    for use in (other.predict, other.predict_on_batch, other):
        with pytest.raises(ValueError, match=r"weight=0.1 \(now 0.2\), steps=3 \(now 4\).*calibrate\(\) again"):
            use(pixels)
    other.calibrate(pixels[:20])
    assert (predict(other, pixels)["steps"] == 4).all()
    with pytest.raises(AttributeError):
        other.search_settings = tiny_detector.search_settings
    relative = tiny_detector.with_settings(score="complexity")
    relative.calibration = tiny_detector.calibration
    with pytest.raises(ValueError, match="score='loss' .now 'complexity'"):
        predict(relative, pixels)


def scores_by_others(losses, complexities):
    """Each image's score by the line and the deviation of all the others."""
    borders, scores = np.full(len(losses), ALL_BORDERS), []
    for row in range(len(losses)):
        others = np.arange(len(losses)) != row
        line = Complexity.fit(losses[others], complexities[others], borders[others])
        pooled = line.score_tiles(losses, complexities.astype(np.float32), borders).numpy()
        scores.append(((pooled - pooled[others].mean()) / pooled[others].std())[row])
    return scores


def test_scores_relative_to_complexity_are_deviations_of_normals(tiny_gan, pixels, tmp_path):
    detector = AnoGAN.from_gan(tiny_gan, steps=3, score="complexity")
    with pytest.raises(ValueError, match="held-out normal images: call calibrate"):
        predict(detector, pixels)
    out = predict(detector.calibrate(pixels), pixels)
    assert out["score"].mean() == pytest.approx(0.0, abs=1e-3) and out["score"].std() == pytest.approx(1.0, abs=1e-3)
    line, busy = detector.calibration.complexity, np.log(image_complexity(detector.preprocessing(pixels)))
    losses = predict(detector.with_settings(score="loss"), pixels)["score"]
    np.testing.assert_allclose(detector.calibration.scores, np.sort(scores_by_others(losses, np.exp(busy))), rtol=1e-3, atol=1e-4)
    above = np.log(losses) - line.intercepts[15] - line.slopes[15] * np.minimum(busy, line.max_complexity[15])
    np.testing.assert_allclose(out["score"], above / line.deviations[15], atol=1e-3)
    for rows in (slice(3, 4), slice(5, 22)):
        assert_same(out, predict(detector, pixels[rows]), rows)
    detector.save(tmp_path / "detector.keras")
    assert_same(out, predict(AnoGAN.load(tmp_path / "detector.keras"), pixels))


def test_the_peak_is_the_brightest_spot_of_the_smoothed_residual(tiny_gan, pixels, tmp_path):
    detector = AnoGAN.from_gan(tiny_gan, steps=3, score="peak").calibrate(pixels)
    out = predict(detector, pixels)
    blurred = gaussian_filter(out["residual"].mean(axis=-1), (0, 1, 1), mode="reflect", truncate=3)
    np.testing.assert_allclose(out["score"], blurred.max(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(np.sort(out["score"]), detector.calibration.scores)
    for rows in (slice(3, 4), slice(5, 22)):
        assert_same(out, predict(detector, pixels[rows]), rows)
    detector.save(tmp_path / "detector.keras")
    assert_same(out, predict(AnoGAN.load(tmp_path / "detector.keras"), pixels))


def test_surprise_by_transforms_is_part_of_the_relative_score(make_gan, pixels, tmp_path):
    gan = make_gan(self_supervision=0.5)
    gan.fit(pixels, epochs=2, verbose=0)
    detector = AnoGAN.from_gan(gan, steps=2, score="complexity").calibrate(pixels)
    out = predict(detector, pixels)
    images, fitted = np.asarray(detector.preprocessing(pixels)), detector.calibration.complexity
    extractor, tables = architectures.feature_extractor(gan.discriminator), transform_tables(16, 16)
    pretext_losses = []
    for number, table in enumerate(tables):
        logits = np.asarray(gan.classifier(extractor(images.reshape(40, 256)[:, table].reshape(images.shape))))
        pretext_losses.append(np.log(np.exp(logits - logits[:, [number]]).sum(1)))
    logs = np.log(np.mean(pretext_losses, axis=0) + 0.01)
    np.testing.assert_allclose(fitted.pretext, [logs.mean(), logs.std(), 1.0], rtol=1e-3)
    alone = predict(detector.with_settings(pretext=0.0).calibrate(pixels), pixels)["score"]
    total = alone + (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(out["score"], (total - total.mean()) / total.std(), atol=3e-2)
    assert_same(out, predict(detector, pixels[7:9]), slice(7, 9))
    detector.save(tmp_path / "detector.keras")
    assert_same(out, predict(AnoGAN.load(tmp_path / "detector.keras"), pixels))


def test_a_failed_calibration_keeps_the_old_one(tiny_detector, pixels):
    tiny_detector.calibrate(pixels[:20])
    threshold = tiny_detector.threshold

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_detector.calibrate(pixels, on_progress=interrupt)
    assert tiny_detector.threshold == threshold
    with pytest.raises(ValueError, match="5 normal images are too few"):
        tiny_detector.calibrate(pixels[:5])
    assert tiny_detector.threshold == threshold


def test_datasets_and_single_batches(tiny_detector, pixels):
    whole = predict(tiny_detector, pixels)
    assert_same(whole, predict(tiny_detector, tf.data.Dataset.from_tensor_slices(pixels).batch(9)))
    assert_same(whole, {name: np.asarray(value) for name, value in tiny_detector.predict_on_batch(pixels).items()})
    assert_same(whole, predict(tiny_detector, np.asarray(tiny_detector.preprocessing.prepare(pixels))))


def test_mixed_bfloat16_keeps_latents_and_scores_whole_and_is_saved(make_gan, pixels, tmp_path):
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        gan = make_gan()
        detector = AnoGAN.from_gan(gan, steps=3)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    out = predict(detector, pixels)
    assert {out[name].dtype.name for name in ("score", "z", "residual", "anomaly_map", "reconstruction")} == {"float32"}
    detector.save(tmp_path / "detector.keras")
    again = AnoGAN.load(tmp_path / "detector.keras")
    assert again.generator.get_layer("pixels").compute_dtype == "bfloat16"
    assert_same(out, predict(again, pixels))


def test_errors(tiny_detector, tiny_gan, pixels):
    with pytest.raises(ValueError, match="x: image 1 holds NaN"):
        predict(tiny_detector, np.array([pixels[0] / 255.0, np.nan * pixels[0]]))
    with pytest.raises(ValueError, match="call calibrate"):
        tiny_detector.heatmap(np.zeros((1, 16, 16, 1)))
    with pytest.raises(ValueError, match="no layer named 'nowhere'"):
        AnoGAN.from_gan(tiny_gan, features="nowhere")
    with pytest.raises(TypeError, match="lam: no such setting; there are anomaly_map, block, .*weight"):
        AnoGAN.from_gan(tiny_gan, lam=0.1)
    with pytest.raises(ValueError, match="jit_compile=True needs blocks"):
        AnoGAN.from_gan(tiny_gan, jit_compile=True, block=None)
    with pytest.raises(ValueError, match="weight=2"):
        AnoGAN.from_gan(tiny_gan, weight=2.0)
    with pytest.raises(ValueError, match="Pixels hold .* outside"):
        predict(tiny_detector, tf.data.Dataset.from_tensor_slices(pixels.astype(np.float32)).batch(8))


@pytest.fixture
def tiny_encoder():
    return architectures.build_encoder((16, 16, 1), 4, base_filters=4)


@pytest.mark.promise("search")
def test_with_an_encoder_it_refines(tiny_gan, tiny_encoder, pixels, tmp_path):
    detector = AnoGAN.from_gan(tiny_gan, tiny_encoder)
    assert detector.search_settings == SearchSettings(mode="refine")
    out = predict(detector, pixels)
    detector.save(tmp_path / "detector.keras")
    again = AnoGAN.load(tmp_path / "detector.keras")
    assert again.search_settings == detector.search_settings
    assert_same(out, predict(again, pixels))


def test_the_encoder_alone_takes_its_z(tiny_gan, tiny_encoder, pixels):
    detector = AnoGAN.from_gan(tiny_gan, tiny_encoder, mode="encoder")
    out = predict(detector, pixels)
    np.testing.assert_allclose(out["z"], tiny_encoder(detector.preprocessing(pixels), training=False), rtol=1e-3, atol=1e-6)
    assert not out["steps"].any()


def test_f_anogans_score(tiny_gan, tiny_encoder, pixels):
    """Mean squares of residual and features, with kappa between them (Schlegl et al. 2019, eq. 6)."""
    out = predict(AnoGAN.from_gan(tiny_gan, tiny_encoder, mode="encoder", loss="f-anogan", kappa=2.0), pixels)
    images = tiny_gan.preprocessing(pixels)
    f = architectures.feature_extractor(tiny_gan.discriminator)
    made = 2.0 * out["reconstruction"] - 1.0
    residual = np.mean((np.asarray(images) - made) ** 2, axis=(1, 2, 3))
    features = np.mean((np.asarray(f(images, training=False)) - np.asarray(f(made, training=False))) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(out["score"], residual + 2.0 * features, rtol=1e-3)


def test_a_mode_that_needs_an_encoder_says_so(tiny_gan, tiny_encoder):
    with pytest.raises(ValueError, match="mode='refine' needs an encoder"):
        AnoGAN.from_gan(tiny_gan, mode="refine")
    detector = AnoGAN.from_gan(tiny_gan)
    with pytest.raises(ValueError, match="mode='encoder' needs an encoder"):
        detector.with_settings(mode="encoder")
    with pytest.raises(ValueError, match="The encoder maps"):
        AnoGAN.from_gan(tiny_gan, architectures.build_encoder((16, 16, 1), 7, base_filters=4))


def test_bfloat16_networks_score_nearly_the_same(trained_gan, trained_encoder, boots):
    pixels = boots.test[250:350]
    whole, rounded = (
        predict(AnoGAN.from_gan(trained_gan, trained_encoder, mode="encoder", precision=precision), pixels)
        for precision in ("float32", "bfloat16")
    )
    assert rounded["score"].dtype == rounded["z"].dtype == np.float32
    np.testing.assert_allclose(rounded["score"], whole["score"], rtol=0.05)
    assert not np.array_equal(rounded["score"], whole["score"])


@pytest.mark.parametrize("settings", [{}, {"restarts": 2}, {"candidates": 5}, {"precision": "bfloat16"}])
def test_refined_scores_are_an_images_own(trained_gan, trained_encoder, boots, settings):
    detector = AnoGAN.from_gan(trained_gan, trained_encoder, **settings)
    pixels = boots.test[280:320]
    together = predict(detector, pixels)
    order = np.random.default_rng(0).permutation(40)
    assert_same(together, predict(detector, pixels[order]), order)
    assert_same(together, predict(detector, pixels[7:8]), slice(7, 8))
    assert_same(together, predict(detector, pixels, batch_size=9))


def test_a_graph_that_comes_too_early_says_so(tiny_gan, pixels):
    detector = AnoGAN.from_gan(tiny_gan, steps=3)
    with pytest.raises(RuntimeError, match="predict"):
        tf.function(detector.call)(tf.constant(pixels))
    expected = predict(detector, pixels)
    np.testing.assert_array_equal(tf.function(detector.call)(tf.constant(pixels))["score"], expected["score"])


@pytest.fixture
def tiled(tiny_gan):
    preprocessing = Preprocessing((None, None, 1), scale=0.5, normalize=True)
    return AnoGAN.from_gan(tiny_gan, steps=3, preprocessing=preprocessing, tiling=Tiling(stride=8, top=2))


def photographs(count=20, seed=1):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*draw.integers(20, 80, 2), 3), np.uint8) for _ in range(count)]


@pytest.mark.promise("tiles")
def test_tiles_of_many_images_in_one_search_are_each_images_own(tiled):
    pictures = photographs()
    together = tiled.predict(pictures)
    assert together["score"].shape == (20,) and "z" not in together
    for row, picture in enumerate(pictures[:5]):
        alone = tiled.predict([picture])
        for name in ("score", "residual_score", "discrimination_score", "steps", "converged"):
            assert alone[name][0] == together[name][row], name
        for name in ("residual", "anomaly_map", "reconstruction"):
            np.testing.assert_array_equal(alone[name][0], together[name][row])
        assert together["residual"][row].shape == (round(picture.shape[0] / 2), round(picture.shape[1] / 2), 1)


@pytest.mark.promise("tiles")
def test_an_image_is_scored_by_its_tiles(tiled, tiny_gan):
    """One tile after another through the detector of tiles gives the same scores, and the image the mean of the two highest."""
    picture = photographs(1)[0]
    image = tiled.preprocessing.read(picture)
    height, width = image.shape[:2]
    places = [(y, x) for y in [*range(0, height - 16, 8), height - 16] for x in [*range(0, width - 16, 8), width - 16]]
    tiles = np.stack([image[y : y + 16, x : x + 16] for y, x in places])
    one_by_one = AnoGAN.from_gan(tiny_gan, steps=3).predict(tiles, verbose=0)
    out = tiled.predict([picture])
    highest = np.argsort(-one_by_one["score"])[:2]
    for name in ("score", "residual_score", "discrimination_score"):
        np.testing.assert_allclose(out[name], one_by_one[name][highest].mean(), rtol=1e-6)
    y, x = height // 2, width // 2

    def weight(top, left):
        along = [min(at - first, 15 - at + first) + 1 if 0 <= at - first < 16 else 0 for at, first in ((y, top), (x, left))]
        return along[0] * along[1]

    seen = [weight(*place) for place in places]
    residuals = [
        tile[y - top, x - left, 0] if weight else 0 for tile, weight, (top, left) in zip(one_by_one["residual"], seen, places)
    ]
    np.testing.assert_allclose(out["residual"][0][y, x, 0], np.average(residuals, weights=seen), rtol=1e-5)


def test_tiles_are_compared_with_tiles_and_images_with_images(tiled, tmp_path, monkeypatch):
    monkeypatch.setattr(complexity, "MIN_TILES_ALIKE", 5)
    monkeypatch.setattr(calibration, "FEW", 0)
    pictures = photographs(30)
    detector = tiled.with_settings(score="complexity").calibrate(pictures, 0.1)
    out = predict(detector, pictures)
    assert out["score"].mean() == pytest.approx(0.0, abs=1e-3) and out["score"].std() == pytest.approx(1.0, abs=1e-3)
    np.testing.assert_array_equal(np.sort(out["score"]), detector.calibration.scores)
    assert len(set(detector.calibration.complexity.intercepts)) > 4
    np.testing.assert_array_equal(predict(detector, pictures[3:4])["score"], out["score"][3:4])
    detector.save(tmp_path / "tiled.keras")
    np.testing.assert_array_equal(predict(AnoGAN.load(tmp_path / "tiled.keras"), pictures)["score"], out["score"])


def test_a_tiled_detector_is_calibrated_by_images_and_saved_whole(tiled, tmp_path):
    pictures = photographs()
    tiled.calibrate(pictures, false_positive_rate=0.1)
    out = tiled.predict(pictures)
    np.testing.assert_array_equal(np.sort(out["score"]), tiled.calibration.scores)
    heats = tiled.heatmap(out["anomaly_map"])
    assert [heat.shape for heat in heats] == [residual.shape[:2] for residual in out["residual"]]
    tiled.save(tmp_path / "tiled.keras")
    again = AnoGAN.load(tmp_path / "tiled.keras")
    assert again.tiling == Tiling(8, 2) and again.preprocessing.scale == 0.5 and again.preprocessing.normalize
    reloaded = again.predict(pictures)
    for name in ("score", "p_value", "is_anomaly"):
        np.testing.assert_array_equal(out[name], reloaded[name])
    np.testing.assert_array_equal(out["residual"][3], reloaded["residual"][3])


def test_arrays_batches_and_lists_are_cut_alike(tiled):
    pixels = np.stack([photographs(1, seed=2)[0]] * 3)
    listed, array = tiled.predict(list(pixels)), tiled.predict(pixels)
    dataset = tiled.predict(tf.data.Dataset.from_tensor_slices(pixels).batch(2), verbose=0)
    for other in (array, dataset, {name: value.numpy() for name, value in tiled(pixels).items()}):
        np.testing.assert_array_equal(listed["score"], other["score"])
        np.testing.assert_array_equal(np.stack(listed["residual"]), other["residual"])


def test_a_list_of_any_sizes_is_what_its_images_are(tiny_detector):
    pictures = photographs()
    out = tiny_detector.predict(pictures)
    assert [image.shape for image in out["residual"]] == [(16, 16, 1)] * 20 and out["z"].shape == (20, 4)
    np.testing.assert_array_equal(out["score"][7], tiny_detector.predict(pictures[7][np.newaxis], verbose=0)["score"][0])
    with pytest.raises(ValueError, match=r"x\[1\].*4 channels"):
        tiny_detector.predict([pictures[0], np.zeros((20, 20, 4), np.uint8)])
    with pytest.raises(ValueError, match="x holds no images"):
        tiny_detector.predict([])


def test_tiles_need_a_preparation_of_their_channels_and_a_stride(tiny_gan):
    with pytest.raises(ValueError, match="images of 3 channels, the networks take 1"):
        AnoGAN.from_gan(tiny_gan, preprocessing=Preprocessing((None, None, 3)), tiling=Tiling(8))
    with pytest.raises(ValueError, match="would leave gaps"):
        AnoGAN.from_gan(tiny_gan, preprocessing=Preprocessing((None, None, 1)), tiling=Tiling(17))
    with pytest.raises(ValueError, match="preprocessing makes images of shape"):
        AnoGAN.from_gan(tiny_gan, preprocessing=Preprocessing((None, None, 1)))


def test_tiles_of_a_gan_without_a_preparation_are_cut_from_images_of_their_own_size(tiny_gan):
    detector = AnoGAN.from_gan(tiny_gan, steps=3, tiling=Tiling(8))
    assert detector.predict(photographs(3))["residual"][0].shape[:2] == photographs(1)[0].shape[:2]
    with pytest.raises(AttributeError):
        detector.tiling = Tiling(4)


def test_batches_of_differing_sizes_are_predicted_as_lists(tiled):
    pictures = photographs(4)

    def batches():
        for picture in pictures:
            yield picture[np.newaxis]

    dataset = tf.data.Dataset.from_generator(batches, output_signature=tf.TensorSpec((None, None, None, 3), tf.uint8))
    out = tiled.predict(dataset)
    np.testing.assert_array_equal(out["score"], tiled.predict_on_batch(pictures)["score"])
    assert [residual.shape[0] for residual in out["residual"]] == [round(picture.shape[0] / 2) for picture in pictures]


def test_what_a_detector_cannot_do_it_says(tiny_detector, pixels, tmp_path):
    for method in ("fit", "compile", "train_on_batch"):
        with pytest.raises(NotImplementedError, match=rf"AnoGAN.{method}\(\) isn't available: .*AnoGAN.from_gan"):
            getattr(tiny_detector, method)(pixels)
    with pytest.raises(NotImplementedError, match=r"AnoGAN.evaluate\(\) isn't available: call anogan_tf.evaluate"):
        tiny_detector.evaluate(pixels)
    with pytest.raises(ValueError, match="format='onnx'.*exported as format='tf_saved_model'"):
        tiny_detector.export(tmp_path, format="onnx")
    with pytest.raises(ValueError, match="input_signature=.*signatures of its own"):
        tiny_detector.export(tmp_path, "tf_saved_model", input_signature=[])


def test_of_a_list_a_list_and_no_argument_is_passed_over(tiny_detector, pixels):
    out = tiny_detector.predict(list(pixels[:3]))
    assert [image.shape for image in out["residual"]] == [(16, 16, 1)] * 3 and isinstance(out["reconstruction"], list)
    assert isinstance(predict(tiny_detector, pixels[:3])["residual"], np.ndarray)
    with pytest.raises(ValueError, match="verbose=, steps= is for arrays and datasets"):
        tiny_detector.predict(list(pixels[:3]), verbose=1, steps=2)
    with pytest.raises(ValueError, match="a dataset has batches of its own"):
        tiny_detector.predict(tf.data.Dataset.from_tensor_slices(pixels).batch(9), batch_size=4)


def test_sequential_networks_are_taken(make_gan, pixels, tmp_path):
    gan = make_gan()
    parts = (gan.ema_generator, gan.discriminator, architectures.build_encoder((16, 16, 1), 4, base_filters=4))
    stacked = []
    for part in parts:
        own = (type(layer).from_config(layer.get_config()) for layer in part.layers[1:])
        stacked.append(keras.Sequential([keras.Input(part.input_shape[1:]), *own]))
    for network, part in zip(stacked, parts):
        network.set_weights(part.get_weights())
    detectors = [AnoGAN(*networks, steps=2) for networks in (parts, stacked)]
    assert_same(*(predict(detector, pixels[:5]) for detector in detectors))
    detectors[1].save(tmp_path / "detector.keras")
    assert_same(predict(detectors[0], pixels[:5]), predict(AnoGAN.load(tmp_path / "detector.keras"), pixels[:5]))


def test_networks_that_do_not_fit_are_named_when_the_model_is_made(make_gan):
    gan, image = make_gan(), keras.Input((16, 16, 1))
    flat = keras.Model(image, keras.layers.Flatten(name="features")(image))
    with pytest.raises(ValueError, match=r"The discriminator gives \(None, 256\); it must give one logit"):
        AnoGAN(gan.generator, flat)
    with pytest.raises(ValueError, match=r"The generator maps .*; it must map z to images"):
        AnoGAN(flat, gan.discriminator)

    class Own(keras.Model):
        pass

    with pytest.raises(ValueError, match="The encoder is a Own; it must be a functional or Sequential"):
        AnoGAN(gan.generator, gan.discriminator, Own())

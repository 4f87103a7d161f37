"""Baselines against their closed forms; the paper's comparisons on tiny networks."""

import numpy as np
import pytest

from anogan_tf.data.preprocessing import Preprocessing, to_network
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.evaluation import baselines, metrics
from anogan_tf.networks import losses
from benchmarks.autoencoder import AdversarialAutoencoder, train_autoencoder


def test_pca_residual_against_the_svd():
    rng = np.random.default_rng(0)
    train, queries = rng.integers(0, 256, (50, 16, 16), np.uint8), rng.integers(0, 256, (7, 16, 16), np.uint8)
    x, q = train.reshape(50, -1) / 255.0, queries.reshape(7, -1) / 255.0
    basis = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:5]
    error = (q - x.mean(0)) @ (np.eye(256) - basis.T @ basis)
    np.testing.assert_allclose(
        baselines.pca_residual(train, queries, Preprocessing((16, 16, 1)), 5), (error**2).sum(1), rtol=1e-3
    )


def test_pca_on_the_built_in_set(boots):
    scores = baselines.pca_residual(boots.train, boots.test, Preprocessing((28, 28, 1)))
    np.testing.assert_allclose(metrics.auroc(boots.test_label, scores), 0.978, atol=0.002)


def test_nearest_neighbours_by_hand():
    rng = np.random.default_rng(1)
    train, queries = rng.integers(0, 256, (30, 16, 16), np.uint8), rng.integers(0, 256, (5, 16, 16), np.uint8)
    x, q = train.reshape(30, -1) / 255.0, queries.reshape(5, -1) / 255.0
    basis = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:4]
    distances = np.linalg.norm(((q - x.mean(0)) @ basis.T)[:, None] - (x - x.mean(0)) @ basis.T, axis=-1)
    found = baselines.nearest_neighbours(train, queries, Preprocessing((16, 16, 1)), 4, neighbours=2)
    np.testing.assert_allclose(found, np.sort(distances)[:, :2].mean(1), rtol=1e-3)


def test_nearest_pixels_by_hand():
    rng = np.random.default_rng(2)
    train, queries = rng.integers(0, 256, (20, 16, 16, 3), np.uint8), rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / 0.7) ** 2)
    kernel /= kernel.sum()

    def blurred(pixels):
        padded = np.pad(pixels / 255.0, [(0, 0), (3, 3), (3, 3), (0, 0)], mode="symmetric")
        down = sum(weight * padded[:, shift : shift + 16] for shift, weight in enumerate(kernel))
        return sum(weight * down[:, :, shift : shift + 16] for shift, weight in enumerate(kernel)).reshape(len(pixels), -1)

    distances = np.linalg.norm(blurred(queries)[:, None] - blurred(train), axis=-1)
    found = baselines.nearest_pixels(train, queries, Preprocessing((16, 16, 3)), neighbours=2)
    np.testing.assert_allclose(found, np.sort(distances)[:, :2].mean(1), rtol=1e-4)


def test_a_probe_by_complexity_is_above_what_other_folds_make_of_normals_as_busy():
    rng = np.random.default_rng(3)
    contrast = rng.uniform(0.1, 1.0, (60, 1, 1))
    train = (0.5 + contrast * (rng.random((60, 16, 16)) - 0.5)).astype(np.float32)
    preprocessing = Preprocessing((16, 16, 1))
    found = baselines.by_complexity(baselines.nearest_pixels, train, train[:10] * 0.5, preprocessing, folds=60)

    def own(images, others):
        return np.log(baselines.nearest_pixels(others, images, preprocessing))

    def busy(images):
        across, down = (np.abs(np.diff(2.0 * images, axis=axis)).sum((1, 2)) for axis in (2, 1))
        return np.log((across + down) / 256 + 1e-4)

    y = np.concatenate([own(train[[row]], np.delete(train, row, axis=0)) for row in range(60)])
    most = np.quantile(busy(train), 0.99)
    x = np.minimum(busy(train), most)
    slope = np.cov(x, y, bias=True)[0, 1] / (x.var() + 0.02**2)
    rest = y - slope * x
    queries = train[:10] * 0.5
    expected = (own(queries, train) - slope * np.minimum(busy(queries), most) - rest.mean()) / rest.std()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert slope > 0.8, "the busier, the farther, is what the images are made for"


def test_every_probe_puts_noise_above_boots(boots):
    noise = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    queries, labels = np.concatenate([boots.test[boots.test_label == 0][:20], noise]), np.repeat([0, 1], 20)
    for name, baseline in baselines.BASELINES.items():
        assert metrics.auroc(labels, baseline(boots.train[:300], queries, Preprocessing((28, 28, 1)))) > 0.95, name


def test_the_discriminator_s_score_is_its_logit_with_the_sign_changed(tiny_detector, pixels):
    logits = tiny_detector.discriminator(to_network(pixels / np.float32(255)), training=False)
    np.testing.assert_allclose(
        baselines.discriminator_score(tiny_detector, pixels, batch_size=16), -np.asarray(logits)[:, 0], rtol=1e-5
    )


def test_the_reference_search_scores_by_the_reference_loss(tiny_gan, pixels):
    detector = AnoGAN.from_gan(tiny_gan, **{**baselines.GAN_R, "steps": 3})
    out = detector.predict(pixels[:4], verbose=0)
    fakes = tiny_gan.ema_generator(out["z"], training=False)
    reference = losses.reference_loss(tiny_gan.discriminator(fakes, training=False))
    np.testing.assert_allclose(out["score"], 0.9 * out["residual_score"] + 0.1 * np.asarray(reference), rtol=1e-5)
    assert detector.search_settings.keep == "last"


def test_features_are_embedded_in_the_plane_alike_each_time():
    features = np.concatenate([np.random.default_rng(0).normal(centre, 0.1, (12, 6)) for centre in (0.0, 5.0)])
    points = baselines.embed_features(features)
    assert points.shape == (24, 2)
    np.testing.assert_array_equal(points, baselines.embed_features(features))
    apart = np.linalg.norm(points[:12].mean(0) - points[12:].mean(0))
    assert apart > 2 * np.linalg.norm(points[:12] - points[:12].mean(0), axis=1).mean()


@pytest.mark.usefixtures("networks")
def test_the_autoencoder_learns_to_copy_and_is_a_detector(boots):
    options = {"epochs": 15, "batch_size": 8, "latent_dim": 8, "base_filters": 8}
    detector = train_autoencoder(boots.train[:320], (16, 16, 1), **options)
    out = detector.predict(boots.test, verbose=0)
    assert metrics.auroc(boots.test_label, out["score"]) > 0.7
    assert detector.search_settings.mode == "encoder" and out["steps"].max() == 0


@pytest.mark.usefixtures("networks")
def test_the_autoencoder_s_losses(pixels, tmp_path):
    autoencoder = AdversarialAutoencoder((16, 16, 1), 4, base_filters=4, adversarial_weight=0.25)
    autoencoder.compile()
    history = autoencoder.fit(pixels, epochs=1, batch_size=40, verbose=0).history
    assert history["discriminator_loss"][0] > 0.0
    total, copying = history["loss"][0], history["reconstruction_loss"][0]
    # before the first step the discriminator's logit is near 0: -log D is near log 2
    np.testing.assert_allclose(total, 0.75 * copying + 0.25 * np.log(2.0), atol=0.05)
    autoencoder.save(tmp_path / "copy.keras")
    again = AdversarialAutoencoder.load(tmp_path / "copy.keras", trusted=["anogan_tf>AdversarialAutoencoder"])
    images = to_network(pixels[:3] / np.float32(255))
    np.testing.assert_array_equal(again(images), autoencoder(images))
    assert again.adversarial_weight == 0.25 and int(again.optimizer.iterations) == 1


def test_another_objective_has_another_critic(make_gan):
    assert make_gan(objective="hinge").discriminator.get_layer("down2").layer.use_bias

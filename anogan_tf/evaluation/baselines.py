"""What the anomaly score is compared with: the methods of Schlegl et al. 2017, and cheap baselines that need no network.

Every function takes pixels as `GAN.fit` and `AnoGAN.predict` do, and gives scores `[N]`; higher is more anomalous.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM

from anogan_tf.data.preprocessing import Preprocessing, to_network
from anogan_tf.detection.complexity import ALL_BORDERS, Complexity, image_complexity
from anogan_tf.detection.detector import SCORING_BATCH, AnoGAN
from anogan_tf.detection.memory_bank import BLUR, NEIGHBOURS
from anogan_tf.networks import architectures
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.types import PixelArrays
from anogan_tf.search.settings import PAPER

COMPONENTS = 32  # of every PCA
FOLDS = 5
# GAN_R: AnoGAN with the loss of Yeh et al. in the search, `AnoGAN.from_gan(gan, **GAN_R)`.
GAN_R = {**PAPER, "loss": "reference"}


def pca_residual(
    train: PixelArrays, queries: PixelArrays, preprocessing: Preprocessing, components: int = COMPONENTS
) -> np.ndarray:
    """Squared residual of a linear PCA: the cheap baseline that every table of scores should carry.

    Args:
        train: pixels of normal images.
        queries: pixels to score.
        preprocessing: the `Preprocessing` of both.
        components: how many principal components reconstruct an image.

    Returns:
        `[N]`.
    """
    train, queries = (_vectors(preprocessing, pixels) for pixels in (train, queries))
    pca = _fit_pca(train, components)
    return ((queries - pca.inverse_transform(pca.transform(queries))) ** 2).sum(axis=1)


def nearest_neighbours(
    train: PixelArrays,
    queries: PixelArrays,
    preprocessing: Preprocessing,
    components: int = COMPONENTS,
    neighbours: int = NEIGHBOURS,
) -> np.ndarray:
    """Mean distance to the nearest normal images, on the scores of a PCA.

    Args:
        train, queries, preprocessing, components: as for `pca_residual`.
        neighbours: how many.

    Returns:
        `[N]`.
    """
    return _mean_distance(_pca_scores(train, queries, preprocessing, components), neighbours)


def nearest_pixels(
    train: PixelArrays, queries: PixelArrays, preprocessing: Preprocessing, neighbours: int = NEIGHBOURS, sigma: float = BLUR
) -> np.ndarray:
    """Mean distance to the nearest normal images, pixel by pixel, all of them slightly blurred: no model at all.

    Args:
        train, queries, preprocessing, neighbours: as for `nearest_neighbours`.
        sigma: of the Gaussian, in pixels.

    Returns:
        `[N]`.
    """
    blurred = [gaussian_filter(_prepared(preprocessing, pixels), (0, sigma, sigma, 0)) for pixels in (train, queries)]
    return _mean_distance([images.reshape(len(images), -1) for images in blurred], neighbours)


def _mean_distance(points, neighbours):
    train, queries = points
    nearest = NearestNeighbors(n_neighbors=min(neighbours, len(train))).fit(train)
    return nearest.kneighbors(queries)[0].mean(axis=1)


def one_class_svm(
    train: PixelArrays, queries: PixelArrays, preprocessing: Preprocessing, components: int = COMPONENTS, nu: float = 0.1
) -> np.ndarray:
    """One-class support vector machine (Schölkopf et al. 2001) on the scores of a PCA, each scaled to deviation 1.

    Args:
        train, queries, preprocessing, components: as for `pca_residual`.
        nu: bound of the share of normal images that lie outside.

    Returns:
        `[N]`.
    """
    points, queried = _pca_scores(train, queries, preprocessing, components)
    scale = np.maximum(points.std(axis=0), 1e-6 * points.std(axis=0).max() + 1e-12)
    return -OneClassSVM(nu=nu, gamma="scale").fit(points / scale).score_samples(queried / scale)


# By the names that tables call them.
BASELINES: dict[str, Callable[..., np.ndarray]] = {
    f"PCA-{COMPONENTS}, squared residual": pca_residual,
    f"3 nearest neighbours on PCA-{COMPONENTS}": nearest_neighbours,
    "3 nearest neighbours on pixels": nearest_pixels,
    f"one-class SVM on PCA-{COMPONENTS}": one_class_svm,
}
# Those whose scores have a logarithm, and are worth the while.
BY_COMPLEXITY = {
    f"{name}, by complexity": baseline for name, baseline in BASELINES.items() if baseline in (pca_residual, nearest_pixels)
}


def by_complexity(
    baseline: Callable[..., np.ndarray],
    train: PixelArrays,
    queries: PixelArrays,
    preprocessing: Preprocessing,
    folds: int = FOLDS,
    seed: int = 0,
) -> np.ndarray:
    """Scores of a baseline relative to normal images as busy, in their standard deviations, as `Complexity` has it.

    Each training image's own score, to which the line is fitted, is of the baseline fitted to the other folds.

    Args:
        baseline: of `BY_COMPLEXITY`.
        train, queries, preprocessing: as for the baseline.
        folds: how many.
        seed: of the folds.

    Returns:
        `[N]`.
    """
    train = preprocessing.check(train)
    fold = np.random.default_rng(seed).permutation(len(train)) % min(folds, len(train))
    scores = np.empty(len(train), np.float32)
    for number in np.unique(fold):
        scores[fold == number] = baseline(train[fold != number], train[fold == number], preprocessing)
    groups = ((scores, train), (baseline(train, queries, preprocessing), queries))
    of_train, of_queries = (
        (np.float32(found), np.asarray(image_complexity(preprocessing(pixels))), np.full(len(found), ALL_BORDERS))
        for found, pixels in groups
    )
    return np.asarray(Complexity.fit(*of_train).score_tiles(*of_queries))


def _pca_scores(train, queries, preprocessing, components):
    train, queries = (_vectors(preprocessing, pixels) for pixels in (train, queries))
    pca = _fit_pca(train, components)
    return pca.transform(train), pca.transform(queries)


def _fit_pca(vectors, components):
    # Centred, n images span n - 1 dimensions.
    return PCA(min(components, len(vectors) - 1, vectors.shape[1]), svd_solver="full").fit(vectors)


def _vectors(preprocessing, pixels):
    """Prepared images as `[N, H * W * C]`."""
    return _prepared(preprocessing, pixels).reshape(len(pixels), -1)


def _prepared(preprocessing, pixels):
    """Prepared images `[N, H, W, C]` in [0, 1]."""
    return np.asarray(preprocessing.prepare(preprocessing.check(pixels)))


def discriminator_score(detector: AnoGAN, queries: PixelArrays, batch_size: int = SCORING_BATCH) -> np.ndarray:
    """P_D: how far the discriminator takes an image for generated, its logit with the sign changed.

    Args:
        detector: an `AnoGAN`.
        queries: pixels to score.
        batch_size: images judged at once.

    Returns:
        `[N]`.
    """
    pixels, outputs = detector.preprocessing.check(queries), discriminator_outputs(detector)
    parts = (pixels[first : first + batch_size] for first in range(0, len(pixels), batch_size))
    return np.concatenate([outputs(detector.preprocessing(part))[0] for part in parts])


def discriminator_outputs(detector):
    """What a detector's discriminator says of images `[N, H, W, C]` in [-1, 1], as a function to `(P_D [N], f(x) [N, F])`."""
    extractor = architectures.feature_extractor(detector.discriminator, detector.features)
    both = keras.Model(detector.discriminator.input, [detector.discriminator.output, extractor.output])

    def outputs(images):
        logits, features = (np.asarray(values) for values in both(images, training=False))
        return -logits[:, 0], features.reshape(len(features), -1)

    return outputs


def embed_features(features: np.ndarray, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """t-SNE of the discriminator's features (van der Maaten and Hinton 2008), as Schlegl et al. 2017 draw them.

    Args:
        features: `[N, F]`, of `feature_extractor`, flat.
        perplexity: about how many neighbours a point has; less where there are few points.
        seed: of the embedding.

    Returns:
        `[N, 2]`.
    """
    features = PCA(min(50, *features.shape), random_state=seed).fit_transform(features)
    perplexity = min(perplexity, (len(features) - 1) / 3.0)
    return TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(features)


def pca_detector(pixels, image_shape, components=COMPONENTS, **options):
    """A PCA as an `AnoGAN`: its networks are linear, its score the mean squared residual. For what needs maps or tiles.

    Args:
        pixels: of normal images, or tiles of them, `[N, H, W, C]` float in [0, 1], of the networks' shape.
        image_shape: `(H, W, C)`.
        components: how many.
        **options: as for `AnoGAN`: preprocessing, tiling.

    Returns:
        An `AnoGAN` with the mode "encoder".
    """
    layers, size = keras.layers, int(np.prod(image_shape))
    pca = _fit_pca(np.asarray(to_network(np.asarray(pixels))).reshape(len(pixels), size), components)
    images, latents = layers.Input(image_shape), layers.Input((pca.n_components_,))
    encoder = keras.Model(images, layers.Dense(pca.n_components_, name="latent")(layers.Flatten()(images)))
    generator = keras.Model(latents, layers.Reshape(image_shape)(layers.Dense(size, name="components")(latents)))
    encoder.get_layer("latent").set_weights([pca.components_.T, -pca.mean_ @ pca.components_.T])
    generator.get_layer("components").set_weights([pca.components_, pca.mean_])
    # Judges nothing: its weight in the score is 0.
    outputs = layers.Dense(1, name="logit")(layers.Flatten(name=architectures.FEATURES)(layers.AveragePooling2D(16)(images)))
    discriminator = keras.Model(images, outputs)
    return AnoGAN(generator, discriminator, encoder, mode="encoder", loss="f-anogan", kappa=0.0, **options)

"""What the anomaly score is compared with."""

import numpy as np
from sklearn.decomposition import PCA

from anogan_tf.preparation import Preparation


def pca_residual(train, queries, image_shape, components=32):
    """Squared residual of a linear PCA: the cheap probe that every table of scores should carry.

    Args:
        train: pixels of normal images.
        queries: pixels to score.
        image_shape: `(H, W, C)` to prepare both at.
        components: how many principal components reconstruct an image.

    Returns:
        `[N]`, higher is more anomalous.
    """
    preparation = Preparation(image_shape)
    train, queries = (np.asarray(preparation.prepare(preparation.check(pixels))) for pixels in (train, queries))
    train, queries = (pixels.reshape(len(pixels), -1) for pixels in (train, queries))
    pca = PCA(min(components, *train.shape), svd_solver="full").fit(train)
    return ((queries - pca.inverse_transform(pca.transform(queries))) ** 2).sum(axis=1)

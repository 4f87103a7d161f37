import numpy as np

from anogan_tf import comparisons, metrics


def test_pca_residual_against_the_svd():
    rng = np.random.default_rng(0)
    train, queries = rng.integers(0, 256, (50, 16, 16), np.uint8), rng.integers(0, 256, (7, 16, 16), np.uint8)
    x, q = train.reshape(50, -1) / 255.0, queries.reshape(7, -1) / 255.0
    basis = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:5]
    error = (q - x.mean(0)) @ (np.eye(256) - basis.T @ basis)
    np.testing.assert_allclose(comparisons.pca_residual(train, queries, (16, 16, 1), 5), (error**2).sum(1), rtol=1e-3)


def test_pca_on_the_built_in_set(boots):
    scores = comparisons.pca_residual(boots.train, boots.test, (28, 28, 1))
    np.testing.assert_allclose(metrics.auroc(boots.test_label, scores), 0.978, atol=0.002)

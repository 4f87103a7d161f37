import numpy as np
import pytest

from anogan_tf.networks import latent


def test_draws_depend_on_the_seed_alone():
    a, b, c = (np.asarray(latent.draw("normal", 6, 3, (1, seed))) for seed in (0, 0, 1))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_draws_follow_the_prior():
    normal = np.asarray(latent.draw("normal", 20000, 2, (0, 0)))
    uniform = np.asarray(latent.draw("uniform", 20000, 2, (0, 0)))
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1.0) < 0.02
    assert uniform.min() >= -1.0 and uniform.max() <= 1.0 and abs(uniform.std() - 1 / np.sqrt(3)) < 0.01


@pytest.mark.parametrize("dimension", [4, 16, 128])
def test_the_ball_holds_99_of_100_draws(dimension):
    norms = np.linalg.norm(latent.draw("normal", 20000, dimension, (0, 0)), axis=1)
    assert abs((norms <= latent.ball_radius(dimension)).mean() - 0.99) < 0.005


def test_project():
    z = np.array([[30.0, 40.0], [0.3, -0.4]], np.float32)
    projected = np.asarray(latent.project("normal", z))
    np.testing.assert_allclose(projected[0], latent.ball_radius(2) * np.array([0.6, 0.8]), rtol=1e-6)
    np.testing.assert_allclose(projected[1], z[1], rtol=1e-6)
    np.testing.assert_allclose(latent.project("uniform", z), [[1, 1], [0.3, -0.4]])


def test_penalty():
    z = np.array([[3.0, 4.0], [0.5, -2.0]], np.float32)
    np.testing.assert_allclose(latent.penalty("normal", z), [12.5, 2.125])
    np.testing.assert_allclose(latent.penalty("uniform", z), [4.0 + 9.0, 1.0])


def test_unknown_prior():
    with pytest.raises(ValueError, match="prior='cauchy'.*normal.*uniform"):
        latent.draw("cauchy", 1, 1, (0, 0))

"""Adam against NumPy, BFGS on functions whose minima are known, and both in other coordinates."""

import numpy as np
import pytest
import tensorflow as tf

from anogan_tf.search.optimizers import BFGS, Adam


def minimise(optimizer, function, starts, steps):
    """Every z that was looked at, `[steps + 1, B, d]`, and the values there."""
    z = tf.constant(starts, tf.float32)
    state, looked_at, values = optimizer.start(z), [], []
    for _ in range(steps + 1):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = function(z)
        looked_at.append(z.numpy())
        values.append(value.numpy())
        state, z = optimizer.step(state, z, value, tape.gradient(value, z))
    return np.stack(looked_at), np.stack(values)


SCALES = np.array([1.0, 30.0, 900.0], np.float32)
CENTRE = np.array([3.0, -2.0, 0.5], np.float32)


def ellipsoid(z):
    return tf.reduce_sum(SCALES * tf.square(z - CENTRE), axis=-1)


def absolute(z):
    """What the search minimises: a sum of absolute values, more of them than unknowns."""
    weights = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) * np.sqrt(SCALES)
    return tf.reduce_sum(
        tf.abs(tf.matmul(z - CENTRE, weights, transpose_b=True) + np.linspace(-1, 1, 40, dtype=np.float32)), axis=-1
    )


def test_adam_against_numpy():
    looked_at, _ = minimise(Adam(0.1), ellipsoid, [[0.0, 0.0, 0.0]], 5)
    z, m, v = np.zeros((1, 3)), 0.0, 0.0
    for t in range(1, 6):
        gradient = 2 * SCALES * (z - CENTRE)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        z = z - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(looked_at[t], z, rtol=1e-4)


def test_adam_in_a_basis_is_adam_in_its_coordinates():
    basis = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    start = np.array([[1.0, 0.5, -1.0]], np.float32)
    there, _ = minimise(Adam(0.05, basis), ellipsoid, start @ basis.T, 6)
    here, _ = minimise(Adam(0.05), lambda u: ellipsoid(tf.matmul(u, basis, transpose_b=True)), start, 6)
    np.testing.assert_allclose(there, here @ basis.T, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("basis", [None, np.diag(SCALES**-0.5)])
def test_bfgs_reaches_the_minimum_of_an_ellipsoid(basis):
    looked_at, values = minimise(BFGS(basis), ellipsoid, [[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]], 40 if basis is None else 8)
    best = values.argmin(0)
    np.testing.assert_allclose(looked_at[best, [0, 1]], [CENTRE, CENTRE], atol=5e-3)


def test_bfgs_against_a_linear_programme():
    optimize = pytest.importorskip("scipy.optimize")
    weights = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) * np.sqrt(SCALES)
    offset = np.linspace(-1, 1, 40) - weights @ CENTRE
    # min sum t over -t <= W z + offset <= t
    ones = np.eye(40)
    solved = optimize.linprog(
        np.r_[np.zeros(3), np.ones(40)], A_ub=np.block([[weights, -ones], [-weights, -ones]]), b_ub=np.r_[-offset, offset],
        bounds=[(None, None)] * 3 + [(0, None)] * 40,
    )  # fmt: skip
    _, values = minimise(BFGS(), absolute, [[0.0, 0.0, 0.0]], 80)
    assert solved.fun <= values.min() < 1.005 * solved.fun


def test_bfgs_needs_fewer_steps_than_adam():
    _, bfgs = minimise(BFGS(), absolute, [[0.0, 0.0, 0.0]], 25)
    _, adam = minimise(Adam(0.1), absolute, [[0.0, 0.0, 0.0]], 25)
    assert bfgs.min() < 0.5 * adam.min()


def test_a_point_that_is_worse_is_left_again():
    """Far from a sharp bend the slope hardly changes: the step that this promises goes far beyond the minimum."""

    def bend(z):
        return tf.reduce_sum(tf.sqrt(tf.square(z) + 1e-4), axis=-1)

    looked_at, values = minimise(BFGS(), bend, [[1.0]], 40)
    assert values.max() > 5 * values[0]
    assert values.min() < 0.011 and abs(looked_at[values.argmin(0)[0], 0, 0]) < 0.005


def test_bfgs_survives_what_is_no_number():
    def hole(z):
        return tf.reduce_sum(tf.where(tf.abs(z) < 0.3, float("nan"), tf.square(z - 1.0)), axis=-1)

    looked_at, values = minimise(BFGS(), hole, [[-1.0]], 10)
    assert np.isfinite(looked_at).all() and np.nanmin(values) <= values[0]


@pytest.mark.parametrize("optimizer", [Adam(0.1), BFGS()])
def test_rows_do_not_see_each_other(optimizer):
    starts = np.random.default_rng(0).normal(size=(5, 3))
    together, _ = minimise(optimizer, absolute, starts, 12)
    alone, _ = minimise(optimizer, absolute, starts[2:3], 12)
    np.testing.assert_allclose(together[:, 2:3], alone, rtol=1e-4, atol=1e-4)

"""How the rows of a latent search step: Adam and BFGS, written out because both travel through a compiled loop.

Each optimizer is a pair of pure functions over tensors with one row for each image. Nothing couples two rows.
"""

from typing import NamedTuple

import tensorflow as tf

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults (Kingma and Ba 2015)
SUFFICIENT = 1e-4  # share of the promised decrease that a BFGS step must bring (Armijo)
FIRST_DECREASE = 0.2  # share of the objective that the first BFGS step aims to remove
MIN_CURVATURE = 1e-6  # cosine between step and change of gradient below which the curvature is not learned from
RESCALING = 20.0  # the first curvature seen rescales the matrix by at most this factor


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1), in the coordinates of a basis where one is given.

    Args:
        learning_rate: a number.
        basis: `[d, d]`, A of z = A u; Adam steps in u. None steps in z itself.
    """

    class State(NamedTuple):
        """`[B]` int32 steps, `[B, d]` moments."""

        num_steps: tf.Tensor
        first: tf.Tensor
        second: tf.Tensor

    def __init__(self, learning_rate, basis=None):
        self.learning_rate = learning_rate
        self.basis = basis

    def start(self, z):
        """The state before the first step from z `[B, d]`."""
        return self.State(tf.zeros_like(z[:, 0], tf.int32), tf.zeros_like(z), tf.zeros_like(z))

    def step(self, state, z, objective, gradient):
        """The state after a look at `objective` `[B]` and `gradient` `[B, d]` at z `[B, d]`, and the next z to look at."""
        if self.basis is not None:
            gradient = gradient @ self.basis
        num_steps = state.num_steps + 1
        count = tf.cast(num_steps, tf.float32)[:, tf.newaxis]
        first = BETA_1 * state.first + (1.0 - BETA_1) * gradient
        second = BETA_2 * state.second + (1.0 - BETA_2) * tf.square(gradient)
        direction = (first / (1.0 - BETA_1**count)) / (tf.sqrt(second / (1.0 - BETA_2**count)) + EPSILON)
        if self.basis is not None:
            direction = tf.matmul(direction, self.basis, transpose_b=True)
        return self.State(num_steps, first, second), z - self.learning_rate * direction


class BFGS:
    """BFGS with one small inverse Hessian for each row (Nocedal and Wright 2006, chapter 6).

    Each step costs one evaluation, as Adam's does: a point that doesn't bring the decrease it promised is left again, but
    what it says of the curvature shortens the next try. The losses are sums of absolute values, on which BFGS does well
    all the same (Lewis and Overton 2013).

    Args:
        basis: `[d, d]`, A; the first inverse Hessian is A A^T, up to the scale that the first steps find. None is the identity.
    """

    class State(NamedTuple):
        """The point that is stepped from, what is known there, and the length of the step that is being tried."""

        z: tf.Tensor  # [B, d]
        objective: tf.Tensor  # [B]
        gradient: tf.Tensor  # [B, d]
        inverse: tf.Tensor  # [B, d, d]
        length: tf.Tensor  # [B]
        scaled: tf.Tensor  # [B] bool; the inverse Hessian has its scale

    def __init__(self, basis=None):
        self.basis = basis

    def start(self, z):
        """The state before the first step from z `[B, d]`."""
        dimension = z.shape[-1]
        inverse = tf.eye(dimension) if self.basis is None else tf.matmul(self.basis, self.basis, transpose_b=True)
        none = tf.zeros_like(z[:, 0])
        return self.State(
            z=z, objective=none + float("inf"), gradient=tf.zeros_like(z),
            inverse=tf.tile(inverse[tf.newaxis], (tf.shape(z)[0], 1, 1)), length=none + 1.0, scaled=none > 0.0,
        )  # fmt: skip

    def step(self, state, z, objective, gradient):
        """The state after a look at `objective` `[B]` and `gradient` `[B, d]` at z `[B, d]`, and the next z to look at."""
        moved, change = z - state.z, gradient - state.gradient
        inverse, learned = self._learn(state, moved, change)
        promised = SUFFICIENT * _dot(state.gradient, moved)
        accepted = objective <= state.objective + promised  # true at the first look, where nothing is known yet
        here = tf.where(accepted[:, tf.newaxis], z, state.z)
        level = tf.where(accepted, objective, state.objective)
        slope = tf.where(accepted[:, tf.newaxis], gradient, state.gradient)
        direction = -tf.linalg.matvec(inverse, slope)
        scaled = state.scaled | learned
        first = FIRST_DECREASE * level / tf.maximum(-_dot(slope, direction), 1e-12)
        # A point refused without a word on the curvature: the same way again, half as far.
        length = tf.where(accepted | learned, tf.where(scaled, 1.0, first), 0.5 * state.length)
        state = self.State(here, level, slope, inverse, length, scaled)
        return state, here + length[:, tf.newaxis] * direction

    def _learn(self, state, moved, change):
        """The inverse Hessian after a step by `moved` changed the gradient by `change`, and for which rows it is a new one."""
        curvature = _dot(moved, change)
        known = tf.math.is_finite(state.objective)  # the first look has nothing to compare with
        learned = known & (curvature > MIN_CURVATURE * tf.sqrt(_dot(moved, moved) * _dot(change, change)))
        change = tf.where(learned[:, tf.newaxis], change, 0.0)  # whatever it was, NaN included
        per_curvature = tf.where(learned, 1.0 / tf.where(learned, curvature, 1.0), 0.0)
        along = tf.linalg.matvec(state.inverse, change)
        scale = tf.where(learned & ~state.scaled, curvature / tf.maximum(_dot(change, along), 1e-30), 1.0)
        scale = tf.clip_by_value(scale, 1.0 / RESCALING, RESCALING)
        along *= scale[:, tf.newaxis]
        outer = along[:, :, tf.newaxis] * moved[:, tf.newaxis, :]
        both = (1.0 + _dot(change, along) * per_curvature) * per_curvature
        update = both[:, tf.newaxis, tf.newaxis] * moved[:, :, tf.newaxis] * moved[:, tf.newaxis, :]
        update -= per_curvature[:, tf.newaxis, tf.newaxis] * (outer + tf.linalg.matrix_transpose(outer))
        return scale[:, tf.newaxis, tf.newaxis] * state.inverse + update, learned


def _dot(one, other):
    return tf.reduce_sum(one * other, axis=-1)

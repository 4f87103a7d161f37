"""The latent space: drawing from its prior, keeping a search where the generator was trained, its coordinates."""

import math

import numpy as np
import tensorflow as tf

PRIORS = ("normal", "uniform")
CONSTRAINTS = (None, "project", "penalty")
METRIC_SAMPLES = 1024  # of the metric; more where z is longer than an eighth of that
SAMPLES_AT_ONCE = 64
FLOOR = 1e-3  # share of the mean eigenvalue that every direction of the metric has at least


def check_prior(prior):
    """Return `prior`, or raise a ValueError that lists what it can be."""
    if prior not in PRIORS:
        raise ValueError(f"prior={prior!r} is not one of {list(PRIORS)}.")
    return prior


def draw(prior, count, latent_dim, seed):
    """Draw latent vectors: N(0, 1) or uniform on [-1, 1], a pure function of the seed.

    Args:
        prior: "normal" or "uniform".
        count: how many.
        latent_dim: length of each.
        seed: two integers.

    Returns:
        `[count, latent_dim]` float32.
    """
    # The algorithm is named because the default one draws other numbers under XLA.
    options = {"shape": (count, latent_dim), "seed": seed, "alg": "philox"}
    if check_prior(prior) == "normal":
        return tf.random.stateless_normal(**options)
    return tf.random.stateless_uniform(minval=-1.0, maxval=1.0, **options)


def ball_radius(latent_dim):
    """Radius of the ball that holds 99% of N(0, I): the chi-squared quantile by Wilson and Hilferty's approximation."""
    spread = 2.0 / (9.0 * latent_dim)
    return math.sqrt(latent_dim * (1.0 - spread + 2.326 * math.sqrt(spread)) ** 3)


def project(prior, z):
    """Nearest point to z, `[N, latent_dim]`, of the ball (normal prior, see `ball_radius`) or the cube [-1, 1] (uniform)."""
    if check_prior(prior) == "uniform":
        return tf.clip_by_value(z, -1.0, 1.0)
    return tf.clip_by_norm(z, ball_radius(z.shape[-1]), axes=[-1])


def penalty(prior, z):
    """How far z is from the prior, `[N]`: |z|^2 / 2, the normal's -log density, or the squared distance from the cube."""
    if check_prior(prior) == "uniform":
        return tf.reduce_sum(tf.square(z - tf.clip_by_value(z, -1.0, 1.0)), axis=-1)
    return tf.reduce_sum(tf.square(z), axis=-1) / 2.0


def whitening(outputs, prior, latent_dim, seed):
    """Coordinates of the latent space in which, on average, every direction changes the outputs alike.

    With J the Jacobian of `outputs` and M the mean of J^T J over the prior (the metric that a generator gives its latent
    space, Arvanitidis et al. 2018), A A^T = M^-1 up to a factor, and z = A u. M is estimated from products J^T e with
    random e, each at a z of its own.

    Args:
        outputs: a function of z `[N, latent_dim]` to a list of float32 tensors `[N, ...]`.
        prior, latent_dim, seed: as in `draw`.

    Returns:
        A, `[latent_dim, latent_dim]` NumPy float32; the geometric mean of its singular values is 1.
    """

    @tf.function(autograph=False)
    def product(seeds):
        z = draw(prior, SAMPLES_AT_ONCE, latent_dim, seeds[0])
        with tf.GradientTape() as tape:
            tape.watch(z)
            values = tf.concat([tf.reshape(value, (SAMPLES_AT_ONCE, -1)) for value in outputs(z)], axis=1)
        return tape.gradient(values, z, output_gradients=draw("normal", SAMPLES_AT_ONCE, values.shape[1], seeds[1]))

    batches = range(max(METRIC_SAMPLES, 8 * latent_dim) // SAMPLES_AT_ONCE)
    seeds = [tf.constant([(seed[0], seed[1] + 2 * batch), (seed[0], seed[1] + 2 * batch + 1)]) for batch in batches]
    products = np.concatenate([product(pair) for pair in seeds]).astype(np.float64)
    metric = products.T @ products / len(products)
    scales, directions = np.linalg.eigh(metric)
    scales = np.maximum(scales, FLOOR * scales.mean()) if scales.mean() else np.ones_like(scales)
    lengths = 1.0 / np.sqrt(scales)
    return (directions * (lengths / np.exp(np.log(lengths).mean()))).astype(np.float32)

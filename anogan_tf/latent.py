"""The prior over z: drawing from it, and keeping a search where the generator was trained."""

import math

import tensorflow as tf

PRIORS = ("normal", "uniform")
CONSTRAINTS = (None, "project", "penalty")


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

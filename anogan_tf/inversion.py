"""The latent search: gradient descent over z until G(z) is closest to x (Schlegl et al. 2017, section 2.2).

z is not a `tf.Variable` but a tensor that travels through a `tf.while_loop`, with Adam's moments and a flag for each
row. So one trace serves any number of images, concurrent calls never see each other's z, and the loop exports whole.
"""

import dataclasses
import numbers
from typing import NamedTuple

import tensorflow as tf

from anogan_tf import latent, losses

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # Adam's defaults (Kingma and Ba 2015)
LOSSES = ("feature_matching", "reference")
KEEPS = ("best", "last")


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Everything that decides where a search ends. All of it is saved, calibrated and exported together.

    Attributes:
        weight: lambda; the loss is (1 - weight) * residual + weight * discrimination.
        steps: Gamma, the most gradient steps an image gets.
        learning_rate: of Adam.
        restarts: how many starts each image gets; the best is kept per image.
        loss: the discrimination term, "feature_matching" (the paper's) or "reference" (Yeh et al.).
        keep: which z is returned, the "best" seen or the "last" (the paper's).
        prior: what z was drawn from in training, "normal" or "uniform".
        constraint: None, "project" (z stays in the ball or cube of the prior) or "penalty" (a prior term in the loss).
        penalty_weight: weight of the prior term.
        tolerance: an image has converged when its loss hasn't fallen by this share within `patience` steps; 0 never.
        patience: see tolerance.
        block: rows searched together, padded to exactly this number, so that an image's score doesn't depend on its
            batch-mates to the last bit; None searches all rows at once, faster but without that promise.
        seed: of the starts.
    """

    weight: float = 0.1
    steps: int = 500
    learning_rate: float = 0.1
    restarts: int = 1
    loss: str = "feature_matching"
    keep: str = "best"
    prior: str = "normal"
    constraint: str | None = None
    penalty_weight: float = 1.0
    tolerance: float = 1e-3
    patience: int = 50
    block: int | None = 16
    seed: int = 0

    def __post_init__(self):
        latent.check_prior(self.prior)
        for name, allowed in (("loss", LOSSES), ("keep", KEEPS), ("constraint", latent.CONSTRAINTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not one of {list(allowed)}.")
        for name, least in (("steps", 0), ("restarts", 1), ("patience", 1), ("seed", 0)):
            self._make_whole(name, least)
        if self.block is not None:
            self._make_whole("block", 1)
        for name in ("weight", "learning_rate", "penalty_weight", "tolerance"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more.")
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.weight > 1.0:
            raise ValueError(f"weight={self.weight} must lie in [0, 1]: 0 is the residual alone, 1 the discriminator alone.")

    def _make_whole(self, name, least):
        """NumPy's integers become Python's, which a saved configuration can hold."""
        value = getattr(self, name)
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number from {least}.")
        object.__setattr__(self, name, int(value))


class SearchResult(NamedTuple):
    """Where the search of each image ended. All of it is taken at the same z.

    Attributes:
        z: `[N, latent_dim]`.
        reconstruction: `[N, H, W, C]`, G(z) in [-1, 1].
        loss: `[N]`, (1 - weight) * residual_loss + weight * discrimination_loss, the anomaly score.
        residual_loss: `[N]`.
        discrimination_loss: `[N]`.
        steps: `[N]` int32, gradient steps taken.
        converged: `[N]` bool; false where the steps ran out first.
    """

    z: tf.Tensor
    reconstruction: tf.Tensor
    loss: tf.Tensor
    residual_loss: tf.Tensor
    discrimination_loss: tf.Tensor
    steps: tf.Tensor
    converged: tf.Tensor


def draw_starts(settings, latent_dim):
    """The starts, `[restarts, latent_dim]`: the same for every image, so that an image's score is its own."""
    return latent.draw(settings.prior, settings.restarts, latent_dim, (settings.seed, 0))


def search(generator, critic, images, starts, settings, search_block=None):
    """Search every image from every start, in blocks, and keep each image's best.

    Args:
        generator: `[N, latent_dim]` to `[N, H, W, C]` in [-1, 1].
        critic: the feature extractor f where `settings.loss` is "feature_matching", the discriminator's logits where it
            is "reference".
        images: `[N, H, W, C]` float32 in [-1, 1].
        starts: `[restarts, latent_dim]`, the same for all images.
        settings: `SearchSettings`.
        search_block: a compiled `search_rows` of the same networks and settings (see `compile_block`); by default
            `search_rows` runs as it is.

    Returns:
        `SearchResult` with N rows.
    """
    if search_block is None:

        def search_block(*rows):
            return search_rows(generator, critic, *rows, settings)

    restarts, count = tf.shape(starts)[0], tf.shape(images)[0]
    # Every pair of image and start is a row of its own: [image 0 start 0, image 0 start 1, ...].
    rows = tf.repeat(images, restarts, axis=0)
    row_starts = tf.tile(starts, (count, 1))
    if settings.block is None:
        results, objective = search_block(rows, row_starts, tf.fill((count * restarts,), True))
    else:
        results, objective = _map_blocks(search_block, rows, row_starts, settings.block)
    best = tf.argmin(tf.reshape(objective, (count, restarts)), axis=1, output_type=tf.int32)
    chosen = tf.range(count) * restarts + best
    return tf.nest.map_structure(lambda rows: tf.gather(rows, chosen), results)


def compile_block(generator, critic, image_shape, latent_dim, settings, jit_compile=False):
    """`search_rows` as a `tf.function` with one trace, whatever the number of images."""
    signature = [
        tf.TensorSpec((settings.block, *image_shape), tf.float32),
        tf.TensorSpec((settings.block, latent_dim), tf.float32),
        tf.TensorSpec((settings.block,), tf.bool),
    ]

    @tf.function(input_signature=signature, jit_compile=jit_compile)
    def search_block(images, starts, active):
        return search_rows(generator, critic, images, starts, active, settings)

    return search_block


def _map_blocks(search_block, images, starts, block):
    """Run `search_block` on `block` rows at a time; the last block is filled up with inactive rows."""
    count = tf.shape(images)[0]
    blocks = (count + block - 1) // block

    def to_blocks(rows):
        surplus = blocks * block - count
        padded = tf.pad(rows, [(0, surplus)] + [(0, 0)] * (rows.shape.rank - 1))
        return tf.reshape(padded, (blocks, block, *rows.shape[1:]))

    active = to_blocks(tf.fill((count,), True))
    signature = (SearchResult(*[tf.float32] * 5, tf.int32, tf.bool), tf.float32)
    # One block after another: two at once would share the cores and double the memory.
    stacked = tf.map_fn(
        lambda rows: search_block(*rows), (to_blocks(images), to_blocks(starts), active),
        fn_output_signature=signature, parallel_iterations=1,
    )  # fmt: skip
    return tf.nest.map_structure(lambda rows: tf.reshape(rows, (-1, *rows.shape[2:]))[:count], stacked)


class _State(NamedTuple):
    """What travels through the loop, a row for each image."""

    z: tf.Tensor
    first_moment: tf.Tensor
    second_moment: tf.Tensor
    taken: tf.Tensor  # steps taken
    active: tf.Tensor  # still searching
    kept_z: tf.Tensor
    kept: tf.Tensor  # objective at kept_z
    mark: tf.Tensor  # the objective that the next improvement is measured from
    waited: tf.Tensor  # steps since the mark was set


def search_rows(generator, critic, images, starts, active, settings):
    """Search all rows together, each from its own start, none seeing another.

    Args:
        generator, critic, settings: as in `search`.
        images: `[B, H, W, C]` in [-1, 1].
        starts: `[B, latent_dim]`.
        active: `[B]` bool; rows that are false stay where they start.

    Returns:
        `(SearchResult, objective)`; objective `[B]` is the loss with the prior term, by which restarts are compared.
    """
    terms = _loss_terms(generator, critic, images, settings)
    if settings.constraint == "project":
        starts = latent.project(settings.prior, starts)

    def body(state):
        # Networks stay as they are: only z is watched, so no gradient of a weight is ever computed.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(state.z)
            objective = terms(state.z)[0]
        return (_advance(state, objective, tape.gradient(objective, state.z), settings),)

    state = _initial_state(starts, active)
    (state,) = tf.while_loop(
        lambda state: tf.reduce_any(state.active), body, (state,), maximum_iterations=settings.steps, parallel_iterations=1
    )
    z = state.z
    if settings.keep == "best":
        # The loop looked at every z but the last.
        last = terms(state.z)[0]
        z = tf.where((last < state.kept)[:, tf.newaxis], state.z, state.kept_z)
    objective, loss, residual, discrimination, reconstruction = terms(z)
    converged = active & ~state.active
    return SearchResult(z, reconstruction, loss, residual, discrimination, state.taken, converged), objective


def _loss_terms(generator, critic, images, settings):
    """A function of z `[B, latent_dim]`: objective, loss, residual, discrimination (each `[B]`) and G(z)."""
    matching = settings.loss == "feature_matching"
    image_features = critic(images, training=False) if matching else None  # f(x): once per image, not once per step

    def terms(z):
        reconstruction = generator(z, training=False)
        residual = losses.residual_loss(images, reconstruction)
        judged = critic(reconstruction, training=False)
        discrimination = losses.discrimination_loss(image_features, judged) if matching else losses.reference_loss(judged)
        loss = (1.0 - settings.weight) * residual + settings.weight * discrimination
        objective = loss
        if settings.constraint == "penalty":
            objective += settings.penalty_weight * latent.penalty(settings.prior, z)
        return objective, loss, residual, discrimination, reconstruction

    return terms


def _initial_state(starts, active):
    zeros, infinite = tf.zeros_like(starts), tf.fill(tf.shape(active), float("inf"))
    none = tf.zeros_like(active, tf.int32)
    return _State(
        z=starts, first_moment=zeros, second_moment=zeros, taken=none, active=active,
        kept_z=starts, kept=infinite, mark=infinite, waited=none,
    )  # fmt: skip


def _advance(state, objective, gradient, settings):
    """One Adam step (Kingma and Ba 2015, algorithm 1) of every active row; the others stay as they are."""
    better = state.active & (objective < state.kept)
    marked = objective < state.mark * (1.0 - settings.tolerance)
    waited = tf.where(marked, 0, state.waited + 1)
    going = state.active & ((waited < settings.patience) if settings.tolerance else True)

    taken = state.taken + tf.cast(going, tf.int32)
    count = tf.cast(tf.maximum(taken, 1), tf.float32)[:, tf.newaxis]
    first = BETA_1 * state.first_moment + (1.0 - BETA_1) * gradient
    second = BETA_2 * state.second_moment + (1.0 - BETA_2) * tf.square(gradient)
    direction = (first / (1.0 - BETA_1**count)) / (tf.sqrt(second / (1.0 - BETA_2**count)) + EPSILON)
    z = state.z - settings.learning_rate * direction
    if settings.constraint == "project":
        z = latent.project(settings.prior, z)

    def if_going(new, old):
        return tf.where(going[:, tf.newaxis], new, old)

    return _State(
        z=if_going(z, state.z),
        first_moment=if_going(first, state.first_moment),
        second_moment=if_going(second, state.second_moment),
        taken=taken,
        active=going,
        kept_z=tf.where(better[:, tf.newaxis], state.z, state.kept_z),
        kept=tf.where(better, objective, state.kept),
        mark=tf.where(marked, objective, state.mark),
        waited=waited,
    )

"""The latent search: gradient descent over z until G(z) is closest to x (Schlegl et al. 2017, section 2.2).

z is not a `tf.Variable` but a tensor that travels through a `tf.while_loop`, with the optimizer's state and a flag for each
row. So one trace serves any number of images, concurrent calls never see each other's z, and the loop exports whole.

A search has three stages, each a function of a fixed block of rows: `init` (f(x) and the starts, once per image),
`step` (a few steps of every row; whoever has finished makes room for an image that waits) and `finalize` (everything at
the z that is returned).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from anogan_tf.networks import latent, losses
from anogan_tf.runtime.types import Array
from anogan_tf.search.blocks import map_blocks, run_queue, where_rows
from anogan_tf.search.optimizers import BFGS, Adam
from anogan_tf.search.settings import BLOCK, SearchSettings

ROUND = 5  # steps between two looks at who has finished


class SearchResult(NamedTuple):
    """Where the search of each image ended. All of it is taken at the same z.

    Attributes:
        z: `[N, latent_dim]`.
        reconstruction: `[N, H, W, C]`, G(z) in [-1, 1].
        loss: `[N]`, the anomaly score: (1 - weight) * residual_loss + weight * discrimination_loss, or
            residual_loss + kappa * discrimination_loss for "f-anogan".
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


class Networks(NamedTuple):
    """What a search needs of the networks, each called with `training=False`.

    Attributes:
        generator: `[N, latent_dim]` to `[N, H, W, C]` in [-1, 1].
        feature_network: the feature extractor f, or for the loss "reference" the discriminator's logits.
        encoder: `[N, H, W, C]` to `[N, latent_dim]`; only for the modes "encoder" and "refine".
        basis: `[latent_dim, latent_dim]`, see `latent.whitening`; None steps in z itself.
    """

    generator: Callable
    feature_network: Callable
    encoder: Callable | None = None
    basis: tf.Tensor | None = None


class Stages(NamedTuple):
    """The three stages of a search, each a function of one block of rows. See `stages` and `compile_stages`.

    Attributes:
        init: `(images, sampled)` to `(features, starts [B, restarts, latent_dim])`.
        step: `(images, features, _Rows)` to `_Rows`, some steps further.
        finalize: `(images, features, _Reached)` to `(SearchResult, objective [B])`; objective is the loss with the prior term, by
            which restarts are compared.
    """

    init: Callable
    step: Callable
    finalize: Callable


class _Reached(NamedTuple):
    """How far the search of each row has come."""

    z: tf.Tensor  # to be looked at next
    best_z: tf.Tensor
    best_loss: tf.Tensor  # the objective at best_z
    num_steps: tf.Tensor
    converged: tf.Tensor


class _Rows(NamedTuple):
    """What travels through the loop, a row for each image that is being searched."""

    reached: _Reached
    optimizer: NamedTuple
    active: tf.Tensor  # still searching
    max_steps: tf.Tensor
    plateau_loss: tf.Tensor  # the objective that the next improvement is measured from
    steps_without_improvement: tf.Tensor  # since the plateau's loss was set


def sample_starts(settings, latent_dim):
    """Starts from the prior, `[num_sampled_starts, latent_dim]`: the same for every image, whose score is its own thereby."""
    return latent.draw(settings.prior, settings.num_sampled_starts, latent_dim, (settings.seed, 0))


def latent_search(
    networks: Networks,
    images: tf.Tensor | Array,
    sampled: tf.Tensor,
    settings: SearchSettings,
    *,
    block: int | None = BLOCK,
    compiled: Stages | None = None,
    refill: bool = True,
    steps: tf.Tensor | None = None,
) -> SearchResult:
    """Search every image from every start, in blocks, and keep each image's best.

    Args:
        networks: `Networks`.
        images: `[N, H, W, C]` float32 in [-1, 1].
        sampled: starts sampled from the prior, `[num_sampled_starts, latent_dim]`, the same for all images.
        settings: `SearchSettings`.
        block: as in `ExecutionSettings`.
        compiled: `compile_stages` of the same networks and settings; by default the stages run as they are.
        refill: whether an image that has finished makes room for one that waits, or its block waits for its last image.
            It changes no result, only the time.
        steps: fewer steps than the settings', a scalar int32 tensor: one trace does for any number.

    Returns:
        `SearchResult` with N rows.
    """
    run = compiled or stages(networks, settings)
    count, restarts = tf.shape(images)[0], settings.restarts
    features, starts = map_blocks(lambda images: run.init(images, sampled), (images,), block)
    # Every pair of image and start is a row of its own: [image 0 start 0, image 0 start 1, ...].
    image_ids = tf.repeat(tf.range(count), restarts)
    starts = tf.reshape(starts, (-1, starts.shape[-1]))
    optimizer, max_steps = _optimizer(settings, networks.basis), settings.steps if steps is None else steps
    first = functools.partial(_first_rows, optimizer=optimizer, max_steps=max_steps)
    ended = run_queue(run.step, first, images, features, image_ids, starts, block, refill)
    rows = (tf.gather(images, image_ids), tf.gather(features, image_ids), ended)
    results, objective = map_blocks(run.finalize, rows, block)
    best = tf.argmin(tf.reshape(objective, (count, restarts)), axis=1, output_type=tf.int32)
    chosen = tf.range(count) * restarts + best
    return tf.nest.map_structure(lambda rows: tf.gather(rows, chosen), results)


def stages(networks, settings):
    """The `Stages` of a search as plain functions, for any number of rows."""

    def init(images, sampled):
        reference = settings.loss == "reference"  # which compares nothing with the image's own
        features = tf.zeros_like(images[:, :0]) if reference else networks.feature_network(images, training=False)
        return features, _choose_starts(networks, images, features, sampled, settings)

    def step(images, features, rows):
        return _take_steps(networks, images, features, rows, settings)

    def finalize(images, features, rows):
        return _at_returned_z(networks, images, features, rows, settings)

    return Stages(init, step, finalize)


def compile_stages(networks, settings, jit_compile=False):
    """`stages` as `tf.function`s with one trace each for blocks of one size, whatever the number of images."""
    plain = stages(networks, settings)
    # Nothing here is Python control flow over tensors; looking for some would only take time.
    compiled = functools.partial(tf.function, autograph=False)
    return Stages(compiled(plain.init), compiled(plain.step, jit_compile=jit_compile), compiled(plain.finalize))


def _optimizer(settings, basis):
    return BFGS(basis) if settings.optimizer == "bfgs" else Adam(settings.learning_rate, basis)


def _first_rows(starts, optimizer, max_steps):
    """`_Rows` before their first step, of `max_steps` steps."""
    infinite = tf.zeros_like(starts[:, 0]) + float("inf")
    none = tf.zeros_like(infinite, tf.int32)
    reached = _Reached(z=starts, best_z=starts, best_loss=infinite, num_steps=none, converged=none < 0)
    max_steps = none + max_steps
    return _Rows(
        reached,
        optimizer.start(starts),
        active=none < max_steps,
        max_steps=max_steps,
        plateau_loss=infinite,
        steps_without_improvement=none,
    )


def _choose_starts(networks, images, features, sampled, settings):
    """The starts of each image, `[B, restarts, latent_dim]`: the best of its candidates."""
    count = tf.shape(images)[0]
    sampled = tf.ensure_shape(sampled, (settings.num_sampled_starts, sampled.shape[-1]))
    if settings.constraint == "project":
        sampled = latent.project(settings.prior, sampled)
    candidates = tf.tile(sampled[tf.newaxis], (count, 1, 1))
    encoded = None
    if settings.mode != "search":
        encoded = networks.encoder(images, training=False)
        if settings.constraint == "project":
            encoded = latent.project(settings.prior, encoded)
        candidates = tf.concat([candidates, encoded[:, tf.newaxis]], axis=1)
    if settings.num_starts == settings.restarts:
        return candidates
    generated = networks.generator(sampled, training=False)  # the same for every image

    def objective(one):
        z, generated, generated_features = (tensor[tf.newaxis] for tensor in one)
        return _compare(images, features, z, generated, generated_features, settings)[0]

    rows = (sampled, generated, networks.feature_network(generated, training=False))
    objectives = tf.map_fn(objective, rows, fn_output_signature=tf.float32, parallel_iterations=1)
    if encoded is not None:
        encoded_objective = _evaluate(networks, images, features, encoded, settings)[0]
        objectives = tf.concat([objectives, encoded_objective[tf.newaxis]], axis=0)
    order = tf.argsort(objectives, axis=0, stable=True)[: settings.restarts]
    return tf.gather(candidates, tf.transpose(order), batch_dims=1)


def _take_steps(networks, images, features, rows, settings):
    """Up to `ROUND` steps of all rows together, none seeing another."""
    optimizer = _optimizer(settings, networks.basis)

    def body(rows):
        z = rows.reached.z
        # Networks stay as they are: only z is watched, so no gradient of a weight is ever computed.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            objective = _evaluate(networks, images, features, z, settings)[0]
        return (_update_rows(rows, objective, tape.gradient(objective, z), optimizer, settings),)

    (rows,) = tf.while_loop(
        lambda rows: tf.reduce_any(rows.active), body, (rows,), maximum_iterations=ROUND, parallel_iterations=1
    )
    return rows


def _update_rows(rows, objective, gradient, optimizer, settings):
    """One step of every active row after a look at its z; the others stay as they are."""
    reached, active = rows.reached, rows.active
    better = active & (objective < reached.best_loss)
    improved = objective < rows.plateau_loss * (1.0 - settings.tolerance)
    waited = tf.where(improved, 0, rows.steps_without_improvement + 1)
    still = active & ((waited < settings.patience) if settings.tolerance else True)
    state, z = optimizer.step(rows.optimizer, reached.z, objective, gradient)
    if settings.constraint == "project":
        z = latent.project(settings.prior, z)
    num_steps = reached.num_steps + tf.cast(still, tf.int32)
    reached = _Reached(
        z=where_rows(still, z, reached.z),
        best_z=where_rows(better, reached.z, reached.best_z),
        best_loss=tf.where(better, objective, reached.best_loss),
        num_steps=num_steps,
        converged=reached.converged | (active & ~still),
    )
    plateau_loss = tf.where(improved, objective, rows.plateau_loss)
    return _Rows(
        reached,
        where_rows(still, state, rows.optimizer),
        active=still & (num_steps < rows.max_steps),
        max_steps=rows.max_steps,
        plateau_loss=plateau_loss,
        steps_without_improvement=waited,
    )


def _at_returned_z(networks, images, features, ended, settings):
    """`(SearchResult, objective)`, everything at the one z that is returned."""
    z = ended.z
    if settings.keep == "best" and settings.steps:
        # The loop looked at every z but the last.
        last = _evaluate(networks, images, features, ended.z, settings)[0]
        z = where_rows(last < ended.best_loss, ended.z, ended.best_z)
    objective, loss, residual, discrimination, reconstruction = _evaluate(networks, images, features, z, settings)
    return SearchResult(z, reconstruction, loss, residual, discrimination, ended.num_steps, ended.converged), objective


def _evaluate(networks, images, features, z, settings):
    """At z `[B, latent_dim]`: objective, loss, residual, discrimination (each `[B]`) and G(z)."""
    generated = networks.generator(z, training=False)
    return *_compare(images, features, z, generated, networks.feature_network(generated, training=False), settings), generated


def _compare(images, features, z, generated, generated_features, settings):
    """Objective, loss, residual and discrimination of images `generated` from z, with their features or logits."""
    if settings.loss == "f-anogan":
        residual = losses.mean_squared_loss(images, generated)
        discrimination = losses.mean_squared_loss(features, generated_features)
        loss = residual + settings.kappa * discrimination
    else:
        residual = losses.residual_loss(images, generated)
        if settings.loss == "reference":
            discrimination = losses.reference_loss(generated_features)
        else:
            discrimination = losses.discrimination_loss(features, generated_features)
        loss = (1.0 - settings.weight) * residual + settings.weight * discrimination
    objective = loss
    if settings.constraint == "penalty":
        objective += settings.penalty_weight * latent.penalty(settings.prior, z)
    return objective, loss, residual, discrimination


def whitening_basis(networks, latent_dim, settings):
    """The basis of `latent.whitening` for the loss of the settings, NumPy `[latent_dim, latent_dim]`."""

    def outputs(z):
        images = networks.generator(z, training=False)
        features = networks.feature_network(images, training=False)
        weights = (1.0 - settings.weight, settings.weight)
        if settings.loss == "f-anogan":
            weights = (1.0 / images.shape[1:].num_elements(), settings.kappa / features.shape[1:].num_elements())
        return [tf.cast(output, tf.float32) * weight**0.5 for output, weight in zip((images, features), weights)]

    return latent.whitening(outputs, settings.prior, latent_dim, (settings.seed, 1))

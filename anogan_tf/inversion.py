"""The latent search: gradient descent over z until G(z) is closest to x (Schlegl et al. 2017, section 2.2).

z is not a `tf.Variable` but a tensor that travels through a `tf.while_loop`, with the optimiser's state and a flag for each
row. So one trace serves any number of images, concurrent calls never see each other's z, and the loop exports whole.

A search has three stages, each a function of a fixed block of rows: `begin` (f(x) and the starts, once per image),
`advance` (a few steps of every row; whoever has finished makes room for an image that waits) and `finish` (everything at
the z that is returned).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from anogan_tf import latent, losses
from anogan_tf.annotations import Array
from anogan_tf.descent import BFGS, Adam
from anogan_tf.settings import SearchSettings

ROUND = 5  # steps between two looks at who has finished
# A CPU multiplies matrices by panels of so many rows (AVX2, AVX-512); those left over at the end it sums in another order.
PANELS = (6, 8)


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
        critic: the feature extractor f, or for the loss "reference" the discriminator's logits.
        encoder: `[N, H, W, C]` to `[N, latent_dim]`; only for the modes "encoder" and "refine".
        basis: `[latent_dim, latent_dim]`, see `latent.whitening`; None steps in z itself.
    """

    generator: Callable
    critic: Callable
    encoder: Callable | None = None
    basis: tf.Tensor | None = None


class Stages(NamedTuple):
    """The three stages of a search, each a function of one block of rows. See `stages` and `compile_stages`.

    Attributes:
        begin: `(images, drawn)` to `(features, starts [B, restarts, latent_dim])`.
        advance: `(images, features, _Rows)` to `_Rows`, some steps further.
        finish: `(images, features, _Reached)` to `(SearchResult, objective [B])`; objective is the loss with the prior term, by
            which restarts are compared.
    """

    begin: Callable
    advance: Callable
    finish: Callable


class _Reached(NamedTuple):
    """How far the search of each row has come."""

    z: tf.Tensor  # to be looked at next
    kept_z: tf.Tensor
    kept: tf.Tensor  # objective at kept_z
    taken: tf.Tensor  # steps
    converged: tf.Tensor


class _Rows(NamedTuple):
    """What travels through the loop, a row for each image that is being searched."""

    reached: _Reached
    optimizer: NamedTuple
    active: tf.Tensor  # still searching
    most: tf.Tensor  # steps that it may take
    mark: tf.Tensor  # the objective that the next improvement is measured from
    waited: tf.Tensor  # steps since the mark was set


def draw_starts(settings, latent_dim):
    """The starts that are drawn, `[drawn, latent_dim]`: the same for every image, so that an image's score is its own."""
    return latent.draw(settings.prior, settings.drawn, latent_dim, (settings.seed, 0))


def search(
    networks: Networks,
    images: tf.Tensor | Array,
    drawn: tf.Tensor,
    settings: SearchSettings,
    compiled: Any = None,
    refill: bool = True,
    steps: tf.Tensor | None = None,
) -> SearchResult:
    """Search every image from every start, in blocks, and keep each image's best.

    Args:
        networks: `Networks`.
        images: `[N, H, W, C]` float32 in [-1, 1].
        drawn: starts drawn from the prior, `[drawn, latent_dim]`, the same for all images.
        settings: `SearchSettings`.
        compiled: `compile_stages` of the same networks and settings; by default the stages run as they are.
        refill: whether an image that has finished makes room for one that waits, or its block waits for its last image.
            It changes no result, only the time.
        steps: fewer steps than the settings', a scalar int32 tensor: one trace does for any number.

    Returns:
        `SearchResult` with N rows.
    """
    run = compiled or stages(networks, settings)
    count, restarts = tf.shape(images)[0], settings.restarts
    features, starts = map_blocks(lambda images: run.begin(images, drawn), (images,), settings.block)
    # Every pair of image and start is a row of its own: [image 0 start 0, image 0 start 1, ...].
    owners = tf.repeat(tf.range(count), restarts)
    starts = tf.reshape(starts, (-1, starts.shape[-1]))
    optimizer, most = _optimizer(settings, networks.basis), settings.steps if steps is None else steps
    first = functools.partial(_first_rows, optimizer=optimizer, most=most)
    ended = _run_queue(run.advance, first, images, features, owners, starts, settings.block, refill)
    rows = (tf.gather(images, owners), tf.gather(features, owners), ended)
    results, objective = map_blocks(run.finish, rows, settings.block)
    best = tf.argmin(tf.reshape(objective, (count, restarts)), axis=1, output_type=tf.int32)
    chosen = tf.range(count) * restarts + best
    return tf.nest.map_structure(lambda rows: tf.gather(rows, chosen), results)


def stages(networks, settings):
    """The `Stages` of a search as plain functions, for any number of rows."""

    def begin(images, drawn):
        features = networks.critic(images, training=False) if settings.loss != "reference" else tf.zeros_like(images[:, :0])
        return features, _choose_starts(networks, images, features, drawn, settings)

    def advance(images, features, rows):
        return _take_steps(networks, images, features, rows, settings)

    def finish(images, features, rows):
        return _at_returned_z(networks, images, features, rows, settings)

    return Stages(begin, advance, finish)


def compile_stages(networks, settings, jit_compile=False):
    """`stages` as `tf.function`s with one trace each for the settings' block, whatever the number of images."""
    plain = stages(networks, settings)
    # Nothing here is Python control flow over tensors; looking for some would only take time.
    compiled = functools.partial(tf.function, autograph=False)
    return Stages(compiled(plain.begin), compiled(plain.advance, jit_compile=jit_compile), compiled(plain.finish))


def filled_up(block):
    """How many rows a block of `block` images has: spare ones follow, so that what is left over by the `PANELS` is spare."""
    return max(-(-block // panel) * panel for panel in PANELS)


def map_blocks(function, rows, block):
    """Run `function` on blocks of `block` rows, `filled_up` with zeros, the last one wholly. None runs it on all rows at once."""
    if block is None:
        return function(*rows)
    count = tf.shape(rows[0])[0]
    blocks = (count + block - 1) // block

    def to_blocks(rows):
        each = [(0, 0)] * (rows.shape.rank - 1)
        padded = tf.pad(rows, [(0, blocks * block - count), *each])
        padded = tf.reshape(padded, (blocks, block, *rows.shape[1:]))
        return tf.pad(padded, [(0, 0), (0, filled_up(block) - block), *each])

    rows = tf.nest.map_structure(to_blocks, rows)
    one = tf.nest.map_structure(lambda rows: tf.TensorSpec(rows.shape[1:], rows.dtype), rows)
    made = tf.function(function, autograph=False).get_concrete_function(*one).structured_outputs
    made = tf.nest.map_structure(lambda made: tf.TensorSpec(made.shape, made.dtype), made)
    # One block after another: two at once would share the cores and double the memory.
    stacked = tf.map_fn(lambda rows: function(*rows), rows, fn_output_signature=made, parallel_iterations=1)
    return tf.nest.map_structure(lambda rows: tf.reshape(rows[:, :block], (-1, *rows.shape[2:]))[:count], stacked)


def _run_queue(advance, first, images, features, owners, starts, block, refill):
    """Search every row; in a block, a row that has finished makes room for one that waits.

    Args:
        advance: of `Stages`.
        first: from starts to `_Rows` before their first step.
        images, features, block, refill: as in `search`.
        owners: `[R]`, which image each row searches for.
        starts: `[R, latent_dim]`.

    Returns:
        `_Reached` with R rows.
    """
    count = tf.shape(starts)[0]
    at_once = block or count
    numbers = tf.range(filled_up(block) if block else count)
    spare = numbers >= at_once
    starts = tf.pad(starts, [(0, 1), (0, 0)])  # one row more than there are: empty slots have its number, and write there

    def enter(slots):
        rows = first(tf.gather(starts, slots))
        return rows._replace(active=rows.active & (slots < count))

    def body(slots, following, rows, ended):
        owner = tf.gather(owners, tf.minimum(slots, count - 1))
        rows = advance(tf.gather(images, owner), tf.gather(features, owner), rows)
        ended = tf.nest.map_structure(functools.partial(_write, slots), ended, rows.reached)
        free = ~(rows.active | spare)
        if not refill:
            free &= ~tf.reduce_any(rows.active)
        waiting = following + tf.cumsum(tf.cast(free, tf.int32), exclusive=True)
        slots = tf.where(free, tf.minimum(waiting, count), slots)
        following = tf.minimum(following + tf.reduce_sum(tf.cast(free, tf.int32)), count)
        return slots, following, _where(free, enter(slots), rows), ended

    slots = tf.where(spare, count, tf.minimum(numbers, count))
    ended = first(starts).reached
    state = (slots, tf.minimum(at_once, count), enter(slots), ended)
    *_, ended = tf.while_loop(
        lambda slots, following, rows, ended: tf.reduce_any(rows.active), body, state, parallel_iterations=1
    )
    return tf.nest.map_structure(lambda rows: rows[:count], ended)


def _write(numbers, rows, values):
    return tf.tensor_scatter_nd_update(rows, numbers[:, tf.newaxis], values)


def _where(condition, new, old):
    """`tf.where` by rows, `[B]`, over whole structures."""

    def choose(new, old):
        return tf.where(tf.reshape(condition, (-1, *[1] * (new.shape.rank - 1))), new, old)

    return tf.nest.map_structure(choose, new, old)


def _optimizer(settings, basis):
    return BFGS(basis) if settings.optimizer == "bfgs" else Adam(settings.learning_rate, basis)


def _first_rows(starts, optimizer, most):
    """`_Rows` before their first step, of `most` steps."""
    infinite = tf.zeros_like(starts[:, 0]) + float("inf")
    none = tf.zeros_like(infinite, tf.int32)
    reached = _Reached(z=starts, kept_z=starts, kept=infinite, taken=none, converged=none < 0)
    most = none + most
    return _Rows(reached, optimizer.start(starts), active=none < most, most=most, mark=infinite, waited=none)


def _choose_starts(networks, images, features, drawn, settings):
    """The starts of each image, `[B, restarts, latent_dim]`: the best of its candidates."""
    count = tf.shape(images)[0]
    drawn = tf.ensure_shape(drawn, (settings.drawn, drawn.shape[-1]))
    if settings.constraint == "project":
        drawn = latent.project(settings.prior, drawn)
    candidates = tf.tile(drawn[tf.newaxis], (count, 1, 1))
    encoded = None
    if settings.mode != "search":
        encoded = networks.encoder(images, training=False)
        if settings.constraint == "project":
            encoded = latent.project(settings.prior, encoded)
        candidates = tf.concat([candidates, encoded[:, tf.newaxis]], axis=1)
    if settings.considered == settings.restarts:
        return candidates
    made = networks.generator(drawn, training=False)  # the same for every image

    def objective(one):
        z, made, judged = (tensor[tf.newaxis] for tensor in one)
        return _compare(images, features, z, made, judged, settings)[0]

    rows = (drawn, made, networks.critic(made, training=False))
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
        return (_advance(rows, objective, tape.gradient(objective, z), optimizer, settings),)

    (rows,) = tf.while_loop(
        lambda rows: tf.reduce_any(rows.active), body, (rows,), maximum_iterations=ROUND, parallel_iterations=1
    )
    return rows


def _advance(rows, objective, gradient, optimizer, settings):
    """One step of every active row after a look at its z; the others stay as they are."""
    reached, active = rows.reached, rows.active
    better = active & (objective < reached.kept)
    marked = objective < rows.mark * (1.0 - settings.tolerance)
    waited = tf.where(marked, 0, rows.waited + 1)
    going = active & ((waited < settings.patience) if settings.tolerance else True)
    state, z = optimizer.step(rows.optimizer, reached.z, objective, gradient)
    if settings.constraint == "project":
        z = latent.project(settings.prior, z)
    taken = reached.taken + tf.cast(going, tf.int32)
    reached = _Reached(
        z=_where(going, z, reached.z),
        kept_z=_where(better, reached.z, reached.kept_z),
        kept=tf.where(better, objective, reached.kept),
        taken=taken,
        converged=reached.converged | (active & ~going),
    )
    mark = tf.where(marked, objective, rows.mark)
    return _Rows(reached, _where(going, state, rows.optimizer), going & (taken < rows.most), rows.most, mark, waited)


def _at_returned_z(networks, images, features, ended, settings):
    """`(SearchResult, objective)`, everything at the one z that is returned."""
    z = ended.z
    if settings.keep == "best" and settings.steps:
        # The loop looked at every z but the last.
        last = _evaluate(networks, images, features, ended.z, settings)[0]
        z = _where(last < ended.kept, ended.z, ended.kept_z)
    objective, loss, residual, discrimination, reconstruction = _evaluate(networks, images, features, z, settings)
    return SearchResult(z, reconstruction, loss, residual, discrimination, ended.taken, ended.converged), objective


def _evaluate(networks, images, features, z, settings):
    """At z `[B, latent_dim]`: objective, loss, residual, discrimination (each `[B]`) and G(z)."""
    made = networks.generator(z, training=False)
    return *_compare(images, features, z, made, networks.critic(made, training=False), settings), made


def _compare(images, features, z, made, judged, settings):
    """Objective, loss, residual and discrimination of images `made` from z and `judged` by the critic."""
    if settings.loss == "f-anogan":
        residual = losses.mean_squared_loss(images, made)
        discrimination = losses.mean_squared_loss(features, judged)
        loss = residual + settings.kappa * discrimination
    else:
        residual = losses.residual_loss(images, made)
        reference = settings.loss == "reference"
        discrimination = losses.reference_loss(judged) if reference else losses.discrimination_loss(features, judged)
        loss = (1.0 - settings.weight) * residual + settings.weight * discrimination
    objective = loss
    if settings.constraint == "penalty":
        objective += settings.penalty_weight * latent.penalty(settings.prior, z)
    return objective, loss, residual, discrimination


def whitening_basis(networks, latent_dim, settings):
    """The basis of `latent.whitening` for the loss of the settings, NumPy `[latent_dim, latent_dim]`."""

    def outputs(z):
        images = networks.generator(z, training=False)
        judged = networks.critic(images, training=False)
        weights = (1.0 - settings.weight, settings.weight)
        if settings.loss == "f-anogan":
            weights = (1.0 / images.shape[1:].num_elements(), settings.kappa / judged.shape[1:].num_elements())
        return [tf.cast(output, tf.float32) * weight**0.5 for output, weight in zip((images, judged), weights)]

    return latent.whitening(outputs, settings.prior, latent_dim, (settings.seed, 1))

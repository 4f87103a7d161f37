"""Rows of a search in blocks of one size, so that an image's result doesn't depend on its company."""

import functools

import tensorflow as tf

# A CPU multiplies matrices by panels of so many rows (AVX2, AVX-512); those left over at the end it sums in another order.
PANELS = (6, 8)


def padded_block_size(block):
    """How many rows a block of `block` images has: spare ones follow, so that what is left over by the `PANELS` is spare."""
    return max(-(-block // panel) * panel for panel in PANELS)


def map_blocks(function, rows, block):
    """Run a function on blocks of rows.

    Args:
        function: from tensors of so many rows to a structure of such tensors.
        rows: a tuple of structures of tensors `[N, ...]`.
        block: rows at once; zeros pad each block to `padded_block_size`, and the last one to `block`. None takes all at once.

    Returns:
        What the function gives, with N rows.
    """
    if block is None:
        return function(*rows)
    count = tf.shape(rows[0])[0]
    blocks = (count + block - 1) // block

    def to_blocks(rows):
        each = [(0, 0)] * (rows.shape.rank - 1)
        padded = tf.pad(rows, [(0, blocks * block - count), *each])
        padded = tf.reshape(padded, (blocks, block, *rows.shape[1:]))
        return tf.pad(padded, [(0, 0), (0, padded_block_size(block) - block), *each])

    rows = tf.nest.map_structure(to_blocks, rows)
    one = tf.nest.map_structure(lambda rows: tf.TensorSpec(rows.shape[1:], rows.dtype), rows)
    outputs = tf.function(function, autograph=False).get_concrete_function(*one).structured_outputs
    outputs = tf.nest.map_structure(lambda outputs: tf.TensorSpec(outputs.shape, outputs.dtype), outputs)
    # One block after another: two at once would share the cores and double the memory.
    stacked = tf.map_fn(lambda rows: function(*rows), rows, fn_output_signature=outputs, parallel_iterations=1)
    return tf.nest.map_structure(lambda rows: tf.reshape(rows[:, :block], (-1, *rows.shape[2:]))[:count], stacked)


def run_queue(step, first, images, features, image_ids, starts, block, refill):
    """Search every row; in a block, a row that has finished makes room for one that waits.

    Args:
        step: of `Stages`.
        first: from starts to `_Rows` before their first step.
        images, block, refill: as in `latent_search`.
        features: f of each image, `[N, ...]`, of `Stages.init`.
        image_ids: `[R]`, which image each row searches for.
        starts: `[R, latent_dim]`.

    Returns:
        `_Reached` with R rows.
    """
    count = tf.shape(starts)[0]
    at_once = block or count
    numbers = tf.range(padded_block_size(block) if block else count)
    spare = numbers >= at_once
    starts = tf.pad(starts, [(0, 1), (0, 0)])  # one row more than there are: empty slots have its number, and write there

    def enter(slots):
        rows = first(tf.gather(starts, slots))
        return rows._replace(active=rows.active & (slots < count))

    def body(slots, following, rows, ended):
        image_id = tf.gather(image_ids, tf.minimum(slots, count - 1))
        rows = step(tf.gather(images, image_id), tf.gather(features, image_id), rows)
        ended = tf.nest.map_structure(functools.partial(_write, slots), ended, rows.reached)
        free = ~(rows.active | spare)
        if not refill:
            free &= ~tf.reduce_any(rows.active)
        waiting = following + tf.cumsum(tf.cast(free, tf.int32), exclusive=True)
        slots = tf.where(free, tf.minimum(waiting, count), slots)
        following = tf.minimum(following + tf.reduce_sum(tf.cast(free, tf.int32)), count)
        return slots, following, where_rows(free, enter(slots), rows), ended

    slots = tf.where(spare, count, tf.minimum(numbers, count))
    ended = first(starts).reached
    state = (slots, tf.minimum(at_once, count), enter(slots), ended)
    *_, ended = tf.while_loop(
        lambda slots, following, rows, ended: tf.reduce_any(rows.active), body, state, parallel_iterations=1
    )
    return tf.nest.map_structure(lambda rows: rows[:count], ended)


def _write(numbers, rows, values):
    return tf.tensor_scatter_nd_update(rows, numbers[:, tf.newaxis], values)


def where_rows(condition, new, old):
    """`tf.where` by rows, `[B]`, over whole structures."""

    def choose(new, old):
        return tf.where(tf.reshape(condition, (-1, *[1] * (new.shape.rank - 1))), new, old)

    return tf.nest.map_structure(choose, new, old)

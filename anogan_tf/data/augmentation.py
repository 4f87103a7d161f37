"""Images changed at random in training, each differently, as a function of a seed."""

import functools

import tensorflow as tf


def augment_images(images, names, seed, sample=lambda count, draw: draw(count)):
    """Change images at random, each differently.

    Args:
        images: `[N, H, W, C]` in [0, 1].
        names: any of `AUGMENTATIONS`, see `Preprocessing`.
        seed: two integers; the same seed changes the same images in the same way.
        sample: gives the rows of these images of what `draw(count)` draws for so many; where they are a part of more.

    Returns:
        `[N, H, W, C]` in [0, 1].
    """
    for name in names:
        number = tf.stack([seed[0], seed[1] * len(AUGMENTATIONS) + AUGMENTATIONS.index(name)])
        images = _AUGMENT[name](images, functools.partial(_draw, tf.shape(images)[0], number, sample))
    return images


def _draw(count, seed, sample, low=0.0, high=1.0, each=1):
    """A column of numbers for each image, `[N, 1]`; with `each` several."""
    return sample(count, lambda rows: tf.random.stateless_uniform((rows, each), seed, low, high, alg="philox"))


def _where(rows, images, otherwise):
    return tf.where(tf.reshape(rows, (-1, 1, 1, 1)), images, otherwise)


def _mirror(images, draw):
    return _where(draw() < 0.5, images[:, :, ::-1], images)


def _flip(images, draw):
    return _where(draw() < 0.5, images[:, ::-1], images)


def _rotate(images, draw):
    turns = tf.cast(draw(0.0, 4.0), tf.int32)
    for turn in (1, 2, 3):
        images = _where(turns == turn, tf.image.rot90(images, turn), images)
    return images


def _shift(images, draw):
    for axis, moved in zip((1, 2), tf.unstack(draw(-1.0, 1.0, each=2), axis=1)):
        side = images.shape[axis]
        moved = tf.cast(tf.round(moved * (side / 16.0)), tf.int32)
        places = tf.clip_by_value(tf.range(side) + moved[:, tf.newaxis], 0, side - 1)
        images = tf.gather(images, places, axis=axis, batch_dims=1)
    return images


def _brighten(images, draw):
    return tf.clip_by_value(images + draw(-0.1, 0.1)[:, tf.newaxis, tf.newaxis], 0.0, 1.0)


_AUGMENT = {"mirror": _mirror, "flip": _flip, "rotate": _rotate, "shift": _shift, "brightness": _brighten}
AUGMENTATIONS = tuple(_AUGMENT)

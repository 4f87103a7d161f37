"""Normal images that a detector remembers, and how far a query lies from the nearest of them."""

from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.detection.maps import blur
from anogan_tf.runtime.backend import keras

MEMORY_SIDE = 32  # pixels; larger images are remembered as small as that
BLUR = 0.7  # of their pixels, standard deviation: a shift of half of one is to be forgiven
NEIGHBOURS = 3
LEVELS = 2**15 - 1  # of what is remembered, between 0 and 1


@keras.saving.register_keras_serializable("anogan_tf")
class MemoryBank(keras.layers.Layer):
    """From images `[N, H, W, C]` in [-1, 1] to `[N]`, their mean distance to the three nearest normal images it remembers.

    Distances are Euclidean, pixel by pixel, of images that are made small (no side above 32 pixels) and slightly blurred. That is
    the plainest detector there is, and it errs on other images than a generator does.

    >>> memory = MemoryBank.of(gan.preprocessing(normals))
    >>> AnoGAN.from_gan(gan, encoder, memory_bank=memory, score="complexity").calibrate(others)

    What it remembers has distance 0 to itself, so it must not be calibrated on.

    Args:
        count: how many images.
        image_shape: `(H, W, C)` of images it is called with.
    """

    def __init__(self, count: int, image_shape: tuple[int, int, int], name: str = "memory_bank", **kwargs: Any) -> None:
        super().__init__(name=name, **{"trainable": False, "autocast": False, **kwargs})
        self.count, self.image_shape = int(count), tuple(image_shape)
        if self.count < 1:
            raise ValueError(f"count={count}: a memory needs at least one image.")
        height, width, channels = self.image_shape
        share = min(1.0, MEMORY_SIDE / max(height, width))
        self._size = (max(1, round(share * height)), max(1, round(share * width)))
        size = self._size[0] * self._size[1] * channels
        # Half the bytes of floats, and far finer than pixels of 8 bits are.
        self.kept = self.add_weight(shape=(self.count, size), dtype="int16", trainable=False, initializer="zeros", name="kept")
        self.built = True

    @classmethod
    def of(cls, images: tf.Tensor | np.ndarray) -> "MemoryBank":
        """A memory of images `[N, H, W, C]` in [-1, 1], as a `Preprocessing` makes them."""
        images = np.asarray(images, np.float32)
        memory = cls(len(images), images.shape[1:])
        small = np.concatenate([memory.small(images[first : first + 256]) for first in range(0, len(images), 256)])
        memory.kept.assign(np.int16(np.round(np.clip(small, -1.0, 1.0) * LEVELS)))
        return memory

    def small(self, images):
        """What is compared of images, `[N, h * w * C]` float32."""
        if self._size != self.image_shape[:2]:
            images = tf.image.resize(images, self._size, antialias=True)
        return tf.reshape(blur(images, BLUR), (-1, self.kept.shape[1]))

    def call(self, images: tf.Tensor) -> tf.Tensor:
        small, kept = self.small(images), tf.cast(self.kept, tf.float32) * (1.0 / LEVELS)
        squares = tf.reduce_sum(kept * kept, axis=1) - 2.0 * tf.matmul(small, kept, transpose_b=True)
        nearest = tf.math.top_k(-squares, min(NEIGHBOURS, self.count)).indices
        # Once more and exactly: what is nearly the same would be lost in the rounding of large squares.
        distances = tf.norm(small[:, tf.newaxis] - tf.gather(kept, nearest), axis=-1)
        return tf.reduce_mean(distances, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count, "image_shape": self.image_shape}

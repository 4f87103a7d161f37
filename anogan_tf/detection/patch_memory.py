"""Patches of normal images that a detector remembers as its comparator describes them, and the distance to the nearest."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.networks.comparator import comparator_input, patch_features
from anogan_tf.runtime.backend import keras

PATCHES = 4000  # more gave nothing in trials (8,000), half as many little less
NEAR = 1e-3  # squared distance below which patches aren't told apart


@keras.saving.register_keras_serializable("anogan_tf")
class PatchMemory(keras.layers.Layer):
    """From descriptions of patches `[N, h, w, F]` to `[N, h, w]`, the logarithm of their distance to the nearest it remembers.

    Each of the F features is brought to deviation 1 before distances are taken (PatchCore, Roth et al. 2022, does the same
    with a pretrained network's). It finds surfaces that no normal image has, where the comparator itself sees but the outline of
    what is too large for it.

    Args:
        count: how many patches.
        features: F.
    """

    def __init__(self, count: int, features: int, name: str = "patch_memory", **kwargs: Any) -> None:
        super().__init__(name=name, **{"trainable": False, "autocast": False, **kwargs})
        self.count, self.features = int(count), int(features)
        if min(self.count, self.features) < 1:
            raise ValueError(f"count={count}, features={features}: a memory needs at least one patch of at least one feature.")
        fixed: dict[str, Any] = {"trainable": False, "dtype": "float32", "initializer": "zeros"}
        self.kept = self.add_weight(shape=(self.count, self.features), name="kept", **fixed)
        self.scale = self.add_weight(shape=(self.features,), name="scale", **fixed)
        self.built = True

    @classmethod
    def of(
        cls,
        comparator: keras.Model,
        batches: Iterable[np.ndarray | tf.Tensor],
        count: int = PATCHES,
        *,
        seed: int = 0,
        reconstruct: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> "PatchMemory":
        """A memory of patches of normal images.

        Args:
            comparator: which describes them; the `ema_comparator` of a `ComparatorTrainer`.
            batches: of images, or of tiles that are as large as the comparator's, `[N, H, W, C]` in [-1, 1]; NaN beyond an image.
            count: how many patches are remembered, drawn at random where there are more.
            seed: of that.
            reconstruct: from images to G(E(x)), for a comparator that sees it.

        Raises:
            ValueError: if there are no patches.
        """
        network = patch_features(comparator)

        @tf.function(reduce_retracing=True)
        def describe(images):
            shown = comparator_input(images, reconstruct and reconstruct(images))
            patches = network(shown, training=False)[1]
            return patches, tf.image.resize(shown[..., -1:], tf.shape(patches)[1:3], method="area")

        described = [np.empty((0, network.output_shape[1][-1]), np.float32)]
        for images in batches:
            patches, within = describe(tf.convert_to_tensor(images, tf.float32))
            described.append(patches.numpy()[within.numpy()[..., 0] >= 0.5])
        return cls.of_descriptions(np.concatenate(described), count, seed)

    @classmethod
    def of_descriptions(cls, patches: np.ndarray, count: int = PATCHES, seed: int = 0) -> "PatchMemory":
        """A memory of some of these patches `[P, F]`."""
        if not len(patches):
            raise ValueError("There are no patches to remember.")
        # A feature that hardly ever varies would count the most for a rounding.
        scale = 1.0 / (patches.std(axis=0) + 1e-3 * max(float(patches.std()), 1e-6))
        chosen = np.sort(np.random.default_rng(seed).permutation(len(patches))[:count])
        memory = cls(len(chosen), patches.shape[1])
        memory.kept.assign(patches[chosen] * scale)
        memory.scale.assign(scale)
        return memory

    def call(self, descriptions: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(descriptions)[:-1]
        asked = tf.reshape(tf.cast(descriptions, tf.float32) * self.scale, (-1, self.features))
        kept = tf.convert_to_tensor(self.kept)
        # Up to what is the same for all that is kept.
        squares = tf.reduce_sum(kept * kept, axis=1) - 2.0 * tf.matmul(asked, kept, transpose_b=True)
        nearest = tf.gather(kept, tf.argmin(squares, axis=1))
        # Once more and exactly: what is nearly the same would be lost in the rounding of large squares.
        distances = tf.reduce_sum(tf.square(asked - nearest), axis=1)
        return tf.reshape(0.5 * tf.math.log(distances + NEAR), shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "count": self.count, "features": self.features}

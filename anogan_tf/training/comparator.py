"""The comparator, trained to find defects that are drawn on normal images (as DRAEM, Zavrtanik et al. 2021, arXiv 2108.07610)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.data.defects import PLAIN, check_chosen, draw_example
from anogan_tf.data.preprocessing import MIN_DEVIATION, Preprocessing, to_network, to_pixels
from anogan_tf.networks import architectures, losses
from anogan_tf.networks.comparator import MARGIN, build_comparator, check_comparator, comparator_input
from anogan_tf.runtime.backend import keras
from anogan_tf.training.trainer import (
    ImagePredictor,
    clip_across_replicas,
    gather_replicas,
    sample_across_replicas,
    scale_for_replicas,
    update_average,
)

STEPS, BATCH = 12000, 8  # half as many of twice as large batches take as long and find less
RATE, WARM_UP, DECAY = 2e-3, 100, 1e-4  # of AdamW
LAST_RATE = 0.01  # of the rate, when all steps are done
MAX_NORM = 1.0  # of all gradients together
AT_DEFECT, EDGE = 0.75, 8  # share of tiles that are laid over a defect; pixels that it is within their edge
DICE = 0.5  # weight of the Dice loss beside the cross-entropy


@keras.saving.register_keras_serializable("anogan_tf")
class ComparatorTrainer(ImagePredictor):
    """Learns which pixels of a normal image were changed, by defects that it draws itself.

    >>> trainer = ComparatorTrainer.from_gan(gan)
    >>> trainer.compile(steps=12000)
    >>> trainer.fit_on(normals, batch_size=8, epochs=40)
    >>> logits = trainer.predict(images)

    With a generator and an encoder the comparator sees x, G(E(x)) and their difference, without them x alone. In trials on
    photographs of surfaces x alone was better than x with a PCA's reconstruction. Tiles of 96 pixels did better than of 64.

    Each image of a batch is varied (light, grain, margins), and in four of five cases has one to three defects, see
    `draw_defects`. Where the preprocessing normalizes images, the drawn one is normalized again, as when it is scored. With a
    `tile` the comparator learns from one tile of it, mostly where a defect is: so it sees what is larger than a tile in pieces.
    The loss is the mean cross-entropy of the pixels + 0.5 * the Dice loss of the images with a defect.

    Metrics: `loss`, and its terms `cross_entropy` and `dice`; the lower, the better, all of them.

    Attributes:
        ema_comparator: an average of the comparator's weights over the last steps, which `predict` and `evaluate` use.

    Args:
        comparator: your own network in place of the built one, as `build_comparator` describes it.
        generator: `[N, latent_dim]` to `[N, H, W, C]` in [-1, 1], or None. It is frozen, like the encoder: `from_gan` takes
            copies.
        encoder: `[N, H, W, C]` to `[N, latent_dim]`, or None; both or neither.
        preprocessing: a `Preprocessing`; by default the one for the generator's image shape.
        base_filters: of the built comparator, see `build_comparator`.
        tile: `(h, w)` of the tiles that it learns from, no larger than the images, for a detector with a `tiling`; None for
            whole images. Images of a `data.disk.DiskArray` may then be NaN beyond a rectangle, where a photograph ends.
        normalized: whether the images of a `data.disk.DiskArray`, which are prepared already, are normalized; by default as the
            preprocessing says.
        families, fillings: of defects that are drawn, see `draw_defects`; None for all.
        seed: of the initial weights, the defects and the order of the images.

    Raises:
        ValueError: for networks that don't fit together, or a family that isn't there.
    """

    PARTS = ("comparator", "generator", "encoder", "preprocessing")

    def __init__(
        self,
        comparator: keras.Model | None = None,
        generator: keras.Model | None = None,
        encoder: keras.Model | None = None,
        preprocessing: Preprocessing | None = None,
        *,
        base_filters: int = 32,
        tile: tuple[int, int] | None = None,
        normalized: bool | None = None,
        families: Sequence[str] | None = None,
        fillings: Sequence[str] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        check_chosen(families, fillings)
        self.families, self.fillings = (None if names is None else list(names) for names in (families, fillings))
        if generator is None and preprocessing is None:
            raise ValueError("Without a generator the preprocessing says what images there are: pass preprocessing=.")
        self.generator, self.encoder = _frozen_pair(generator, encoder)
        self.preprocessing = preprocessing or Preprocessing(self.generator.output_shape[1:])
        images = architectures.check_image_shape(self.preprocessing.image_shape)
        self.tile = None if tile is None else tuple(tile)
        self.image_shape = architectures.check_image_shape((*(self.tile or images[:2]), images[-1]))
        if tile is not None and (generator is not None or np.greater(self.image_shape, images).any()):
            raise ValueError(
                f"tile={self.tile} must lie within images of {images[:2]}, and without a generator: x is seen alone."
            )
        shown = {"with_reconstruction": self.generator is not None}
        if self.generator is not None:
            architectures.check_prepared(self.preprocessing, self.generator.output_shape[1:])
        if comparator is None:
            comparator = build_comparator(self.image_shape, base_filters, seed=seed, **shown)
        self.comparator = architectures.as_functional(comparator, "comparator")
        check_comparator(self.comparator, self.image_shape, **shown)
        self.ema_comparator = architectures.copy_network(self.comparator)
        self.ema_comparator.trainable = False
        self.normalized = self.preprocessing.normalize if normalized is None else bool(normalized)
        self.seed = seed
        self.built = True

    @classmethod
    def from_gan(cls, gan: keras.Model, encoder: keras.Model | None = None, **options: Any) -> "ComparatorTrainer":
        """A trainer for the images of a GAN: with its preprocessing and its seed.

        Args:
            gan: a `GAN`.
            encoder: the `encoder` of an `EncoderTrainer` of this GAN, where the comparator is to see reconstructions; it and the
                generator are copied. Without one it sees x alone.
            **options: as for the class.
        """
        if encoder is not None:
            networks = (gan.ema_generator, architectures.as_functional(encoder, "encoder"))
            generator, encoder = (architectures.copy_network(part) for part in networks)
            options = {"generator": generator, "encoder": encoder, **options}
        return cls(**{"preprocessing": gan.preprocessing.copy(), "seed": gan.seed, **options})

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | None = None,
        *,
        steps: int = STEPS,
        ema_momentum: float = 0.995,
        run_eagerly: bool = False,
    ) -> None:
        """Set the optimizer: AdamW, whose rate rises to 2e-3 in 100 steps and falls along a cosine, unless another is given.

        Gradients are cut to a norm of 1 in all, with any optimizer. XLA compiles nothing here: defects are drawn by NumPy.

        Args:
            optimizer: a Keras optimizer.
            steps: of training in all, at whose end the default optimizer's rate has fallen to a hundredth; no more is learned
                beyond.
            ema_momentum: `ema_comparator` keeps this share of its weights at each step and takes the rest from the comparator's.
            run_eagerly: as in `keras.Model.compile`.
        """
        if not steps >= 1:
            raise ValueError(f"steps={steps} must be 1 or more: number of images / batch size * epochs.")
        if not 0.0 <= ema_momentum < 1.0:
            raise ValueError(f"ema_momentum={ema_momentum} must lie in [0, 1).")
        super().compile(optimizer=optimizer or _adamw(steps), jit_compile=False, run_eagerly=run_eagerly)
        self.ema_momentum = ema_momentum
        # Built now, because a `.keras` file restores only optimizers that are.
        self.optimizer.build(self.comparator.trainable_variables)
        self._trackers = [keras.metrics.Mean(name=name) for name in ("loss", "cross_entropy", "dice")]

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Logits of a defect, `[N, H, W, 1]`, for images `[N, H, W, C]` in [-1, 1]."""
        return self.ema_comparator(self._shown(images), training=False)

    def train_on_images(self, images):
        """One step of the comparator."""
        step = tf.cast(self.batches_seen, tf.int32)
        drawn, masks = self._draw(images, step)
        shown, weights = self._shown(drawn), self.comparator.trainable_variables
        with tf.GradientTape() as tape:
            loss, *terms = self._loss_of(self.comparator(shown, training=True), masks)
            share = scale_for_replicas(loss)
        self.optimizer.apply(clip_across_replicas(tape.gradient(share, weights), MAX_NORM), weights)
        update_average(self.ema_comparator, self.comparator, self.ema_momentum, step)
        return self._track(loss, *terms)

    def test_on_images(self, images):
        """The losses on other images, with the same defects each time."""
        drawn, masks = self._draw(images, -1)
        return self._track(*self._loss_of(self(drawn), masks))

    def _shown(self, images):
        """What the comparator sees of images `[N, H, W, C]` in [-1, 1]."""
        if self.generator is None:
            return comparator_input(images)
        return comparator_input(images, self.generator(self.encoder(images, training=False), training=False))

    def _draw(self, images, step):
        """`(images [N, H, W, C] in [-1, 1], masks [N, H, W, 1])`, from (seed, step): a resumed run is the same run."""
        pixels = to_pixels(images)
        rows = sample_across_replicas(tf.shape(images)[0], tf.range)
        given = [pixels, gather_replicas(pixels), rows, step]  # pieces of all the batch's images, whichever device has them
        drawn, masks = tf.numpy_function(self._draw_rows, given, (tf.float32, tf.float32))
        shape = (images.shape[0], *self.image_shape)
        return to_network(tf.ensure_shape(drawn, shape)), tf.ensure_shape(masks, (*shape[:3], 1))

    def _draw_rows(self, images, others, rows, step):
        """`_draw` in NumPy, in [0, 1]; `rows` says which of the batch's images these are."""
        others = [other[_inside(other)] for other in others]
        drawn = [
            self._draw_row(image, others, np.random.default_rng([n % 2**32 for n in (self.seed, int(step), int(row))]), row)
            for image, row in zip(images, rows)
        ]
        return tuple(np.stack(parts).astype(np.float32) for parts in zip(*drawn))

    def _draw_row(self, image, others, rng, row):
        """`(image [h, w, c], mask [h, w, 1])` of one example: itself, or a tile of it."""
        inside, rest = _inside(image), [other for number, other in enumerate(others) if number != row]
        given = image[inside]
        x, mask = draw_example(given, rest, rng, self.families, self.fillings)
        if self.normalized:
            x = _like(x, given)
        drawn, whole = np.full_like(image, np.nan), np.zeros((*image.shape[:2], 1), np.float32)
        drawn[inside], whole[inside] = x, mask[..., np.newaxis]
        if self.tile is None:
            return drawn, whole
        at = _choose_tile(inside, whole[..., 0], self.tile, rng)
        return drawn[at], whole[at]

    def _loss_of(self, logits, masks):
        """`(loss, cross-entropy, Dice loss)` of a batch."""
        cross_entropy = tf.reduce_mean(losses.mask_cross_entropy(logits, masks))
        # Over the number of images that have a defect in the long run: over those of a batch, a share of it would differ.
        dice = tf.reduce_mean(losses.dice_loss(logits, masks)) / (1.0 - PLAIN)
        return cross_entropy + DICE * dice, cross_entropy, dice

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.parts_config(),
            **{name: getattr(self, name) for name in ("tile", "normalized", "families", "fillings", "seed")},
        }

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {"optimizer": keras.saving.serialize_keras_object(self.optimizer), "ema_momentum": self.ema_momentum}

    def compile_from_config(self, config):
        self.compile(keras.saving.deserialize_keras_object(config["optimizer"]), ema_momentum=config["ema_momentum"])


def _inside(image):
    """Where an image `[h, w, c]` isn't NaN: a rectangle, as slices."""
    known = ~np.isnan(image[..., 0])
    return tuple(
        slice(places[0], places[-1] + 1) for places in (np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0)))
    )


def _like(drawn, given):
    """An image with the mean and the deviation of another: normalized again, what else is in it changes with a large defect."""
    deviation = given.std() / max(float(drawn.std()), MIN_DEVIATION)
    return np.clip((drawn - drawn.mean()) * deviation + given.mean(), 0.0, 1.0)


def _choose_tile(inside, mask, tile, rng):
    """Slices of a tile, mostly with some of a defect in it, and not at its very edge; no more than `MARGIN` beyond the image."""
    last = np.subtract(mask.shape, tile)
    least = np.clip([one.start - MARGIN for one in inside], 0, last)
    most = np.clip(np.subtract([one.stop + MARGIN for one in inside], tile), least, last)
    first = rng.integers(least, most + 1)
    places = np.argwhere(mask) if rng.random() < AT_DEFECT else ()
    if len(places):
        edge = np.minimum(EDGE, np.array(tile) // 4)
        first = np.clip(places[rng.integers(len(places))] - rng.integers(edge, tile - edge), least, most)
    return tuple(slice(start, start + side) for start, side in zip(first, tile))


def _frozen_pair(generator, encoder) -> Any:
    """Both as functional models that learn nothing, or `(None, None)`."""
    if (generator is None) != (encoder is None):
        raise ValueError("A generator and an encoder make a reconstruction together; give both, or neither for x alone.")
    if generator is None:
        return None, None
    generator, encoder = architectures.as_functional(generator, "generator"), architectures.as_functional(encoder, "encoder")
    architectures.check_encoder(encoder, generator)
    generator.trainable = encoder.trainable = False
    return generator, encoder


def _adamw(steps):
    """The default optimizer for so many steps."""
    warm_up = min(WARM_UP, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warm_up else RATE,
        max(1, steps - warm_up),
        alpha=LAST_RATE,
        warmup_target=RATE if warm_up else None,
        warmup_steps=warm_up,
    )
    return keras.optimizers.AdamW(rate, weight_decay=DECAY)

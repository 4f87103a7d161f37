"""The generative adversarial network, trained by Keras's `fit` on normal images only."""

import numpy as np
import tensorflow as tf

from anogan_tf import latent, losses, networks
from anogan_tf.backend import keras
from anogan_tf.preparation import Preparation, check_pixels, require_valid, to_pixels
from anogan_tf.saving import OneFileModel

BATCH_SIZE = 16


@keras.saving.register_keras_serializable("anogan_tf")
class GAN(OneFileModel):
    """DCGAN (Radford et al. 2016): a generator and a discriminator that learn what normal images look like.

    >>> gan = GAN(image_shape=(28, 28, 1), latent_dim=32)
    >>> gan.compile()
    >>> gan.fit(normals, epochs=50)

    Args:
        image_shape: `(H, W, C)` of the networks; images of other sizes are resized. Sides divisible by 4, 16 to 256.
        latent_dim: length of z.
        preset: "light" or "paper", see `build_generator`.
        width: filters of the finest stage, in place of the preset's.
        prior: what z is drawn from, "normal" N(0, 1) or "uniform" [-1, 1].
        seed: of the initial weights, the latent vectors and the order of the images.
        generator, discriminator: your own networks in place of the built ones, as `build_generator` and
            `build_discriminator` describe them.
        preparation: a `Preparation`, where it is not to be the default for the networks' image shape.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        latent_dim=networks.LATENT_DIM,
        *,
        preset="light",
        width=None,
        prior="normal",
        seed=0,
        generator=None,
        discriminator=None,
        preparation=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        sizes = {"preset": preset, "width": width, "seed": seed}
        self.generator = generator or networks.build_generator(image_shape, latent_dim, **sizes)
        self.discriminator = discriminator or networks.build_discriminator(image_shape, **sizes)
        self.image_shape = networks.check_pair(self.generator, self.discriminator)
        self.latent_dim = self.generator.input_shape[-1]
        self.averaged_generator = keras.models.clone_model(self.generator)
        self.averaged_generator.set_weights(self.generator.get_weights())
        self.averaged_generator.trainable = False
        self.preparation = preparation or Preparation(self.image_shape)
        networks.check_prepared(self.preparation, self.image_shape)
        self.prior = latent.check_prior(prior)
        self.seed = seed
        self.built = True

    def compile(
        self,
        generator_optimizer=None,
        discriminator_optimizer=None,
        *,
        label_smoothing=0.0,
        averaging=0.999,
        jit_compile="auto",
        run_eagerly=False,
    ):
        """Set the optimisers: Adam(2e-4, beta_1=0.5) for each network unless others are given (DCGAN's defaults).

        Args:
            generator_optimizer, discriminator_optimizer: Keras optimisers.
            label_smoothing: real images' target is 1 - label_smoothing (one-sided, Salimans et al. 2016).
            averaging: `averaged_generator`, which `generate` and the detector use, keeps this share of its weights at
                each step and takes the rest from the generator's (Yazici et al. 2019); 0 follows the generator.
            jit_compile, run_eagerly: as in `keras.Model.compile`.
        """
        for name, value in (("label_smoothing", label_smoothing), ("averaging", averaging)):
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name}={value} must lie in [0, 1).")
        self.discriminator_optimizer = discriminator_optimizer or dcgan_adam()
        # Keras's own `optimizer` is the generator's, so its callbacks (TensorBoard, schedules) find one.
        super().compile(optimizer=generator_optimizer or dcgan_adam(), jit_compile=jit_compile, run_eagerly=run_eagerly)
        self.label_smoothing = label_smoothing
        self.averaging = averaging
        # Built now, because a `.keras` file restores only optimisers that are.
        self.optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        self._trackers = [
            keras.metrics.Mean(name=name) for name in ("discriminator_loss", "generator_loss", "real_score", "fake_score")
        ]

    @property
    def metrics(self):
        """The GAN's own: both losses, and the discriminator's mean probability of "real" for real and generated images."""
        return getattr(self, "_trackers", [])

    def call(self, z):
        """Images G(z), `[N, H, W, C]` in [-1, 1], for latent vectors `[N, latent_dim]`."""
        return self.averaged_generator(z, training=False)

    def generate(self, count, seed=0):
        """Draw `count` images from the prior: NumPy `[count, H, W, C]` in [0, 1], the same for the same seed."""
        z = latent.draw(self.prior, count, self.latent_dim, (self.seed, -1 - seed))
        return np.asarray(to_pixels(self(z)))

    def fit(
        self,
        x,
        batch_size=BATCH_SIZE,
        epochs=1,
        verbose="auto",
        callbacks=None,
        initial_epoch=0,
        steps_per_epoch=None,
    ):
        """Train on normal images.

        Args:
            x: pixels as they come: array `[N, h, w]` or `[N, h, w, c]` (uint8, uint16, or float in [0, 1]), or a batched
                `tf.data.Dataset` of such pixels (labels beside them are ignored). An array is shuffled anew for each
                pass, and what doesn't fill a batch waits for the next one.
            batch_size: images in a step; not for a dataset.
            epochs, verbose, callbacks, initial_epoch, steps_per_epoch: as in `keras.Model.fit`.

        Returns:
            `keras.callbacks.History`.

        Raises:
            ValueError: for pixels that can't be used, naming the remedy.
        """
        if not self.compiled:
            raise ValueError("Call compile() before fit(): `gan.compile()` sets DCGAN's defaults.")
        if not isinstance(x, tf.data.Dataset):
            pixels = check_pixels(x, "x")
            batch_size = min(batch_size, len(pixels))
            steps_per_epoch = steps_per_epoch or len(pixels) // batch_size
            x = self._shuffled_batches(pixels, batch_size)
        # Checked and resized here, not in `train_step`: XLA, where it compiles that, can do neither.
        x = x.map(lambda *batch: self.preparation.resize(require_valid(batch[0]))).prefetch(2)
        return super().fit(
            x,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            shuffle=False,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
        )

    def _shuffled_batches(self, pixels, batch_size):
        """Endless batches from where the step count stands; each pass over the pixels has its order from (seed, pass)."""
        pixels = tf.constant(pixels)
        order = tf.range(len(pixels))

        def one_pass(number):
            seed = tf.stack([tf.cast(self.seed, tf.int64), number])
            shuffled = tf.random.experimental.stateless_shuffle(order, seed, alg="philox")
            return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size, drop_remainder=True)

        passes, done = divmod(int(self.discriminator_optimizer.iterations.numpy()), len(pixels) // batch_size)
        rows = tf.data.Dataset.range(passes, tf.int64.max).flat_map(one_pass).skip(done)
        return rows.map(lambda rows: tf.gather(pixels, rows))

    def train_step(self, data):
        """One step of the discriminator, then one of the generator, on one batch of pixels."""
        pixels = keras.utils.unpack_x_y_sample_weight(data)[0]
        real = self.preparation(pixels)
        # Nothing may move before the images are there: at the end of a dataset of unknown length Keras runs one step
        # more than it has batches, and of that step only what needs no images would take place.
        with tf.control_dependencies([real]):
            return self._train_networks(real)

    def _train_networks(self, real):
        step = tf.cast(self.discriminator_optimizer.iterations, tf.int32)
        # Everything random is drawn from (seed, step): a resumed run is the same run.
        z = latent.draw(self.prior, tf.shape(real)[0], self.latent_dim, tf.stack([self.seed, step]))
        with tf.GradientTape() as generator_tape:
            fake = self.generator(z, training=True)
        discriminator_loss, real_logits, fake_logits = self._train_discriminator(real, fake)
        generator_loss = self._train_generator(fake, generator_tape)
        self._update_average(step)
        values = (discriminator_loss, generator_loss, tf.sigmoid(real_logits), tf.sigmoid(fake_logits))
        for tracker, value in zip(self._trackers, values):
            tracker.update_state(value)
        return self.get_metrics_result()

    def _train_discriminator(self, real, fake):
        with tf.GradientTape() as tape:
            # Two passes, so that batch normalisation never sees real and generated images in one batch.
            real_logits = self.discriminator(real, training=True)
            fake_logits = self.discriminator(fake, training=True)
            loss = tf.reduce_mean(losses.discriminator_loss(real_logits, fake_logits, self.label_smoothing))
        weights = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply(tape.gradient(loss, weights), weights)
        return loss, real_logits, fake_logits

    def _train_generator(self, fake, generator_tape):
        """A step against the discriminator as it is now, through images that are generated already."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fake)
            loss = tf.reduce_mean(losses.generator_loss(self.discriminator(fake, training=True)))
        weights = self.generator.trainable_variables
        self.optimizer.apply(generator_tape.gradient(fake, weights, output_gradients=tape.gradient(loss, fake)), weights)
        return loss

    def _update_average(self, step):
        step = tf.cast(step, tf.float32)
        # Early on the generator changes fast: the average starts short.
        kept = tf.minimum(self.averaging, (1.0 + step) / (10.0 + step))
        for average, weight in zip(self.averaged_generator.weights, self.generator.weights):
            average.assign(kept * average + (1.0 - kept) * weight)

    def get_config(self):
        return {
            "name": self.name,
            **{part: keras.saving.serialize_keras_object(getattr(self, part)) for part in _PARTS},
            "prior": self.prior,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        parts = {part: keras.saving.deserialize_keras_object(config[part]) for part in _PARTS}
        return cls(**{**config, **parts})

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "generator_optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "discriminator_optimizer": keras.saving.serialize_keras_object(self.discriminator_optimizer),
            "label_smoothing": self.label_smoothing,
            "averaging": self.averaging,
        }

    def compile_from_config(self, config):
        optimizers = ("generator_optimizer", "discriminator_optimizer")
        self.compile(**{**config, **{name: keras.saving.deserialize_keras_object(config[name]) for name in optimizers}})


_PARTS = ("generator", "discriminator", "preparation")


def dcgan_adam():
    """Adam with DCGAN's settings: learning rate 2e-4, beta_1 0.5."""
    return keras.optimizers.Adam(2e-4, beta_1=0.5)

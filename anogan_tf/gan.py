"""The generative adversarial network, trained by Keras's `fit` on normal images only."""

import numpy as np
import tensorflow as tf

from anogan_tf import latent, losses, networks
from anogan_tf.backend import keras
from anogan_tf.fitting import PixelModel
from anogan_tf.preparation import Preparation, to_pixels


@keras.saving.register_keras_serializable("anogan_tf")
class GAN(PixelModel):
    """DCGAN (Radford et al. 2016): a generator and a discriminator that learn what normal images look like.

    >>> gan = GAN(image_shape=(28, 28, 1), latent_dim=32)
    >>> gan.compile()
    >>> gan.fit(normals, epochs=50)

    Its metrics are both losses, and the discriminator's mean probability of "real" for real and for generated images.

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

    PARTS = ("generator", "discriminator", "preparation")

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
        self.averaged_generator = networks.copy_network(self.generator)
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

    def call(self, z):
        """Images G(z), `[N, H, W, C]` in [-1, 1], for latent vectors `[N, latent_dim]`."""
        return self.averaged_generator(z, training=False)

    def generate(self, count, seed=0):
        """Draw `count` images from the prior: NumPy `[count, H, W, C]` in [0, 1], the same for the same seed."""
        z = latent.draw(self.prior, count, self.latent_dim, (self.seed, -1 - seed))
        return np.asarray(to_pixels(self(z)))

    def train_on_images(self, real):
        """One step of the discriminator, then one of the generator."""
        step = tf.cast(self.discriminator_optimizer.iterations, tf.int32)
        # Everything random is drawn from (seed, step): a resumed run is the same run.
        z = latent.draw(self.prior, tf.shape(real)[0], self.latent_dim, tf.stack([self.seed, step]))
        with tf.GradientTape() as generator_tape:
            fake = self.generator(z, training=True)
        discriminator_loss, real_logits, fake_logits = self._train_discriminator(real, fake)
        generator_loss = self._train_generator(fake, generator_tape)
        self._update_average(step)
        return self._track(discriminator_loss, generator_loss, tf.sigmoid(real_logits), tf.sigmoid(fake_logits))

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
            **self.parts_config(),
            "prior": self.prior,
            "seed": self.seed,
        }

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


def dcgan_adam():
    """Adam with DCGAN's settings: learning rate 2e-4, beta_1 0.5."""
    return keras.optimizers.Adam(2e-4, beta_1=0.5)

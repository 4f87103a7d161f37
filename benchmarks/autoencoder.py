"""The adversarially trained convolutional autoencoder (aCAE) that Schlegl et al. 2017 compare AnoGAN with."""

from typing import Any

import tensorflow as tf

from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.networks import architectures, losses
from anogan_tf.runtime.backend import keras
from anogan_tf.training.trainer import TRAINING_BATCH, ImageTrainer, scale_for_replicas

ADVERSARIAL_WEIGHT = 0.001  # Pathak et al. 2016, section 4: 0.999 for the squared error


@keras.saving.register_keras_serializable("anogan_tf")
class AdversarialAutoencoder(ImageTrainer):
    """An encoder and a decoder that reproduce normal images, against a discriminator that tells the copies from the originals.

    >>> autoencoder = AdversarialAutoencoder(image_shape=(28, 28, 1), latent_dim=32)
    >>> autoencoder.compile()
    >>> autoencoder.fit(normals, epochs=30)
    >>> detector = AnoGAN(autoencoder.generator, autoencoder.discriminator, autoencoder.encoder, mode="encoder")

    Its loss is (1 - w) * mean (x - G(E(x)))^2 + w * -log D(G(E(x))), with w = 0.001 (Pathak et al. 2016, eqs. 1 to 3, without
    the hole in the image). Its networks are those of a `GAN` and its encoder, so scores and maps can be AnoGAN's.

    Args:
        image_shape, latent_dim, preset, base_filters, seed: as for `GAN`.
        generator, discriminator, encoder: your own networks in place of the built ones; the generator is the decoder.
        preprocessing: a `Preprocessing`; by default the one for the networks' image shape.
        adversarial_weight: w.
    """

    PARTS = ("generator", "discriminator", "encoder", "preprocessing")

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (28, 28, 1),
        latent_dim: int = architectures.LATENT_DIM,
        *,
        preset: str = "light",
        base_filters: int | None = None,
        seed: int = 0,
        generator: keras.Model | None = None,
        discriminator: keras.Model | None = None,
        encoder: keras.Model | None = None,
        preprocessing: Preprocessing | None = None,
        adversarial_weight: float = ADVERSARIAL_WEIGHT,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        sizes: dict[str, Any] = {"preset": preset, "base_filters": base_filters, "seed": seed}
        self.generator = generator or architectures.build_generator(image_shape, latent_dim, **sizes)
        self.discriminator = discriminator or architectures.build_discriminator(image_shape, **sizes)
        self.encoder = encoder or architectures.build_encoder(image_shape, latent_dim, **sizes)
        self.image_shape = architectures.check_pair(self.generator, self.discriminator)
        architectures.check_encoder(self.encoder, self.generator)
        self.preprocessing = preprocessing or Preprocessing(self.image_shape)
        architectures.check_prepared(self.preprocessing, self.image_shape)
        if not 0.0 <= adversarial_weight <= 1.0:
            raise ValueError(f"adversarial_weight={adversarial_weight} must lie in [0, 1].")
        self.adversarial_weight, self.seed = float(adversarial_weight), seed
        self.built = True

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: keras.optimizers.Optimizer | None = None,
        *,
        jit_compile: bool | str = "auto",
        run_eagerly: bool = False,
    ) -> None:
        """Set the optimizers: Adam(1e-3) for encoder and decoder, Adam(1e-4) for the discriminator, unless others are given.

        Args:
            optimizer, discriminator_optimizer: Keras optimizers.
            jit_compile, run_eagerly: as in `keras.Model.compile`.
        """
        super().compile(optimizer=optimizer or keras.optimizers.Adam(1e-3), jit_compile=jit_compile, run_eagerly=run_eagerly)
        self.discriminator_optimizer = discriminator_optimizer or keras.optimizers.Adam(1e-4)
        # Built now, because a `.keras` file restores only optimizers that are.
        self.optimizer.build(self._copying_weights)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        self._trackers = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction_loss", "discriminator_loss")]

    @property
    def _copying_weights(self):
        return self.encoder.trainable_variables + self.generator.trainable_variables

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """G(E(x)), `[N, H, W, C]` in [-1, 1], for images in [-1, 1]."""
        return self.generator(self.encoder(images, training=False), training=False)

    def train_on_images(self, images):
        """One step of encoder and decoder, then one of the discriminator."""
        with tf.GradientTape() as tape:
            copies = self.generator(self.encoder(images, training=True), training=True)
            reconstruction = tf.reduce_mean(losses.mean_squared_loss(images, copies))
            adversarial = tf.reduce_mean(losses.generator_loss(self.discriminator(copies, training=True)))
            loss = (1.0 - self.adversarial_weight) * reconstruction + self.adversarial_weight * adversarial
            share = scale_for_replicas(loss)
        self.optimizer.apply(tape.gradient(share, self._copying_weights), self._copying_weights)
        with tf.GradientTape() as tape:
            judged = (self.discriminator(values, training=True) for values in (images, copies))
            discriminator_loss = tf.reduce_mean(losses.discriminator_loss(*judged))
            share = scale_for_replicas(discriminator_loss)
        weights = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply(tape.gradient(share, weights), weights)
        return self._track(loss, reconstruction, discriminator_loss)

    def test_on_images(self, images):
        """The losses on other images."""
        copies = self(images)
        logits = [self.discriminator(values, training=False) for values in (images, copies)]
        reconstruction = tf.reduce_mean(losses.mean_squared_loss(images, copies))
        adversarial = tf.reduce_mean(losses.generator_loss(logits[1]))
        loss = (1.0 - self.adversarial_weight) * reconstruction + self.adversarial_weight * adversarial
        return self._track(loss, reconstruction, tf.reduce_mean(losses.discriminator_loss(*logits)))

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.parts_config(),
            "adversarial_weight": self.adversarial_weight,
            "seed": self.seed,
        }

    def get_compile_config(self):
        if not self.compiled:
            return None
        names = ("optimizer", "discriminator_optimizer")
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}

    def compile_from_config(self, config):
        self.compile(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def train_autoencoder(pixels, image_shape, *, epochs, batch_size=TRAINING_BATCH, callbacks=(), **options):
    """aCAE: an `AdversarialAutoencoder` trained on normal pixels, as an `AnoGAN` whose score and maps are those of its copies.

    Args:
        pixels, epochs, batch_size, callbacks: as for `GAN.fit`.
        image_shape, **options: as for `AdversarialAutoencoder`.

    Returns:
        An `AnoGAN` with the mode "encoder".
    """
    autoencoder = AdversarialAutoencoder(image_shape, **options)
    autoencoder.compile()
    autoencoder.fit(pixels, epochs=epochs, batch_size=batch_size, callbacks=list(callbacks), verbose=0)
    parts = (autoencoder.generator, autoencoder.discriminator, autoencoder.encoder, autoencoder.preprocessing)
    return AnoGAN(*parts, mode="encoder")

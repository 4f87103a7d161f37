"""The encoder that finds an image's z in one pass, trained against a finished GAN (f-AnoGAN, Schlegl et al. 2019), or with it."""

from typing import Any

import tensorflow as tf

from anogan_tf.data.preprocessing import Preprocessing
from anogan_tf.networks import architectures, latent, losses
from anogan_tf.runtime.backend import keras
from anogan_tf.training.trainer import ImagePredictor, sample_across_replicas, scale_for_replicas

ENCODER_METHODS = ("izi_f", "izi", "ziz")


@keras.saving.register_keras_serializable("anogan_tf")
class EncoderTrainer(ImagePredictor):
    """Learns E: image to latent vector, while the generator and the discriminator stay as they are.

    >>> trainer = EncoderTrainer.from_gan(gan)
    >>> trainer.compile()
    >>> trainer.fit(normals, epochs=30)
    >>> detector = AnoGAN.from_gan(gan, encoder=trainer.encoder)

    The loss of a batch is the mean of (Schlegl et al. 2019, section 2.2)

    - "izi": mean (x - G(E(x)))^2, image to z to image
    - "izi_f": the same + kappa * mean (f(x) - f(G(E(x))))^2
    - "ziz": mean (z - E(G(z)))^2 for z from the prior, z to image to z; of the images only their number is used

    With `joint` the generator learns too, from where the GAN's training left it, and both networks have linear paths
    (`architectures.with_linear_paths`). The generator then draws normal images about as closely as a PCA of as many components;
    the GAN's own errs four times as much on photographs of surfaces.

    >>> trainer = EncoderTrainer.from_gan(gan, encoder=encoder, joint=True)
    >>> detector = AnoGAN.from_gan(gan, trainer.encoder, generator=trainer.generator)

    Args:
        generator: `[N, latent_dim]` to `[N, H, W, C]` in [-1, 1]. It is frozen unless `joint`, the discriminator always is:
            `from_gan` takes copies.
        discriminator: `[N, H, W, C]` to `[N, 1]` logits, with a layer named `features`.
        encoder: your own network in place of the built one, `[N, H, W, C]` to `[N, latent_dim]`.
        preprocessing: a `Preprocessing`; by default the one for the networks' image shape.
        method: "izi_f", "izi" or "ziz".
        kappa: weight of the features in "izi_f".
        joint: whether the generator learns as well; its batch normalization stays as it is. Not with "ziz".
        features: name of the discriminator's layer f.
        preset, base_filters: of the built encoder, see `build_encoder`.
        prior: what the generator's z is drawn from, "normal" or "uniform".
        seed: of the initial weights, the latent vectors and the order of the images.
    """

    PARTS = ("generator", "discriminator", "encoder", "preprocessing")

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model | None = None,
        preprocessing: Preprocessing | None = None,
        *,
        method: str = "izi_f",
        kappa: float = 1.0,
        joint: bool = False,
        features: str = architectures.FEATURES,
        preset: str = "light",
        base_filters: int | None = None,
        prior: str = "normal",
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if method not in ENCODER_METHODS:
            raise ValueError(f"method={method!r} is not one of {list(ENCODER_METHODS)}.")
        if not kappa >= 0.0:
            raise ValueError(f"kappa={kappa} must be 0 or more.")
        if joint and method == "ziz":
            raise ValueError("joint=True learns from images: take method='izi_f' or 'izi'.")
        self.generator = generator = architectures.as_functional(generator, "generator")
        self.discriminator = discriminator = architectures.as_functional(discriminator, "discriminator")
        self.image_shape = architectures.check_pair(generator, discriminator, features)
        generator.trainable, discriminator.trainable = joint, False
        latent_dim = generator.input_shape[-1]
        if encoder is None:
            sizes: dict[str, Any] = {"preset": preset, "base_filters": base_filters, "seed": seed}
            encoder = architectures.build_encoder(self.image_shape, latent_dim, **sizes)
        self.encoder = architectures.as_functional(encoder, "encoder")
        architectures.check_encoder(self.encoder, generator)
        self.preprocessing = preprocessing or Preprocessing(self.image_shape)
        architectures.check_prepared(self.preprocessing, self.image_shape)
        self._features = features
        self.method, self.kappa, self.joint = method, float(kappa), bool(joint)
        self.prior, self.seed = latent.check_prior(prior), seed
        self.built = True

    @classmethod
    def from_gan(cls, gan: keras.Model, **options: Any) -> "EncoderTrainer":
        """A trainer with copies of a GAN's networks, its preprocessing, its prior and its seed; `**options` as for the class.

        With `joint` both networks get linear paths; the encoder is copied too, or built.
        """
        generator, discriminator = (architectures.copy_network(part) for part in (gan.ema_generator, gan.discriminator))
        if options.get("joint"):
            encoder = options.pop("encoder", None)
            if encoder is None:
                sizes = {name: options[name] for name in ("preset", "base_filters") if name in options}
                shape, latent_dim = generator.output_shape[1:], generator.input_shape[-1]
                encoder = architectures.build_encoder(shape, latent_dim, seed=options.get("seed", gan.seed), **sizes)
            encoder = architectures.copy_network(architectures.as_functional(encoder, "encoder"))
            generator, options["encoder"] = architectures.with_linear_paths(generator, encoder)
        return cls(
            generator, discriminator, preprocessing=gan.preprocessing.copy(), **{"prior": gan.prior, "seed": gan.seed, **options}
        )

    def compile(
        self, optimizer: keras.optimizers.Optimizer | None = None, *, jit_compile: bool | str = "auto", run_eagerly: bool = False
    ) -> None:
        """Set the optimizer: Adam(1e-3) unless another is given.

        Args:
            optimizer: a Keras optimizer.
            jit_compile, run_eagerly: as in `keras.Model.compile`.
        """
        super().compile(optimizer=optimizer or keras.optimizers.Adam(1e-3), jit_compile=jit_compile, run_eagerly=run_eagerly)
        # Built now, because a `.keras` file restores only optimizers that are.
        self.optimizer.build(self._learning)
        self._trackers = [keras.metrics.Mean(name="loss")]

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """z = E(x), `[N, latent_dim]`, for images `[N, H, W, C]` in [-1, 1]."""
        return self.encoder(images, training=False)

    def train_on_images(self, images):
        """One step of the encoder."""
        with tf.GradientTape() as tape:
            loss = self._loss(images, tf.cast(self.batches_seen, tf.int32), training=True)
            share = scale_for_replicas(loss)
        self.optimizer.apply(tape.gradient(share, self._learning), self._learning)
        return self._track(loss)

    @property
    def _learning(self):
        """The weights that change."""
        return self.encoder.trainable_variables + self.generator.trainable_variables

    def test_on_images(self, images):
        """The loss on other images."""
        return self._track(self._loss(images, -1, training=False))

    def _loss(self, images, step, training):
        """The mean loss of a batch; what "ziz" draws follows from the step."""
        of_each = self._ziz_loss(images, step, training) if self.method == "ziz" else self._izi_loss(images, training)
        return tf.reduce_mean(of_each)

    def _izi_loss(self, images, training):
        reconstruction = self.generator(self.encoder(images, training=training), training=False)
        loss = losses.mean_squared_loss(images, reconstruction)
        if self.method == "izi_f":
            extractor = architectures.feature_extractor(self.discriminator, self._features)
            features, reconstructed = (extractor(values, training=False) for values in (images, reconstruction))
            loss += self.kappa * losses.mean_squared_loss(features, reconstructed)
        return loss

    def _ziz_loss(self, images, step, training):
        # Drawn from (seed, step): a resumed run is the same run.
        seed, size = tf.stack([self.seed, step]), self.generator.input_shape[-1]
        z = sample_across_replicas(tf.shape(images)[0], lambda count: latent.draw(self.prior, count, size, seed))
        return losses.mean_squared_loss(z, self.encoder(self.generator(z, training=False), training=training))

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.parts_config(),
            **{name: getattr(self, name) for name in ("method", "kappa", "joint", "prior", "seed")},
            "features": self._features,
        }

    def get_compile_config(self):
        return {"optimizer": keras.saving.serialize_keras_object(self.optimizer)} if self.compiled else None

    def compile_from_config(self, config):
        self.compile(keras.saving.deserialize_keras_object(config["optimizer"]))

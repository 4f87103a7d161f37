"""The generative adversarial network, trained by Keras's `fit` on normal images only."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from anogan_tf.data.preprocessing import Preprocessing, to_pixels
from anogan_tf.networks import architectures, latent, losses
from anogan_tf.networks.pretext import transform, transform_tables
from anogan_tf.runtime.backend import keras
from anogan_tf.training.objectives import OBJECTIVES, check_objective
from anogan_tf.training.trainer import ImageTrainer, replicas, sample_across_replicas, scale_for_replicas, update_average

IMAGE_SHAPE = (28, 28, 1)


@keras.saving.register_keras_serializable("anogan_tf")
class GAN(ImageTrainer):
    """A generator and a discriminator that learn what normal images look like: DCGAN (Radford et al. 2016) and what came after.

    >>> gan = GAN(image_shape=(28, 28, 1), latent_dim=32)
    >>> gan.compile()
    >>> gan.fit(normals, epochs=50)

    Its metrics are both losses, and the discriminator's mean probability of "real" for real and for generated images (its mean
    output, where the objective gives that no meaning as a probability).

    Args:
        image_shape: `(H, W, C)` of the networks, by default (28, 28, 1); images of other sizes are resized. Sides divisible by 4,
            16 to 256.
        latent_dim: length of z, by default 32.
        preset: "light" or "paper", see `build_generator`.
        base_filters: filters of the finest stage, in place of the preset's.
        prior: what z is drawn from, "normal" N(0, 1) or "uniform" [-1, 1].
        objective: "dcgan"; "wgan-gp", a critic with layer normalization and a gradient penalty (Gulrajani et al. 2017), five
            of whose batches make one step of the generator; or "hinge" with spectral normalization (Miyato et al. 2018).
        self_supervision: weight of a second task of the discriminator: to tell which of some turns and shifts a real image has
            been through (as Chen et al. 2019, arXiv 1811.11212, have it for turns); 0 for none. Its loss in that task on a
            query is a term of the score "complexity", see `ScoreSettings`.
        seed: of the initial weights, the latent vectors and the order of the images.
        generator, discriminator: your own networks in place of the built ones, as `build_generator` and
            `build_discriminator` describe them.
        preprocessing: a `Preprocessing`, where it is not to be the default for the networks' image shape.
        classifier: your own network for the second task, as `build_classifier` describes it.
    """

    PARTS = ("generator", "discriminator", "preprocessing", "classifier")

    def __init__(
        self,
        image_shape: tuple[int, int, int] | None = None,
        latent_dim: int | None = None,
        *,
        preset: str = "light",
        base_filters: int | None = None,
        prior: str = "normal",
        objective: str = "dcgan",
        self_supervision: float = 0.0,
        seed: int = 0,
        generator: keras.Model | None = None,
        discriminator: keras.Model | None = None,
        preprocessing: Preprocessing | None = None,
        classifier: keras.Model | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        sizes: dict[str, Any] = {"preset": preset, "base_filters": base_filters, "seed": seed}
        self.objective = check_objective(objective)
        if generator is None:
            generator = architectures.build_generator(image_shape or IMAGE_SHAPE, latent_dim or architectures.LATENT_DIM, **sizes)
        self.generator = architectures.as_functional(generator, "generator")
        architectures.check_sizes(self.generator, image_shape, latent_dim)
        if discriminator is None:
            normalization = OBJECTIVES[objective].normalization
            discriminator = architectures.build_discriminator(
                self.generator.output_shape[1:], normalization=normalization, **sizes
            )
        self.discriminator = architectures.as_functional(discriminator, "discriminator")
        self.image_shape = architectures.check_pair(self.generator, self.discriminator)
        self.latent_dim = self.generator.input_shape[-1]
        self.ema_generator = architectures.copy_network(self.generator)
        self.ema_generator.trainable = False
        self.preprocessing = preprocessing or Preprocessing(self.image_shape)
        architectures.check_prepared(self.preprocessing, self.image_shape)
        self.prior = latent.check_prior(prior)
        self.seed = seed
        if not self_supervision >= 0.0:
            raise ValueError(f"self_supervision={self_supervision} must be 0 or more.")
        self.self_supervision = float(self_supervision)
        self.classifier: Any = None
        if self.self_supervision:
            self._tables = transform_tables(*self.image_shape[:2])
            self.classifier = classifier or architectures.build_classifier(self.discriminator, len(self._tables), seed=seed)
        self.built = True

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer | None = None,
        discriminator_optimizer: keras.optimizers.Optimizer | None = None,
        *,
        label_smoothing: float = 0.0,
        ema_momentum: float = 0.999,
        jit_compile: bool | str = "auto",
        run_eagerly: bool = False,
    ) -> None:
        """Set the optimizers: for each network Adam as the objective's authors set it, unless others are given.

        Args:
            generator_optimizer, discriminator_optimizer: Keras optimizers; for DCGAN Adam(2e-4, beta_1=0.5).
            label_smoothing: real images' target is 1 - label_smoothing (one-sided, Salimans et al. 2016); DCGAN's alone.
            ema_momentum: `ema_generator`, which `generate` and the detector use, keeps this share of its weights at
                each step and takes the rest from the generator's (Yazici et al. 2019); 0 follows the generator.
            jit_compile, run_eagerly: as in `keras.Model.compile`.
        """
        for name, value in (("label_smoothing", label_smoothing), ("ema_momentum", ema_momentum)):
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name}={value} must lie in [0, 1).")
        if label_smoothing and self.objective != "dcgan":
            raise ValueError(f"label_smoothing={label_smoothing} is for the objective 'dcgan', this one is {self.objective!r}.")
        self.discriminator_optimizer = discriminator_optimizer or self._adam()
        # Keras's own `optimizer` is the generator's, so its callbacks (TensorBoard, schedules) find one.
        super().compile(optimizer=generator_optimizer or self._adam(), jit_compile=jit_compile, run_eagerly=run_eagerly)
        self.label_smoothing = label_smoothing
        self.ema_momentum = ema_momentum
        # Built now, because a `.keras` file restores only optimizers that are.
        self.optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self._discriminator_variables())
        second = ("transform_loss",) if self.classifier else ()
        names = ("discriminator_loss", "generator_loss", "real_score", "fake_score", *second)
        self._trackers = [keras.metrics.Mean(name=name) for name in names]

    def _discriminator_variables(self):
        return self.discriminator.trainable_variables + (self.classifier.trainable_variables if self.classifier else [])

    def _adam(self):
        rate, beta_1, beta_2 = OBJECTIVES[self.objective].adam
        return keras.optimizers.Adam(rate, beta_1=beta_1, beta_2=beta_2)

    @property
    def batches_seen(self):
        return self.discriminator_optimizer.iterations

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """Images G(z), `[N, H, W, C]` in [-1, 1], for latent vectors `[N, latent_dim]`."""
        return self.ema_generator(z, training=False)

    def generate(self, count: int, seed: int = 0) -> np.ndarray:
        """Draw `count` images from the prior: NumPy `[count, H, W, C]` in [0, 1], the same for the same seed."""
        z = latent.draw(self.prior, count, self.latent_dim, (self.seed, -1 - seed))
        return np.asarray(to_pixels(self(z)))

    def train_on_images(self, real):
        """One step of the discriminator, then, if it is its turn, one of the generator."""
        step, every = tf.cast(self.batches_seen, tf.int32), OBJECTIVES[self.objective].discriminator_steps
        if every > 1 and replicas() > 1:
            raise ValueError(
                f"objective={self.objective!r} trains the generator in some steps only, which no strategy of "
                "tf.distribute can share out; take 'dcgan' or 'hinge' on several devices."
            )
        # Everything random is drawn from (seed, step): a resumed run is the same run.
        seed = tf.stack([self.seed, step])
        z = sample_across_replicas(tf.shape(real)[0], lambda count: latent.draw(self.prior, count, self.latent_dim, seed))
        with tf.GradientTape() as generator_tape:
            fake = self.generator(z, training=True)
        discriminator_loss, real_logits, fake_logits, *transform_loss = self._train_discriminator(real, fake, step)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(fake)  # generated already: the discriminator as it is now judges the same images
            logits = self.discriminator(fake, training=True)
            generator_loss = tf.reduce_mean(OBJECTIVES[self.objective].generator_loss(logits))

        def train_generator():
            slopes = scale_for_replicas(tape.gradient(generator_loss, fake))
            self._train_generator(generator_tape.gradient(fake, self.generator.trainable_variables, output_gradients=slopes))

        if every == 1:
            train_generator()
        else:
            tf.cond((step + 1) % every == 0, train_generator, lambda: None)
        scores = self._scores(real_logits, fake_logits)
        return self._track(discriminator_loss, generator_loss, *scores, *transform_loss)

    def test_on_images(self, real):
        """Losses and scores of other real images against the same draws each time, by the networks as they score."""
        objective, seed = OBJECTIVES[self.objective], (self.seed, -2)
        z = latent.draw(self.prior, tf.shape(real)[0], self.latent_dim, seed)
        images = (real, self.ema_generator(z, training=False))
        real_logits, fake_logits = (self.discriminator(values, training=False) for values in images)
        found = [tf.reduce_mean(objective.discriminator_loss(real_logits, fake_logits))]
        found.append(tf.reduce_mean(objective.generator_loss(fake_logits)))
        found += self._scores(real_logits, fake_logits)
        if self.classifier:
            found.append(tf.reduce_mean(self._transform_loss(real, -1, training=False)))
        return self._track(*found)

    def _scores(self, *logits):
        """What the metrics tell of the discriminator's logits: for DCGAN the probability of "real"."""
        return [tf.sigmoid(values) if self.objective == "dcgan" else values for values in logits]

    def _train_discriminator(self, real, fake, step):
        objective = OBJECTIVES[self.objective]
        loss_of = objective.discriminator_loss
        if self.label_smoothing:
            loss_of = functools.partial(loss_of, label_smoothing=self.label_smoothing)
        with tf.GradientTape() as tape:
            # Two passes, so that batch normalization never sees real and generated images in one batch.
            real_logits = self.discriminator(real, training=True)
            fake_logits = self.discriminator(fake, training=True)
            loss = tf.reduce_mean(loss_of(real_logits, fake_logits))
            if objective.gradient_penalty:
                loss += objective.gradient_penalty * tf.reduce_mean(self._gradient_penalty(real, fake, step))
            total, second = scale_for_replicas(loss), []
            if self.classifier:
                second = [tf.reduce_mean(self._transform_loss(real, step))]
                total += self.self_supervision * scale_for_replicas(second[0])
        weights = self._discriminator_variables()
        self.discriminator_optimizer.apply(tape.gradient(total, weights), weights)
        return loss, real_logits, fake_logits, *second

    def _transform_loss(self, real, step, training=True):
        """Of one transform for each image, `[N]`."""
        seed = tf.stack([-1 - self.seed, step])  # neither the latent vectors' draws nor the penalty's
        options = {"minval": 0, "maxval": len(self._tables), "dtype": tf.int32, "alg": "philox"}
        numbers = sample_across_replicas(tf.shape(real)[0], lambda count: tf.random.stateless_uniform((count,), seed, **options))
        extractor = architectures.feature_extractor(self.discriminator)
        features = extractor(transform(real, tf.constant(self._tables), numbers), training=training)
        return losses.transform_loss(self.classifier(features, training=training), numbers)

    def _gradient_penalty(self, real, fake, step):
        """At points drawn uniformly from the lines between pairs of real and generated images, `[N]`."""
        seed = tf.stack([self.seed, -1 - step])  # not the latent vectors' draws
        share = tf.random.stateless_uniform((tf.shape(real)[0], 1, 1, 1), seed, alg="philox")
        between = share * real + (1.0 - share) * fake
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(between)
            logits = self.discriminator(between, training=True)
        return losses.gradient_penalty(tape.gradient(logits, between))

    def _train_generator(self, gradients):
        step = tf.cast(self.optimizer.iterations, tf.int32)
        self.optimizer.apply(gradients, self.generator.trainable_variables)
        update_average(self.ema_generator, self.generator, self.ema_momentum, step)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            **self.parts_config(),
            "prior": self.prior,
            "objective": self.objective,
            "self_supervision": self.self_supervision,
            "seed": self.seed,
        }

    def get_compile_config(self):
        if not self.compiled:
            return None
        return {
            "generator_optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "discriminator_optimizer": keras.saving.serialize_keras_object(self.discriminator_optimizer),
            "label_smoothing": self.label_smoothing,
            "ema_momentum": self.ema_momentum,
        }

    def compile_from_config(self, config):
        optimizers = ("generator_optimizer", "discriminator_optimizer")
        self.compile(**{**config, **{name: keras.saving.deserialize_keras_object(config[name]) for name in optimizers}})

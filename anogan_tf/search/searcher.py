"""A search that is ready: copies of the networks, starts, compiled stages."""

import tensorflow as tf

from anogan_tf.networks.architectures import feature_extractor
from anogan_tf.networks.inference import for_inference
from anogan_tf.search.search import Networks, SearchResult, compile_stages, latent_search, whitening_basis


class Searcher:
    """From images `[N, H, W, C]` in [-1, 1] to a `SearchResult`, by networks that stay as they were when it was built.

    Args:
        networks: `Networks`, copies that nothing else changes.
        starts: `[num_sampled_starts, latent_dim]`, see `sample_starts`.
        settings: `SearchSettings`.
        execution: `ExecutionSettings`.
    """

    def __init__(self, networks, starts, settings, execution):
        self.networks, self.settings, self.execution = networks, settings, execution
        self._starts = starts
        compiled = execution.block is not None
        self.stages = compile_stages(networks, settings, _by_xla(execution.jit_compile)) if compiled else None

    @classmethod
    def build(cls, generator, discriminator, encoder, settings, execution, *, features, starts, basis=None):
        """A searcher with copies of a detector's networks, made for inference.

        Args:
            generator, discriminator, encoder: Keras networks; the encoder may be None.
            settings, execution, starts: as for the class.
            features: name of the discriminator's layer that the discrimination loss compares.
            basis: `[latent_dim, latent_dim]`, of `estimate_basis`, or None.
        """
        parts = (generator, feature_network(discriminator, settings, features))
        generator, compared = (for_inference(network, execution.precision) for network in parts)
        encoder = encoder and for_inference(encoder, execution.precision)
        networks = Networks(generator, compared, encoder, None if basis is None else tf.constant(basis))
        return cls(networks, starts, settings, execution)

    def __call__(self, images, *, steps=None, refill=True) -> SearchResult:
        """Search.

        Args:
            images: `[N, H, W, C]` in [-1, 1].
            steps, refill: as for `latent_search`.
        """
        options = {"block": self.execution.block, "compiled": self.stages, "refill": refill, "steps": steps}
        return latent_search(self.networks, images, tf.constant(self._starts), self.settings, **options)

    def reconstruct(self, images):
        """G(E(x)), `[B, H, W, C]`: what the encoder alone finds."""
        z = self.networks.encoder(images, training=False)
        return self.networks.generator(z, training=False)


def feature_network(discriminator, settings, features):
    """What the loss compares images by: the discriminator up to a layer, or whole for the reference loss, by its logits."""
    return discriminator if settings.loss == "reference" else feature_extractor(discriminator, features)


def estimate_basis(generator, discriminator, settings, features):
    """The basis that the settings ask for, NumPy `[latent_dim, latent_dim]`, or None where they ask for none."""
    if not (settings.whiten and settings.steps):
        return None
    networks = Networks(generator, feature_network(discriminator, settings, features))
    return whitening_basis(networks, generator.input_shape[-1], settings)


def _by_xla(jit_compile):
    return bool(tf.config.list_logical_devices("GPU")) if jit_compile == "auto" else jit_compile

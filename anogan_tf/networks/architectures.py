"""The networks, as named Keras functional models: generator, discriminator, feature extractor, encoder.

All of them follow DCGAN (Radford et al. 2016): strided convolutions, batch normalization, no pooling. The number of
stages follows from the image's size: the side is halved until it is at most `COARSEST` pixels.
"""

import dataclasses
import math
import numbers
from typing import Any

import tensorflow as tf

from anogan_tf.runtime.backend import keras

layers = keras.layers

MULTIPLE, SMALLEST, LARGEST = 4, 16, 256  # of sides of images
LATENT_DIM = 32
COARSEST = 4  # pixels
WIDEST = 8  # no stage has more than this many times `base_filters`
FEATURES = "features"  # the discriminator's intermediate layer, f in the paper
NORMALIZATIONS = ("batch", "layer", "spectral")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Sizes that the generator, the discriminator and the encoder of one GAN share.

    Attributes:
        base_filters: filters of the stage nearest to the image; each coarser stage has twice as many.
        kernel_size: side of every convolution kernel.
    """

    base_filters: int = 32
    kernel_size: int = 4

    def sizes(self, height, width):
        """Feature map sizes from the image down: `[(H, W), (H/2, W/2), ...]`, rounded up."""
        sizes = [(height, width)]
        while max(sizes[-1]) > COARSEST and min(sizes[-1]) > 2:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        return sizes

    def filters(self, stages):
        """Filters of each stage, from the one nearest to the image down to the coarsest."""
        return [self.base_filters * min(2**stage, WIDEST) for stage in range(stages)]


PRESETS = {
    "light": Architecture(),
    # Schlegl et al. 2017: 64x64 patches, 512-256-128-64 filters, 5x5 kernels.
    "paper": Architecture(base_filters=64, kernel_size=5),
}


def batch_normalization(name):
    """A layer that on several devices takes the statistics of all their images, as one device would."""
    return layers.BatchNormalization(name=name, synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1)


def architecture(preset="light", base_filters=None):
    """The named preset, with `base_filters` in place of its own where they are given."""
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r} is not one of {sorted(PRESETS)}.")
    if base_filters is None:
        return PRESETS[preset]
    return dataclasses.replace(PRESETS[preset], base_filters=_check_positive("base_filters", base_filters))


def build_generator(
    image_shape: tuple[int, int, int],
    latent_dim: int = LATENT_DIM,
    *,
    preset: str = "light",
    base_filters: int | None = None,
    seed: int = 0,
) -> keras.Model:
    """G: latent vector to image.

    Args:
        image_shape: `(height, width, channels)`; sides divisible by 4 from 16 to 256, 1 or 3 channels.
        latent_dim: length of z.
        preset: "light" or "paper" (64x64 images, 512-256-128-64 filters, 5x5 kernels).
        base_filters: filters of the finest stage, in place of the preset's.
        seed: seeds the initial weights.

    Returns:
        A functional `keras.Model` named "generator", `[N, latent_dim]` to `[N, H, W, C]` float32 in [-1, 1].
    """
    height, image_width, channels = check_image_shape(image_shape)
    latent_dim = _check_positive("latent_dim", latent_dim)
    plan = architecture(preset, base_filters)
    sizes = plan.sizes(height, image_width)
    filters = plan.filters(len(sizes) - 1)
    initial = _Initializers(seed)

    latents = layers.Input((latent_dim,), name="latent")
    rows, columns = sizes[-1]
    x = layers.Dense(rows * columns * filters[-1], use_bias=False, kernel_initializer=initial(), name="project")(latents)
    x = layers.Reshape((rows, columns, filters[-1]), name="unflatten")(x)
    x = batch_normalization("project_norm")(x)
    x = layers.ReLU(name="project_relu")(x)
    for stage in range(len(filters) - 1, 0, -1):
        x = _upsample(x, sizes[stage], filters[stage - 1], plan.kernel_size, initial(), f"up{stage}", use_bias=False)
        x = batch_normalization(f"up{stage}_norm")(x)
        x = layers.ReLU(name=f"up{stage}_relu")(x)
    x = _upsample(x, sizes[0], channels, plan.kernel_size, initial(), "pixels", use_bias=True)
    # Pixels leave in float32 whatever the policy: the residual is their difference from x.
    images = layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model(latents, images, name="generator")


def build_discriminator(
    image_shape: tuple[int, int, int],
    *,
    preset: str = "light",
    base_filters: int | None = None,
    seed: int = 0,
    normalization: str = "batch",
) -> keras.Model:
    """D: image to one logit (no sigmoid), with an intermediate layer named "features".

    Args:
        image_shape: `(height, width, channels)`, as in `build_generator`.
        preset, base_filters, seed: as in `build_generator`.
        normalization: "batch" (DCGAN), "layer" (over each image's whole feature map, as a gradient penalty asks for), or
            "spectral" (of the weights).

    Returns:
        A functional `keras.Model` named "discriminator", `[N, H, W, C]` in [-1, 1] to `[N, 1]` float32 logits.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization={normalization!r} is not one of {list(NORMALIZATIONS)}.")
    initial = _Initializers(seed + 1)
    images, x = _convolutions(image_shape, architecture(preset, base_filters), initial, normalization)
    x = layers.Flatten(name="flatten")(x)
    logits = _normalized(layers.Dense(1, kernel_initializer=initial(), dtype="float32", name="logit"), normalization)(x)
    discriminator = keras.Model(images, logits, name="discriminator")
    for layer in discriminator.layers:
        if isinstance(layer, layers.SpectralNormalization):  # which draws its first vector without a seed
            layer.vector_u.assign(initial()(layer.vector_u.shape))
    return discriminator


def feature_extractor(discriminator: keras.Model, layer: str = FEATURES) -> keras.Model:
    """f: the discriminator up to one of its layers, sharing its weights.

    Args:
        discriminator: a functional model.
        layer: name of the layer whose output is wanted.

    Returns:
        A functional `keras.Model` named "feature_extractor" with the discriminator's input.

    Raises:
        ValueError: if the discriminator has no layer of that name.
    """
    names = [known.name for known in discriminator.layers]
    if layer not in names:
        raise ValueError(f"The discriminator has no layer named {layer!r}; choose one of {names}.")
    return keras.Model(discriminator.input, discriminator.get_layer(layer).output, name="feature_extractor")


def build_classifier(discriminator, count, *, seed=0, features=FEATURES):
    """From the discriminator's features to which of some transforms an image has been through.

    Args:
        discriminator: a functional model.
        count: how many transforms there are.
        seed: seeds the initial weights.
        features: name of the layer.

    Returns:
        A functional `keras.Model` named "classifier", `[N, ...]` features to `[N, count]` float32 logits.
    """
    inputs = layers.Input(feature_extractor(discriminator, features).output_shape[1:], name="features")
    options = {"kernel_initializer": _Initializers(seed + 3)(), "dtype": "float32", "name": "transform"}
    return keras.Model(inputs, layers.Dense(count, **options)(layers.Flatten(name="flatten")(inputs)), name="classifier")


def build_encoder(
    image_shape: tuple[int, int, int],
    latent_dim: int = LATENT_DIM,
    *,
    preset: str = "light",
    base_filters: int | None = None,
    seed: int = 0,
) -> keras.Model:
    """E: image to latent vector, the discriminator's shape with a linear head (f-AnoGAN, Schlegl et al. 2019).

    Args:
        image_shape, latent_dim, preset, base_filters, seed: as in `build_generator`.

    Returns:
        A functional `keras.Model` named "encoder", `[N, H, W, C]` in [-1, 1] to `[N, latent_dim]` float32.
    """
    latent_dim = _check_positive("latent_dim", latent_dim)
    images, x = _convolutions(image_shape, architecture(preset, base_filters), initial := _Initializers(seed + 2))
    x = layers.Flatten(name="flatten")(x)
    latents = layers.Dense(latent_dim, kernel_initializer=initial(), dtype="float32", name="latent")(x)
    return keras.Model(images, latents, name="encoder")


def with_linear_paths(generator: keras.Model, encoder: keras.Model) -> tuple[keras.Model, keras.Model]:
    """A generator and an encoder that do what these do, and beside that can do what a PCA can: `(generator, encoder)`.

    To G(z) a linear function of z is added, to E(x) one of x. Both are 0 to begin with: `EncoderTrainer` with `joint` trains
    them. The networks given share their layers with those returned.
    """
    shape = generator.output_shape[1:]
    initial: dict[str, Any] = {"use_bias": False, "kernel_initializer": "zeros", "name": "linear_path", "dtype": "float32"}
    pixels = layers.Reshape(shape, name="linear_pixels")(layers.Dense(math.prod(shape), **initial)(generator.input))
    images = layers.Add(name="image_sum", dtype="float32")([generator.output, pixels])
    images = layers.Activation("hard_tanh", name="image_in_range", dtype="float32")(images)
    flat = layers.Flatten(name="linear_flatten")(encoder.input)
    path = layers.Dense(encoder.output_shape[-1], **initial)(flat)
    latents = layers.Add(name="latent_sum", dtype="float32")([encoder.output, path])
    return (
        keras.Model(generator.input, images, name=generator.name),
        keras.Model(encoder.input, latents, name=encoder.name),
    )


def copy_network(network):
    """A copy of a functional network, with weights of its own."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def check_image_shape(image_shape):
    """Return `image_shape` as three integers, or raise a ValueError that says what a network can have."""
    try:
        height, width, channels = (int(side) for side in image_shape)
    except (TypeError, ValueError):
        raise ValueError(f"image_shape must be (height, width, channels), not {image_shape!r}.") from None
    if channels not in (1, 3):
        raise ValueError(f"image_shape={image_shape}: channels must be 1 (grey) or 3 (RGB).")
    for side in (height, width):
        if side % MULTIPLE or not SMALLEST <= side <= LARGEST:
            raise ValueError(
                f"image_shape={image_shape}: height and width must be divisible by {MULTIPLE}, from {SMALLEST} to {LARGEST}."
            )
    return height, width, channels


def as_functional(network, role):
    """A network as a functional model with the same layers; a ValueError where it is neither that nor Sequential.

    Args:
        network: a `keras.Model`.
        role: what errors call it.
    """
    if not isinstance(network, keras.Model) or not getattr(network, "inputs", None):
        raise ValueError(
            f"The {role} is a {type(network).__name__}; it must be a functional or Sequential keras.Model that knows its input: "
            "keras.Model(inputs, outputs), or a Sequential that begins with keras.Input."
        )
    if isinstance(network, keras.Sequential):
        return keras.Model(network.inputs, network.outputs, name=network.name)
    return network


def check_pair(generator, discriminator, features=FEATURES):
    """Return the image shape that both networks agree on, or raise a ValueError that says what is wrong with them.

    Args:
        generator, discriminator: functional models.
        features: name of the discriminator's layer f.
    """
    generated, taken = generator.output_shape[1:], discriminator.input_shape[1:]
    if len(generator.input_shape) != 2 or len(generated) != 3:
        raise ValueError(f"The generator maps {generator.input_shape} to {generator.output_shape}; it must map z to images.")
    if generated != taken:
        raise ValueError(f"The generator makes images of shape {generated}, the discriminator takes {taken}; they must agree.")
    if discriminator.output_shape[1:] != (1,):
        raise ValueError(f"The discriminator gives {discriminator.output_shape}; it must give one logit for each image, [N, 1].")
    feature_extractor(discriminator, features)
    return generated


def check_sizes(generator, image_shape, latent_dim):
    """Raise a ValueError where a generator of one's own has other sizes than those that are asked for beside it."""
    for name, asked, found in (
        ("image_shape", image_shape and tuple(image_shape), generator.output_shape[1:]),
        ("latent_dim", latent_dim, generator.input_shape[-1]),
    ):
        if asked is not None and asked != found:
            raise ValueError(f"{name}={asked} contradicts the generator, which has {found}; leave {name} out, or give another.")


def check_encoder(encoder, generator):
    """Raise a ValueError unless the encoder maps the generator's images to its latent vectors."""
    found, wanted = ((network.input_shape[1:], network.output_shape[1:]) for network in (encoder, generator))
    if found != wanted[::-1]:
        raise ValueError(
            f"The encoder maps {found[0]} to {found[1]}; this generator needs one that maps {wanted[1]} to {wanted[0]}."
        )


def check_prepared(preprocessing, image_shape):
    """Raise a ValueError unless the preprocessing makes images of the networks' shape."""
    if tuple(preprocessing.image_shape) != tuple(image_shape):
        raise ValueError(f"The preprocessing makes images of shape {preprocessing.image_shape}, the networks take {image_shape}.")


def check_tiled(preprocessing, image_shape):
    """Raise a ValueError unless the preprocessing makes images that tiles of the networks' shape can be cut from."""
    *_, given = preprocessing.image_shape
    if given != image_shape[-1]:
        raise ValueError(f"The preprocessing makes images of {given} channels, the networks take {image_shape[-1]}.")


def _convolutions(image_shape, plan, initial, normalization="batch"):
    """Strided convolutions from the image to the layer named "features". Returns (input, output)."""
    height, width, channels = check_image_shape(image_shape)
    filters = plan.filters(len(plan.sizes(height, width)) - 1)
    images = layers.Input((height, width, channels), name="image")
    x = images
    for stage, count in enumerate(filters, start=1):
        first, last = stage == 1, stage == len(filters)
        options = {"strides": 2, "padding": "same", "use_bias": first or normalization == "spectral"}
        convolution = layers.Conv2D(count, plan.kernel_size, kernel_initializer=initial(), name=f"down{stage}", **options)
        x = _normalized(convolution, normalization)(x)
        if not first and normalization != "spectral":  # DCGAN leaves the discriminator's first layer without normalization
            # Layer normalization with a gain for each channel, as Gulrajani et al. 2017 have it: a single group.
            name = f"down{stage}_norm"
            x = (batch_normalization(name) if normalization == "batch" else layers.GroupNormalization(groups=1, name=name))(x)
        x = layers.LeakyReLU(negative_slope=0.2, name=FEATURES if last else f"down{stage}_relu")(x)
    return images, x


def _normalized(layer, normalization):
    """A layer with its weights' spectral norm held at 1 where that is the normalization, under the layer's name.

    Keras overwrites the weights with the normalized ones; Miyato et al. keep both, and their gradient passes the norm.
    """
    if normalization != "spectral":
        return layer
    return layers.SpectralNormalization(layer, name=layer.name, dtype=layer.dtype_policy)


def _upsample(x, size, filters, kernel_size, initial, name, use_bias):
    """Double the feature map's sides by a transposed convolution, then cut to `size` where it is odd."""
    x = layers.Conv2DTranspose(
        filters, kernel_size, strides=2, padding="same", use_bias=use_bias, kernel_initializer=initial, name=name
    )(x)
    surplus = (x.shape[1] - size[0], x.shape[2] - size[1])
    if any(surplus):
        x = layers.Cropping2D(((0, surplus[0]), (0, surplus[1])), name=f"{name}_crop")(x)
    return x


class _Initializers:
    """Hands out DCGAN's N(0, 0.02) initializers, each with a seed of its own."""

    def __init__(self, seed):
        self._seed = seed * 1000

    def __call__(self):
        self._seed += 1
        return keras.initializers.RandomNormal(stddev=0.02, seed=self._seed)


def _check_positive(name, value):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be a whole number from 1.")
    return int(value)

"""Loss terms of the networks and of the latent search: pure functions, one value per image.

Every function sums over all axes but the first, as the papers do, and leaves averaging over a
batch to its caller.
"""

import tensorflow as tf


def _sum_per_image(values):
    """Sum `[N, ...]` over everything but the batch, in float32. Returns `[N]`."""
    values = tf.cast(values, tf.float32)
    return tf.reduce_sum(values, axis=tf.range(1, tf.rank(values)))


def residual_loss(images, reconstructions):
    """Residual loss, sum |x - G(z)| over pixels and channels (Schlegl et al. 2017, eq. 3).

    Args:
        images: `[N, H, W, C]`, x in network units [-1, 1].
        reconstructions: `[N, H, W, C]`, G(z) in the same units.

    Returns:
        `[N]` float32, between 0 and 2 * H * W * C.
    """
    return _sum_per_image(tf.abs(images - reconstructions))


def discrimination_loss(image_features, reconstruction_features):
    """Feature matching, sum |f(x) - f(G(z))| (Schlegl et al. 2017, eq. 5).

    Args:
        image_features: `[N, ...]`, an intermediate layer of the discriminator at x.
        reconstruction_features: `[N, ...]`, the same layer at G(z).

    Returns:
        `[N]` float32, 0 or more.
    """
    difference = tf.cast(image_features, tf.float32) - tf.cast(reconstruction_features, tf.float32)
    return _sum_per_image(tf.abs(difference))


def reference_loss(reconstruction_logits):
    """The discriminator's cross-entropy of G(z) being real, -log D(G(z)).

    The search loss of Yeh et al. (arXiv 1607.07539), which Schlegl et al. 2017 (eq. 4) compare feature matching
    with and call the reference.

    Args:
        reconstruction_logits: `[N, 1]` discriminator logits at G(z).

    Returns:
        `[N]` float32, 0 or more.
    """
    return _sum_per_image(tf.nn.softplus(-tf.cast(reconstruction_logits, tf.float32)))


def mean_squared_loss(one, other):
    """Mean of the squared difference, the terms of f-AnoGAN's loss and score (Schlegl et al. 2019, eqs. 3, 4 and 6).

    Args:
        one, other: `[N, ...]`, images in [-1, 1], features or latent vectors.

    Returns:
        `[N]` float32, 0 or more.
    """
    difference = tf.cast(one, tf.float32) - tf.cast(other, tf.float32)
    return tf.reduce_mean(tf.square(difference), axis=tf.range(1, tf.rank(difference)))


def discriminator_loss(real_logits, fake_logits, label_smoothing=0.0):
    """Cross-entropy of telling real from generated images.

    Args:
        real_logits: `[N, 1]` logits of real images.
        fake_logits: `[N, 1]` logits of generated images.
        label_smoothing: the target for real images is 1 - label_smoothing; the one for generated images stays 0
            (one-sided, Salimans et al. 2016).

    Returns:
        `[N]` float32.
    """
    real_logits = tf.cast(real_logits, tf.float32)
    targets = tf.fill(tf.shape(real_logits), 1.0 - label_smoothing)
    on_real = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=real_logits)
    on_fake = tf.nn.softplus(tf.cast(fake_logits, tf.float32))
    return _sum_per_image(on_real) + _sum_per_image(on_fake)


def hinge_discriminator_loss(real_logits, fake_logits):
    """Hinge loss, max(0, 1 - D(x)) + max(0, 1 + D(G(z))) (Miyato et al. 2018, eq. 16).

    Args:
        real_logits, fake_logits: `[N, 1]`.

    Returns:
        `[N]` float32, 0 or more.
    """
    real_logits, fake_logits = (tf.cast(logits, tf.float32) for logits in (real_logits, fake_logits))
    return _sum_per_image(tf.nn.relu(1.0 - real_logits)) + _sum_per_image(tf.nn.relu(1.0 + fake_logits))


def wasserstein_discriminator_loss(real_logits, fake_logits):
    """The critic's D(G(z)) - D(x), less the gradient penalty (Gulrajani et al. 2017, eq. 3).

    Args:
        real_logits, fake_logits: `[N, 1]`.

    Returns:
        `[N]` float32.
    """
    return _sum_per_image(fake_logits) - _sum_per_image(real_logits)


def gradient_penalty(gradients):
    """(|gradient| - 1)^2 of the critic at points between real and generated images (Gulrajani et al. 2017, eq. 3).

    Args:
        gradients: `[N, H, W, C]`, of D by its input.

    Returns:
        `[N]` float32, 0 or more.
    """
    # The square root has no derivative at 0.
    return tf.square(tf.sqrt(_sum_per_image(tf.square(gradients)) + 1e-12) - 1.0)


def critic_generator_loss(fake_logits):
    """-D(G(z)), the generator's loss against a critic or a hinge (Gulrajani et al. 2017; Miyato et al. 2018, eq. 17).

    Args:
        fake_logits: `[N, 1]`.

    Returns:
        `[N]` float32.
    """
    return -_sum_per_image(fake_logits)


def transform_loss(logits, numbers):
    """Cross-entropy of which transform an image has been through (Golan and El-Yaniv 2018).

    Args:
        logits: `[N, T]`.
        numbers: `[N]` integers, the transforms.

    Returns:
        `[N]` float32, 0 or more.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(numbers, tf.cast(logits, tf.float32))


def mask_cross_entropy(logits, masks):
    """Mean cross-entropy of each pixel being of a defect.

    Args:
        logits: `[N, H, W, 1]`.
        masks: `[N, H, W, 1]`, 1 where a defect is, else 0.

    Returns:
        `[N]` float32, 0 or more.
    """
    of_each = tf.nn.sigmoid_cross_entropy_with_logits(masks, tf.cast(logits, tf.float32))
    return tf.reduce_mean(of_each, axis=(1, 2, 3))


def dice_loss(logits, masks):
    """1 - Dice of the probabilities and the mask (Milletari et al. 2016), each sum larger by a pixel; 0 without a defect.

    Args:
        logits, masks: as for `mask_cross_entropy`.

    Returns:
        `[N]` float32, from 0 to 1.
    """
    probabilities, area = tf.sigmoid(tf.cast(logits, tf.float32)), _sum_per_image(masks)
    dice = (2.0 * _sum_per_image(probabilities * masks) + 1.0) / (_sum_per_image(probabilities) + area + 1.0)
    return tf.where(area > 0.0, 1.0 - dice, 0.0)


def generator_loss(fake_logits):
    """Non-saturating generator loss, -log D(G(z)) (Goodfellow et al. 2014, section 3).

    Args:
        fake_logits: `[N, 1]` logits of generated images.

    Returns:
        `[N]` float32, 0 or more.
    """
    return reference_loss(fake_logits)

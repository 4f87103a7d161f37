"""Training objectives: which losses, normalization and optimizer settings belong together."""

from collections.abc import Callable
from typing import NamedTuple

from anogan_tf.networks import losses


class Objective(NamedTuple):
    """How a generator and a discriminator are trained against each other.

    Attributes:
        discriminator_loss: of `(real_logits, fake_logits)`, each `[N, 1]`, to `[N]`.
        generator_loss: of `fake_logits` `[N, 1]` to `[N]`.
        normalization: of the discriminator, see `build_discriminator`.
        adam: learning rate, beta_1 and beta_2 of both optimizers.
        discriminator_steps: batches that the discriminator sees for each step of the generator.
        gradient_penalty: its weight in the discriminator's loss; 0 for none.
    """

    discriminator_loss: Callable
    generator_loss: Callable
    normalization: str
    adam: tuple
    discriminator_steps: int = 1
    gradient_penalty: float = 0.0


OBJECTIVES = {
    # Radford et al. 2016.
    "dcgan": Objective(losses.discriminator_loss, losses.generator_loss, "batch", (2e-4, 0.5, 0.999)),
    # Gulrajani et al. 2017, algorithm 1.
    "wgan-gp": Objective(losses.wasserstein_discriminator_loss, losses.critic_generator_loss, "layer", (1e-4, 0.0, 0.9), 5, 10.0),
    # Miyato et al. 2018, with the optimizer's settings C of their table 1.
    "hinge": Objective(losses.hinge_discriminator_loss, losses.critic_generator_loss, "spectral", (2e-4, 0.5, 0.999)),
}


def check_objective(name):
    """Return the name, or raise a ValueError that lists those there are."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective={name!r} is not one of {list(OBJECTIVES)}.")
    return name

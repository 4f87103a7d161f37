"""The settings of a latent search: what decides where it ends, how it is carried out, and their defaults."""

import dataclasses
import numbers
from typing import Any

from anogan_tf.networks import latent

MODES = ("search", "encoder", "refine")
OPTIMIZERS = ("adam", "bfgs")
LOSSES = ("feature_matching", "reference", "f-anogan")
KEEPS = ("best", "last")
PRECISIONS = ("float32", "bfloat16")
# What a setting is where it isn't given.
BY_MODE = {
    "search": {"steps": 500, "optimizer": "adam", "candidates": 64, "tolerance": 1e-2, "patience": 25},
    "refine": {"steps": 10, "optimizer": "bfgs", "candidates": 1, "tolerance": 1e-2, "patience": 5},
    "encoder": {"steps": 0, "optimizer": "adam", "candidates": 1, "tolerance": 0.0, "patience": 1},
}
#: The search of Schlegl et al. 2017: `AnoGAN.from_gan(gan, **PAPER)`. Optimizer and learning rate are ours: they name none.
PAPER: dict[str, Any] = {
    "mode": "search", "weight": 0.1, "steps": 500, "optimizer": "adam", "learning_rate": 0.1, "whiten": False,
    "candidates": 1, "keep": "last", "tolerance": 0.0,
}  # fmt: skip
MAX_STARTS = 100_000  # of an image; they lie in memory
BLOCK = 16


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Everything that decides where a search ends. It is saved, calibrated and exported with the detector.

    Attributes:
        mode: "search" from starts drawn from the prior (as in the paper), "encoder" to take z = E(x) and not search at all
            (as in f-AnoGAN), or "refine" to search on from E(x).
        weight: lambda; the loss is (1 - weight) * residual + weight * discrimination.
        steps: Gamma, the most gradient steps an image gets; by default 500 for a search, 10 to refine.
        optimizer: "adam" or "bfgs"; by default Adam for a search, BFGS to refine.
        learning_rate: of Adam.
        whiten: whether steps are taken in coordinates in which, on average, all directions of z change G(z) and its
            features alike (see `latent.whitening`).
        restarts: how many starts each image gets; the best is kept per image.
        candidates: an image starts from the `restarts` best of so many, by one forward pass; by default of 64 for a search,
            and from E(x) to refine.
        loss: the terms of the loss: "feature_matching" (the paper's), "reference" (its discrimination term is Yeh et al.'s),
            or "f-anogan" (mean squares, residual + kappa * discrimination; weight is not used).
        kappa: see loss.
        keep: which z is returned, the "best" seen or the "last" (the paper's).
        prior: what z was drawn from in training, "normal" or "uniform".
        constraint: None, "project" (z stays in the ball or cube of the prior) or "penalty" (a prior term in the loss).
        penalty_weight: weight of the prior term.
        tolerance: an image has converged when its loss hasn't fallen by this share within `patience` steps; 0 never.
        patience: see tolerance; by default 25 steps of a search, 5 to refine.
        seed: of the starts.

    Raises:
        ValueError: for a setting that makes no sense, naming it.
    """

    mode: str = "search"
    weight: float = 0.1
    steps: int | None = None
    optimizer: str | None = None
    learning_rate: float = 0.2
    whiten: bool = True
    restarts: int = 1
    candidates: int | None = None
    loss: str = "feature_matching"
    kappa: float = 1.0
    keep: str = "best"
    prior: str = "normal"
    constraint: str | None = None
    penalty_weight: float = 1.0
    tolerance: float | None = None
    patience: int | None = None
    seed: int = 0

    def __post_init__(self):
        latent.check_prior(self.prior)
        check_choice("mode", self.mode, MODES)
        for name, value in BY_MODE[self.mode].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, allowed in (
            ("optimizer", OPTIMIZERS), ("loss", LOSSES), ("keep", KEEPS), ("constraint", latent.CONSTRAINTS),
        ):  # fmt: skip
            check_choice(name, getattr(self, name), allowed)
        for name, least in (("steps", 0), ("restarts", 1), ("candidates", 1), ("patience", 1), ("seed", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.num_starts > MAX_STARTS:
            raise ValueError(f"An image can't have {self.num_starts} starts (restarts, candidates); {MAX_STARTS} at most.")
        for name in ("weight", "learning_rate", "kappa", "penalty_weight", "tolerance"):
            object.__setattr__(self, name, non_negative(name, getattr(self, name)))
        object.__setattr__(self, "whiten", bool(self.whiten))
        if self.weight > 1.0:
            raise ValueError(f"weight={self.weight} must lie in [0, 1]: 0 is the residual alone, 1 the discriminator alone.")
        if self.mode == "encoder" and (self.steps, self.num_starts) != (0, 1):
            raise ValueError(
                f"mode='encoder' takes z = E(x) as it is; steps={self.steps}, restarts={self.restarts} and "
                f"candidates={self.candidates} need mode='refine'."
            )

    @property
    def num_starts(self):
        """How many starts an image has to choose from."""
        return max(self.candidates or 1, self.restarts)

    @property
    def num_sampled_starts(self):
        """How many starts are sampled from the prior: all, but for the encoder's."""
        return self.num_starts if self.mode == "search" else self.num_starts - 1

    def replace(self, **changes: Any) -> "SearchSettings":
        """These settings with some changed. With the mode changes whatever depends on it and isn't given."""
        if changes.get("mode", self.mode) != self.mode:
            changes = {**dict.fromkeys(BY_MODE[self.mode]), **changes}
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class ExecutionSettings:
    """How a search is carried out. It changes a score's last bits at most, but for `precision`.

    Attributes:
        block: images searched together, padded to always as many rows (18 for 16), so that an image's score doesn't depend on
            its batch-mates to the last bit; None searches all rows at once, faster but without that promise.
        precision: what the networks calculate in, "float32" or "bfloat16"; z, pixels and scores are float32 always.
        jit_compile: whether XLA compiles the steps of a block: "auto" (on a GPU only: on a CPU it is slower), True or False.

    Raises:
        ValueError: for a setting that makes no sense, naming it.
    """

    block: int | None = BLOCK
    precision: str = "float32"
    jit_compile: bool | str = "auto"

    def __post_init__(self):
        if self.block is not None:
            object.__setattr__(self, "block", whole_number("block", self.block, 1))
        check_choice("precision", self.precision, PRECISIONS)
        if self.jit_compile is True and self.block is None:
            raise ValueError("jit_compile=True needs blocks of a fixed size; give block=16, say, in place of None.")


def check_choice(name, value, allowed):
    """Raise a ValueError unless a setting is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {list(allowed)}.")


def whole_number(name, value, least):
    """A setting as Python's integer, which a saved configuration can hold; a ValueError unless it is one from `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number from {least}.")
    return int(value)


def non_negative(name, value):
    """A setting as a float; a ValueError unless it is 0 or more."""
    if not value >= 0.0:
        raise ValueError(f"{name}={value} must be 0 or more.")
    return float(value)

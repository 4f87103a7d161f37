"""What a training run can be told: one dataclass for the command line, the run's record and Python. It imports nothing heavy."""

import dataclasses
from typing import Any, Literal

# By default, in the score "complexity" of whole images: weights, and how many. The last of normalized ones alone: where objects
# lie on a ground of their own they fill more of it or less, good or bad.
HELPING = {"self_supervision": 0.5, "memory_bank": 5000, "complexity_deviation": 0.5}


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Options of `workflows.train.train`, and of `anogan train`. None is the library's own default.

    What each means stands in its field's metadata, under "help"; `anogan train --help` and the documentation show it.
    """

    size: tuple[int, int] | None = _option(None, "Of the images in pixels, or HEIGHTxWIDTH, whatever size they come in.")
    fit: Literal["stretch", "pad", "crop"] = _option(
        "stretch", "Another aspect ratio is stretched to the size, or padded, or cropped to the middle."
    )
    patch: int | None = _option(None, "Train on patches of this side, and score images by overlapping patches.")
    stride: int | None = _option(None, "Pixels between neighbouring patches.")
    scale: float | None = _option(None, "Shrink images before patches are cut: 0.5 halves their sides.")
    top: int = _option(1, "An image's score is the mean of its highest so many patches.")
    patches: int | None = _option(None, "Patches to train on, cut at random places.")
    channels: int | None = _option(None, "1 grey, 3 colour; by default what the images are.")
    value_range: tuple[float, float] | None = _option(None, "Values that become black and white, of images of more than 8 bits.")
    normalize: bool | None = _option(None, "Give each image mean 0 and deviation 1, as X-rays need it.")
    augment: tuple[str, ...] = _option(
        (), "Changes at random in training: any of mirror, flip, rotate, shift and brightness, with commas between them."
    )
    latent_dim: int | None = _option(None, "Length of z.")
    preset: Literal["light", "paper"] = _option("light", "Networks: light, or those of the paper.")
    base_filters: int | None = _option(None, "Filters of the finest stage.")
    prior: Literal["normal", "uniform"] = _option("normal", "What z is drawn from.")
    objective: Literal["dcgan", "wgan-gp", "hinge"] = _option("dcgan", "What generator and discriminator are trained by.")
    self_supervision: float | None = _option(None, "Weight of the discriminator's second task, to tell turns and shifts apart.")
    epochs: int | None = _option(None, "Passes over the training images or patches.")
    batch_size: int | None = _option(None, "Images in a training step.")
    label_smoothing: float = _option(0.0, "One-sided label smoothing.")
    encoder: bool = _option(True, "Train an encoder, and start the search of an image from its answer.")
    mode: Literal["refine", "encoder", "search"] | None = _option(None, "How z is found when images are scored.")
    comparator: bool | None = _option(
        None, "Train a comparator to find defects that are drawn on normal images; it makes heatmaps and counts in the score."
    )
    comparator_steps: int | None = _option(None, "Steps of the comparator's training.")
    score: Literal["loss", "complexity", "peak"] | None = _option(
        None, "The loss of the search, how far it exceeds that of normal images as busy as the image, or the residual's peak."
    )
    complexity_deviation: float | None = _option(
        None, "Weight in the score complexity of how unusual it is to be so busy or plain."
    )
    memory_bank: int | None = _option(
        None, "Training images, or patches, at most, that are remembered for their distance to count in the score complexity."
    )
    quick: bool = _option(False, "A first look: a quarter of the training where its length isn't given.")
    weight: float | None = _option(None, "Lambda: weight of the discrimination loss.")
    steps: int | None = _option(None, "Gamma: the most gradient steps an image gets.")
    restarts: int | None = _option(None, "Starts of the search for each image.")
    false_positive_rate: float = _option(0.05, "Share of normal images that may be called anomalous.")
    seed: int = _option(0, "Seed of everything random.")

    def check(self) -> None:
        """Raise a ValueError where one thing that is asked for is of no use without another that isn't, or against it."""
        if self.size and not self.patch and self.for_patches:
            raise ValueError("--stride, --top, --scale and --patches are for patches: give --patch SIDE too, or no --size.")
        if self.patch and not self.size and self.fit != "stretch":
            raise ValueError("--fit is for images of one size: give --size SIDE too, or leave it out.")
        if self.mode not in (None, "search") and not self.encoder:
            raise ValueError(f"mode {self.mode!r} needs an encoder, and none is to be trained.")
        for name in ("self_supervision", "memory_bank", "complexity_deviation"):
            if getattr(self, name) and self.what_is_scored != "complexity":
                idle = f"--{name.replace('_', '-')} counts only in the score 'complexity'"
                raise ValueError(f"{idle}: train with --score complexity, or without it.")
        chosen = self.size or self.patch  # what the images ask for is known by then
        if chosen and self.comparator_steps and not self.with_comparator:
            raise ValueError("--comparator-steps is for a comparator: give --comparator too.")
        if self.comparator and self.what_is_scored != "complexity":
            raise ValueError(f"--comparator counts only in the score 'complexity', not in {self.score!r}: leave one of them out.")

    @property
    def for_patches(self) -> bool:
        """Whether something is asked for that whole images have no use for."""
        return bool(self.stride or self.top > 1 or self.scale not in (None, 1.0) or self.patches)

    @property
    def with_comparator(self) -> bool:
        """Whether a comparator is trained: by default for patches, unless they are scored without it."""
        if self.comparator is None:
            return self.patch is not None and self.score in (None, "complexity")
        return self.comparator

    @property
    def what_is_scored(self) -> str:
        """What the score is, given or not."""
        return self.score or "complexity"

    @property
    def tile(self) -> tuple[int, int] | None:
        """`(H, W)` of a patch, or None for whole images."""
        return None if self.patch is None else (self.patch, self.patch)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What `infer_preprocessing` takes, besides the source."""
        names = ("channels", "value_range", "fit", "augment")
        return {
            "size": self.size or (None, None),
            "scale": self.scale or 1.0,
            "normalize": bool(self.normalize),
            **self._named(names),
        }

    @property
    def networks(self) -> dict[str, Any]:
        """What `train_networks` takes of it, besides the epochs."""
        names = ("encoder", "batch_size", "label_smoothing", "latent_dim", "preset", "base_filters", "prior")
        return {"self_supervision": self._by_default("self_supervision"), **self._given((*names, "objective", "seed"))}

    @property
    def remembered(self) -> int:
        """How many images or patches a `MemoryBank` is to hold."""
        return int(self._by_default("memory_bank"))

    @property
    def searching(self) -> dict[str, Any]:
        """What `AnoGAN.from_gan` takes of it."""
        named, deviation = ("mode", "weight", "steps", "restarts", "seed"), self._by_default("complexity_deviation")
        return {"score": self.what_is_scored, "complexity_deviation": deviation, **self._given(named)}

    def _by_default(self, name):
        """An option's value, or what helps the score where it isn't given: nothing where maps, or the loss, are all of it."""
        given, helps = getattr(self, name), self.what_is_scored == "complexity" and self.patch is None
        if name == "complexity_deviation":
            helps = helps and bool(self.normalize)
        return given if given is not None else HELPING[name] if helps else 0

    def _named(self, names):
        return {name: getattr(self, name) for name in names}

    def _given(self, names):
        return {name: value for name, value in self._named(names).items() if value is not None}


DEFAULTS = TrainingOptions()

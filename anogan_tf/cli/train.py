"""`anogan train`: normal images to a calibrated detector in one file."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from anogan_tf.cli.console import console, end_with_skipped, errors, loading, open_source, progress, warn
from anogan_tf.cli.options import Config, DataDir, Images, NormalClass, Overwrite, Resume, Root, Strict, Tfds, takes
from anogan_tf.workflows.options import TrainingOptions


@takes(TrainingOptions)
def train(
    options: TrainingOptions,
    model: Annotated[Path, typer.Option("-o", "--out", help="The model file to write, MODEL.keras.")],
    images: Images = None,
    tfds: Tfds = None,
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
    strict: Strict = False,
    config: Config = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
):
    """Train a detector on normal images, 20 or more, and calibrate it on some that are held out."""
    with errors():
        if resume and _is_finished(model):
            console.print(f"{model} is finished already.")
            return
        _check_model_name(model, overwrite or resume)
        options.check()
        with loading():
            from anogan_tf.runtime.provenance import read_record
            from anogan_tf.workflows.splits import training_state
            from anogan_tf.workflows.train import train as train_on
        source = open_source(images, tfds, data_dir, normal_class, root)
        named: dict[str, Any] = {
            "images": [str(path.resolve()) for path in images or ()],
            "tfds": tfds,
            "normal_class": normal_class,
        }
        named |= {name: path and str(path.resolve()) for name, path in (("data_dir", data_dir), ("root", root))}
        named |= {"strict": strict}
        asked: dict[str, Any] = {"named": named, "resume": resume, "strict": strict}
        detector, skipped = train_on(source, model, options, **asked, warn=warn, say=_say, progress=progress)
        if config and read_record(training_state(model))["data"] != json.loads(config.read_text(encoding="utf-8"))["data"]:
            console.print(f"The images are not those of {config}: there are others by now, or they have changed.")
        _print_trained(model, detector, training_state(model) / "samples")
        end_with_skipped(skipped)


def _say(line):
    console.print(line, highlight=False, markup=False)


def _print_trained(model, detector, samples):
    height, width, channels = detector.image_shape
    kind = f"{height}x{width} {'colour' if channels == 3 else 'grey'}{' patches' if detector.tiling else ''}"
    console.print(
        f"Wrote {model}: {kind}, threshold {detector.threshold:.4g} from {len(detector.calibration.scores)} images. "
        f"Look at {samples} to see whether it has learned what your images look like."
    )
    if detector.preprocessing.value_range:
        low, high = detector.preprocessing.value_range
        console.print(
            f"In images of more than 8 bits {low:g} is black and {high:g} is white, here and when they are scored (--range)."
        )


def _is_finished(model):
    """Whether a training run came to its end: its state has its last name then."""
    return model.exists() and not model.with_suffix(".train.partial").exists()


def _check_model_name(model, overwrite):
    if model.suffix != ".keras":
        raise ValueError(f"{model}: a model file's name must end in .keras.")
    for path in (model, model.with_suffix(".train")):
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; choose another name with -o, or pass --overwrite.")

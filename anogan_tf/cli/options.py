"""Options that several commands have, how their text is read, and commands that take the fields of a dataclass as options."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, get_type_hints

import typer


def parse_size(size):
    """`(height, width)` of "64" or "64x96"."""
    sides = size.lower().split("x") if isinstance(size, str) else [str(side) for side in size]
    if len(sides) > 2 or not all(side.isdigit() for side in sides):
        raise typer.BadParameter(f"{size}: give one side in pixels, such as 64, or HEIGHTxWIDTH, such as 64x96.")
    return int(sides[0]), int(sides[-1])


def parse_range(value_range):
    """`(low, high)` of "0:4095"."""
    try:
        low, high = (float(value) for value in (value_range.split(":") if isinstance(value_range, str) else value_range))
    except ValueError:
        raise typer.BadParameter(f"{value_range}: give two numbers, such as 0:4095.") from None
    return low, high


def parse_place(text):
    """A path, or as text an address such as gs://bucket/parts, which `Path` would take a slash from."""
    return text if "://" in text else Path(text)


def parse_names(names):
    """The names in "a, b"."""
    return tuple(name.strip() for name in (names.split(",") if isinstance(names, str) else names) if name.strip())


def one_or_three(channels):
    """Check a number of channels."""
    if channels not in (None, 1, 3):
        raise typer.BadParameter("images have 1 channel (grey) or 3 (colour).")
    return channels


def in_between(rate):
    """Check a rate."""
    if not 0.0 < rate < 1.0:
        raise typer.BadParameter("a rate lies between 0 and 1.")
    return rate


Images = Annotated[
    Optional[list[Path]],
    typer.Argument(
        show_default=False, help="Folders, files (PNG, JPEG, TIFF, DICOM, NIfTI, .npy, .npz, IDX, ...) or CSV tables."
    ),
]
Tfds = Annotated[Optional[str], typer.Option(metavar="NAME[:VERSION]", help="A set of tensorflow-datasets, in place of files.")]
DataDir = Annotated[Optional[Path], typer.Option(help="Where prepared sets of tensorflow-datasets lie.")]
NormalClass = Annotated[
    Optional[str],
    typer.Option(show_default="good, normal, ok or 0", help="The label of what is normal, where images have labels."),
]
Root = Annotated[
    Optional[Path], typer.Option(show_default="where the table lies", help="The folder that the paths in a CSV table are below.")
]
Side = Literal["train", "val", "test", "all"]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that can't be read, in place of skipping it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over what is there already.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run of the same command stopped.")]
Model = Annotated[Path, typer.Argument(help="A model file that `anogan train` wrote.")]

# How fields of `TrainingOptions` are typed, where their name and type don't say it all.
SPELLING: dict[str, tuple[list[str], dict[str, Any]]] = {
    "size": ([], {"parser": parse_size, "metavar": "SIDE", "show_default": "what the images ask for"}),
    "patch": ([], {"min": 16, "max": 256, "show_default": "what the images ask for"}),
    "stride": ([], {"min": 1, "show_default": "half the patch"}),
    "scale": ([], {"min": 0.01, "max": 1.0, "show_default": "what the images ask for"}),
    "top": ([], {"min": 1}),
    "patches": ([], {"min": 100, "show_default": "10000"}),
    "channels": ([], {"callback": one_or_three}),
    "value_range": (
        ["--range"],
        {"parser": parse_range, "metavar": "LOW:HIGH", "show_default": "what the images span"},
    ),
    "normalize": (["--normalize/--no-normalize"], {"show_default": "where their light differs"}),
    "augment": ([], {"parser": parse_names, "metavar": "A,B", "show_default": False}),
    "latent_dim": ([], {"min": 1, "show_default": "32"}),
    "base_filters": ([], {"min": 1, "show_default": "the preset's"}),
    "self_supervision": ([], {"min": 0.0, "show_default": "0.5, for patches 0"}),
    "epochs": ([], {"min": 1, "show_default": "50 or 3,000 steps, 20 for patches"}),
    "batch_size": ([], {"min": 2, "show_default": "16"}),
    "label_smoothing": ([], {"min": 0.0, "max": 0.99}),
    "encoder": (["--encoder/--no-encoder"], {}),
    "mode": ([], {"show_default": "refine, or search without encoder"}),
    "comparator": (["--comparator/--no-comparator"], {"show_default": "for patches"}),
    "comparator_steps": ([], {"min": 1, "show_default": "12000"}),
    "score": ([], {"show_default": "complexity"}),
    "complexity_deviation": ([], {"min": 0.0, "show_default": "0.5 of normalized images, else 0"}),
    "memory_bank": ([], {"min": 0, "show_default": "5000, for patches 0"}),
    "quick": (["--quick"], {}),
    "weight": ([], {"min": 0.0, "max": 1.0, "show_default": "0.1"}),
    "steps": ([], {"min": 0, "show_default": "10, or 500 without encoder"}),
    "restarts": ([], {"min": 1, "show_default": "1"}),
    "false_positive_rate": (["--fpr"], {"callback": in_between}),
    "seed": ([], {"min": 0}),
}


def takes(options, names=None):
    """A decorator: the command gets `options`, an instance of a dataclass, whose fields are options of the command line.

    Args:
        options: the dataclass; each field's metadata has its `help`.
        names: of the fields that the command has; by default all.
    """
    hints = get_type_hints(options)
    fields = [field for field in dataclasses.fields(options) if names is None or field.name in names]

    def parameter(field):
        flags, settings = SPELLING.get(field.name, ([], {}))
        kind = Any if "parser" in settings else hints[field.name]
        option = typer.Option(*flags, help=field.metadata["help"], **settings)
        default = None if field.name in ("size", "value_range") else "" if field.name == "augment" else field.default
        return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])

    def decorate(command):
        own = dict(inspect.signature(command).parameters)
        del own["options"]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.values()]
        parameters += [parameter(field) for field in fields]

        def run(**typed):
            chosen = options(**{field.name: typed.pop(field.name) for field in fields})
            return command(options=chosen, **typed)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def read_config(context, path):
    """Make what `run.json` records of a run the defaults of a command's options."""
    if path is not None:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            recorded = {**record["images"], **record["options"]}
            unknown = sorted(set(recorded) - {parameter.name for parameter in context.command.params})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise typer.BadParameter(f"{path} is no run.json that `anogan train` wrote: {error!r}.") from None
        if unknown:
            raise typer.BadParameter(f"{path} holds {', '.join(unknown)}, which this command doesn't know.")
        context.default_map = {name: value for name, value in recorded.items() if value is not None}
    return path


Config = Annotated[
    Optional[Path],
    typer.Option(callback=read_config, is_eager=True, help="The run.json of a model: images and options, where none are given."),
]

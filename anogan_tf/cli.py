"""The command line. Only what parses arguments is imported at the top, so that `anogan --help` answers at once."""

import contextlib
import enum
import hashlib
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

app = typer.Typer(
    help="Train on normal images; then say of a new image how anomalous it is, and where.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
bench = typer.Typer(help="Measure.", no_args_is_help=True)
app.add_typer(bench, name="bench")
console = Console(stderr=True, soft_wrap=True)
SOME_SKIPPED = 3  # exit status when images were skipped


class Preset(str, enum.Enum):
    light = "light"
    paper = "paper"


class Prior(str, enum.Enum):
    normal = "normal"
    uniform = "uniform"


class Objective(str, enum.Enum):
    dcgan = "dcgan"
    wgan_gp = "wgan-gp"
    hinge = "hinge"


class Mode(str, enum.Enum):
    refine = "refine"
    encoder = "encoder"
    search = "search"


class Score(str, enum.Enum):
    loss = "loss"
    complexity = "complexity"
    peak = "peak"


class Fit(str, enum.Enum):
    stretch = "stretch"
    pad = "pad"
    crop = "crop"


class SplitSide(str, enum.Enum):
    train = "train"
    val = "val"
    test = "test"
    all = "all"


def _parse_size(size):
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(side.isdigit() for side in sides):
        raise typer.BadParameter(f"{size}: give one side in pixels, such as 64, or HEIGHTxWIDTH, such as 64x96.")
    return int(sides[0]), int(sides[-1])


def _parse_range(value_range):
    try:
        low, high = (float(value) for value in value_range.split(":"))
    except ValueError:
        raise typer.BadParameter(f"{value_range}: give two numbers, such as 0:4095.") from None
    return low, high


def _parse_place(text):
    """A path, or as text an address such as gs://bucket/parts, which `Path` would take a slash from."""
    return text if "://" in text else Path(text)


def _parse_names(names):
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _one_or_three(channels):
    if channels not in (None, 1, 3):
        raise typer.BadParameter("images have 1 channel (grey) or 3 (colour).")
    return channels


def _in_between(rate):
    if not 0.0 < rate < 1.0:
        raise typer.BadParameter("a rate lies between 0 and 1.")
    return rate


Epochs = Annotated[Optional[int], typer.Option(show_default="50", min=1, help="Passes over the training images.")]
Steps = Annotated[
    Optional[int],
    typer.Option(show_default="10, or 500 without encoder", min=0, help="Gamma: the most gradient steps an image gets."),
]
Encoder = Annotated[
    bool, typer.Option("--encoder/--no-encoder", help="Train an encoder, and start the search of an image from its answer.")
]
Weight = Annotated[
    Optional[float], typer.Option(show_default="0.1", min=0.0, max=1.0, help="Lambda: weight of the discrimination loss.")
]
Restarts = Annotated[Optional[int], typer.Option(show_default="1", min=1, help="Starts of the search for each image.")]
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
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that can't be read, in place of skipping it.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over what is there already.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run of the same command stopped.")]
NOT_RECORDED = ("model", "config", "overwrite", "resume")  # of a command's parameters: where it writes, not what it makes


def _read_config(context, path):
    """Make what `run.json` records of a command the defaults of its options."""
    if path is not None:
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))["command"]
            unknown = sorted(set(recorded) - {parameter.name for parameter in context.command.params})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise typer.BadParameter(f"{path} is no run.json that `anogan train` wrote: {error!r}.") from None
        if unknown:
            raise typer.BadParameter(f"{path} holds {', '.join(unknown)}, which this command doesn't know.")
        context.default_map = recorded
    return path


def _recorded(context):
    """A command's parameters as they would be typed, paths absolute, ready for JSON."""
    joined = {"size": "x", "value_range": ":", "augment": ","}

    def typed(name, value):
        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, Path):
            return str(value.resolve())
        if name in joined:
            return joined[name].join(map(str, value))
        return [typed("", one) for one in value] if isinstance(value, (list, tuple)) else value

    given = {name: value for name, value in context.params.items() if value is not None and name not in NOT_RECORDED}
    return {name: typed(name, value) for name, value in given.items()}


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for pictures, numbers and the model.")] = Path("anogan-demo"),
    epochs: Epochs = None,
    encoder: Encoder = True,
    steps: Steps = None,
    weight: Weight = None,
    restarts: Restarts = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
):
    """Train on the built-in photographs of boots, score boots and other things, draw what came out."""
    with _errors():
        _check_folder(out, overwrite)
        with _loading():
            from anogan_tf.demo import run_demo
        training = {"encoder": encoder, **_given(epochs=epochs)}
        searching = _given(steps=steps, weight=weight, restarts=restarts)
        numbers = run_demo(out, training=training, searching=searching, seed=seed, progress=_progress)
        _print_numbers(numbers)
        console.print(f"Look at contact_sheet.png, roc.png and histogram.png in {out}; the model is {out / 'model.keras'}.")


@app.command()
def train(
    context: typer.Context,
    model: Annotated[Path, typer.Option("-o", "--out", help="The model file to write, MODEL.keras.")],
    images: Images = None,
    tfds: Tfds = None,
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
    strict: Strict = False,
    size: Annotated[
        Optional[tuple],
        typer.Option(
            parser=_parse_size,
            metavar="SIDE",
            show_default="64; with --patch their own",
            help="Of the images in pixels, or HEIGHTxWIDTH, whatever size they come in.",
        ),
    ] = None,
    fit: Annotated[
        Fit, typer.Option(help="Another aspect ratio is stretched to the size, or padded, or cropped to the middle.")
    ] = Fit.stretch,
    patch: Annotated[
        Optional[int],
        typer.Option(min=16, max=256, help="Train on patches of this side, and score images by overlapping patches."),
    ] = None,
    stride: Annotated[
        Optional[int], typer.Option(show_default="half the patch", min=1, help="Pixels between neighbouring patches.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Shrink images before patches are cut: 0.5 halves their sides.")
    ] = 1.0,
    top: Annotated[int, typer.Option(min=1, help="An image's score is the mean of its highest so many patches.")] = 1,
    patches: Annotated[
        Optional[int], typer.Option(show_default="10000", min=100, help="Patches to train on, cut at random places.")
    ] = None,
    channels: Annotated[
        Optional[int], typer.Option(callback=_one_or_three, help="1 grey, 3 colour; by default what the images are.")
    ] = None,
    value_range: Annotated[
        Optional[tuple],
        typer.Option(
            "--range",
            parser=_parse_range,
            metavar="LOW:HIGH",
            show_default="what the images span",
            help="Values that become black and white, of images of more than 8 bits.",
        ),
    ] = None,
    normalise: Annotated[
        bool, typer.Option("--normalise", "--normalize", help="Give each image mean 0 and deviation 1, as X-rays need it.")
    ] = False,
    augment: Annotated[
        Any,
        typer.Option(
            parser=_parse_names,
            metavar="A,B",
            show_default=False,
            help="Changes at random in training: any of mirror, flip, rotate, shift and brightness, with commas between them.",
        ),
    ] = "",
    latent_dim: Annotated[Optional[int], typer.Option(show_default="32", min=1, help="Length of z.")] = None,
    preset: Annotated[Preset, typer.Option(help="Networks: light, or those of the paper.")] = Preset.light,
    width: Annotated[Optional[int], typer.Option(show_default="the preset's", min=1, help="Filters of the finest stage.")] = None,
    prior: Annotated[Prior, typer.Option(help="What z is drawn from.")] = Prior.normal,
    objective: Annotated[Objective, typer.Option(help="What generator and discriminator are trained by.")] = Objective.dcgan,
    self_supervision: Annotated[
        float,
        typer.Option(min=0.0, help="Weight of the discriminator's second task, to tell turns and shifts apart; 0.5, say."),
    ] = 0.0,
    memory: Annotated[
        int, typer.Option(min=0, help="Training images, or patches, that are remembered for their distance to count; 5000, say.")
    ] = 0,
    epochs: Annotated[
        Optional[int],
        typer.Option(show_default="50 or 3,000 steps, 20 for patches", min=1, help="Passes over the training images or patches."),
    ] = None,
    batch_size: Annotated[Optional[int], typer.Option(show_default="16", min=2, help="Images in a training step.")] = None,
    label_smoothing: Annotated[float, typer.Option(min=0.0, max=0.99, help="One-sided label smoothing.")] = 0.0,
    encoder: Encoder = True,
    mode: Annotated[
        Optional[Mode],
        typer.Option(show_default="refine, or search without encoder", help="How z is found when images are scored."),
    ] = None,
    score: Annotated[
        Score,
        typer.Option(
            help="The loss of the search, how far it exceeds that of normal images as busy as the image, or the residual's peak."
        ),
    ] = Score.loss,
    typicality: Annotated[
        float, typer.Option(min=0.0, help="Weight in the score complexity of how unusual it is to be so busy or plain; 0.5, say.")
    ] = 0.0,
    weight: Weight = None,
    steps: Steps = None,
    restarts: Restarts = None,
    false_positive_rate: Annotated[
        float, typer.Option("--fpr", callback=_in_between, help="Share of normal images that may be called anomalous.")
    ] = 0.05,
    seed: Seed = 0,
    config: Annotated[
        Optional[Path],
        typer.Option(
            callback=_read_config,
            is_eager=True,
            help="The run.json of a model: images and options, where none are given.",
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
):
    """Train a detector on normal images and calibrate it on a tenth of them (at least 50) held out."""
    with _errors():
        if resume and _is_finished(model):
            console.print(f"{model} is finished already.")
            return
        _check_model_name(model, overwrite or resume)
        if patch and not size and fit != Fit.stretch:
            raise ValueError("--fit is for images of one size: give --size SIDE too, or leave it out.")
        with _loading():
            from anogan_tf.records import read_record
            from anogan_tf.workflows import settle_preparation, train_files, training_state
        tile, tiling = _tiling(patch, stride, top, scale, patches)
        source = _source(images, tfds, data_dir, normal_class, root)
        own_size = (None, None) if patch else (64, 64)
        settings = {"fit": fit.value, "scale": scale, "normalise": normalise, "augment": augment}
        preparation = settle_preparation(source, size or own_size, channels=channels, value_range=value_range, **settings)
        networks: dict[str, Any] = {"preset": preset.value, "prior": prior.value, "objective": objective.value}
        searching = _given(weight=weight, steps=steps, restarts=restarts)
        networks |= {"self_supervision": self_supervision, **_given(latent_dim=latent_dim, width=width)}
        training = {"encoder": encoder, "label_smoothing": label_smoothing, **_given(epochs=epochs, batch_size=batch_size)}
        detector, skipped = train_files(
            source,
            model,
            preparation,
            tile=tile,
            tiling=tiling,
            **_given(tiles=patches),
            memory=memory,
            seed=seed,
            false_positive_rate=false_positive_rate,
            training={**networks, **training},
            searching={"score": score.value, "typicality": typicality, **_given(mode=mode and mode.value), **searching},
            strict=strict,
            resume=resume,
            command=_recorded(context),
            tell=lambda text: console.print(f"[yellow]{text}[/yellow]"),
            progress=_progress,
        )
        if config and read_record(training_state(model))["data"] != json.loads(config.read_text(encoding="utf-8"))["data"]:
            console.print(f"The images are not those of {config}: there are others by now, or they have changed.")
        _print_trained(model, detector, training_state(model) / "samples")
        _end_with_skipped(skipped)


def _print_trained(model, detector, samples):
    height, width, channels = detector.image_shape
    kind = f"{height}x{width} {'colour' if channels == 3 else 'grey'}{' patches' if detector.tiling else ''}"
    console.print(
        f"Wrote {model}: {kind}, threshold {detector.threshold:.4g} from {len(detector.calibration.scores)} images held out. "
        f"Look at {samples} to see whether it has learned what your images look like."
    )
    if detector.preparation.value_range:
        low, high = detector.preparation.value_range
        console.print(
            f"In images of more than 8 bits {low:g} is black and {high:g} is white, here and when they are scored (--range)."
        )


def _load_calibrated(model):
    from anogan_tf.detector import AnoGAN

    detector = AnoGAN.load(model)
    if detector.threshold is None:
        raise ValueError(
            f"{model} has no threshold: train it with `anogan train`, or call calibrate() in Python and save it again."
        )
    return detector


def _tiling(patch, stride, top, scale, patches):
    """`(tile, Tiling)`, both None without patches."""
    if patch:
        from anogan_tf.tiling import Tiling

        return (patch, patch), Tiling(stride or max(1, patch // 2), top)
    if stride or top > 1 or scale != 1.0 or patches:
        raise ValueError("--stride, --top, --scale and --patches are for patches: give --patch SIDE too.")
    return None, None


def _source(images, tfds, data_dir, normal_class, root):
    if bool(images) == bool(tfds):
        raise ValueError("Name images (folders, files or tables), or a set with --tfds; one of the two.")
    if tfds:
        from anogan_tf.data.tfds_sets import TfdsSource

        return TfdsSource(tfds, normal_class, data_dir)
    from anogan_tf.data import FileSource

    return FileSource.of(images, normal_class, root)


@app.command()
def score(
    model: Annotated[
        Path,
        typer.Argument(parser=_parse_place, metavar="MODEL", help="A model file that `anogan train` wrote; or see --runner."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", parser=_parse_place, metavar="FOLDER", help="Folder for scores.csv and heatmaps.")
    ],
    images: Annotated[
        Optional[list[Path]],
        typer.Argument(
            parser=_parse_place,
            metavar="[IMAGES]...",
            show_default=False,
            help="Folders, files (PNG, JPEG, TIFF, DICOM, NIfTI, .npy, .npz, IDX, ...) or CSV tables.",
        ),
    ] = None,
    tfds: Tfds = None,
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
    split: Annotated[SplitSide, typer.Option(help="Which side to score, of a set that is split.")] = SplitSide.test,
    strict: Strict = False,
    heatmaps: Annotated[bool, typer.Option("--heatmaps/--no-heatmaps", help="Write a heatmap over each image.")] = True,
    maps: Annotated[bool, typer.Option("--maps", help="Write the maps themselves too, as TIFF of floats.")] = False,
    runner: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME",
            show_default="none",
            help="Score on Apache Beam: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner, ... MODEL is then what `anogan "
            "export` wrote, images are patterns of files ('parts/**'), and scores are sharded CSV, without heatmaps.",
        ),
    ] = None,
    runner_options: Annotated[
        str, typer.Option(metavar="'--A=B ...'", show_default=False, help="Options of the runner, in one pair of quotes.")
    ] = "",
    resume: Resume = False,
    overwrite: Overwrite = False,
):
    """Score images: a CSV with score, p-value and label, and a heatmap over each image."""
    with _errors():
        if runner:
            local = {"--normal-class": normal_class, "--root": root, "--maps": maps, "--resume": resume}
            if given := [name for name, value in local.items() if value]:
                raise ValueError(f"{', '.join(given)}: not together with --runner.")
            options = {"runner": runner, "options": shlex.split(runner_options), "strict": strict, "overwrite": overwrite}
            _score_on_beam(model, images, tfds, data_dir, split.value, out, options)
            return
        if far := [place for place in (model, out, *(images or ())) if isinstance(place, str)]:
            raise ValueError(f"{far[0]} isn't on this machine: only a runner can read and write there (--runner).")
        _check_folder(out, overwrite or resume)
        with _loading():
            from anogan_tf.scoring import rows_to_score, score_files
        detector = _load_calibrated(model)
        source = _source(images, tfds, data_dir, normal_class, root)
        rows = rows_to_score(source, split.value)
        if left_out := len(source.entries) - len(rows):
            console.print(
                f"Left out {left_out} images that are not on the side {split.value!r} of the split (--split all scores them)."
            )
        options = {"heatmaps": heatmaps, "maps": maps, "strict": strict, "progress": _progress}
        record = {"model": hashlib.sha256(model.read_bytes()).hexdigest()}
        scored = score_files(detector, source, out, rows=rows, resume=resume, record=record, **options)
        if scored.scored:
            rate = detector.calibration.false_positive_rate
            console.print(
                f"{scored.anomalous} of {scored.scored} images are anomalous (p <= {rate:g}). Wrote {out / 'scores.csv'}."
            )
            if detector.settings.mode == "search":
                console.print(
                    f"{scored.unfinished} searches were still improving when their {detector.settings.steps} steps were over."
                )
        else:
            console.print("[red]No image could be scored.[/red]")
        _end_with_skipped(scored.skipped)


def _score_on_beam(model, images, tfds, data_dir, split, out, options):
    """What `anogan score --runner` does; `options` are those of `score_on_beam`."""
    if bool(images) == bool(tfds):
        raise ValueError("Name images by patterns of files, or a set with --tfds; one of the two.")
    with _loading():
        from anogan_tf import beam
        from anogan_tf.data.tfds_sets import open_set, splits_of
    source: Any
    if tfds:
        builder = open_set(tfds, data_dir)
        source = beam.ReadTfds(builder, splits_of(builder, split))
    else:
        source = beam.ReadPatterns(place / "**" if isinstance(place, Path) and place.is_dir() else place for place in images)
    counts = beam.score_on_beam(model, source, out, **options)
    if counts.scored is not None:
        console.print(f"{counts.anomalous} of {counts.scored} images are anomalous. Wrote {out}/scores-*.csv.", highlight=False)
        if counts.skipped:
            console.print(f"[yellow]Skipped {counts.skipped} of the images: see {out}/skipped-*.csv.[/yellow]", highlight=False)
            raise typer.Exit(SOME_SKIPPED)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model file that `anogan train` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for report.html and metrics.json.")],
    images: Images = None,
    tfds: Tfds = None,
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
    split: Annotated[SplitSide, typer.Option(help="Which side to evaluate, of a set that is split.")] = SplitSide.test,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Draw defects on normal images that were not trained on, and evaluate on these.")
    ] = False,
    title: Annotated[Optional[str], typer.Option(show_default="the model's name", help="Of the report.")] = None,
    strict: Strict = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawn defects and of samples.")] = 0,
    overwrite: Overwrite = False,
):
    """Measure a model on labelled images, or on normal ones with defects drawn on them: numbers, curves, pictures in one page."""
    with _errors():
        _check_folder(out, overwrite)
        with _loading():
            from anogan_tf.evaluation import synthetic_rows
            from anogan_tf.report import write_report
            from anogan_tf.scoring import rows_to_score
            from anogan_tf.synthetic import SyntheticSource
            from anogan_tf.workflows import names_used
        detector = _load_calibrated(model)
        source, options = _source(images, tfds, data_dir, normal_class, root), {}
        if synthetic:
            options["probed"] = source
            source = SyntheticSource(source, synthetic_rows(source, model, split.value), seed)
        rows = range(len(source.entries)) if synthetic else rows_to_score(source, split.value)
        used = names_used(model)
        if used is None:
            console.print(f"It isn't known what {model} was trained on; make sure that it was none of these images.")
        options |= {"used": used, "seed": seed, "strict": strict, "progress": _progress}
        numbers, evaluation = write_report(detector, source, out, title=title or model.stem, rows=rows, **options)
        shown = {name: f"{value['value']} ({value['low']} to {value['high']})" for name, value in numbers["image"].items()}
        shown |= {f"pixel_{name}": value for name, value in (numbers["pixel"] or {}).items()}
        _print_numbers(shown)
        console.print(f"Wrote {out / 'report.html'} and metrics.json.")
        _end_with_skipped(evaluation.skipped)


@app.command()
def prepare(
    images: Annotated[list[Path], typer.Argument(help="Folders, files or CSV tables of images.")],
    name: Annotated[str, typer.Option(help="NAME or NAME/CONFIG of the set.")],
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
):
    """Write images as a set of tensorflow-datasets, labels and masks included, for --tfds NAME."""
    with _errors():
        with _loading():
            from anogan_tf.data import FileSource
            from anogan_tf.data.tfds_sets import prepare_set
        with _held_back_stderr():
            folder = prepare_set(FileSource.of(images, normal_class, root), name, data_dir)
        console.print(f"Wrote {folder}: `anogan train --tfds {name}{f' --data-dir {data_dir}' if data_dir else ''} ...`.")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model file that `anogan train` wrote.")],
    base: Annotated[Path, typer.Argument(help="The folder of versions that TensorFlow Serving watches: BASE/1, BASE/2, ...")],
    threshold: Annotated[
        Optional[float], typer.Option(show_default="the calibrated one", help="Scores above it are anomalous.")
    ] = None,
    warm_up: Annotated[
        bool, typer.Option("--warm-up/--no-warm-up", help="Requests by which the server warms up before it answers.")
    ] = True,
):
    """Write a SavedModel, search included, that TensorFlow Serving runs: the next version below BASE."""
    with _errors():
        if base.exists() and not base.is_dir():
            raise ValueError(f"{base} is a file; name a folder.")
        with _loading():
            from anogan_tf.detector import AnoGAN
        detector = AnoGAN.load(model)
        if detector.threshold is None and threshold is None:
            raise ValueError(
                f"{model} has no threshold: give one with --threshold, or call calibrate() in Python and save it again."
            )
        with _held_back_stderr():
            version = detector.export(base, threshold, **_given(warm_up=None if warm_up else ()))
        console.print(f"Wrote {version}. Point TensorFlow Serving's model_base_path at {base.resolve()}.", highlight=False)


@app.command(name="app")
def serve_page(
    model: Annotated[Path, typer.Argument(help="A model file that `anogan train` wrote.")],
    examples: Annotated[
        Optional[Path], typer.Option(show_default="none", help="A folder of pictures to choose from; a dozen of them are shown.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to answer on; 0.0.0.0 lets other machines ask.")] = "127.0.0.1",
    port: Annotated[
        Optional[int], typer.Option(min=1, max=65535, show_default="the first free one from 7860 on", help="The port.")
    ] = None,
):
    """Try a model in the browser: drop a picture, see its score, where it is anomalous, and how the search went."""
    with _errors():
        with _loading():
            from anogan_tf.app import run_app
            from anogan_tf.data import list_images
        detector = _load_calibrated(model)
        paths = [] if examples is None else list(dict.fromkeys(entry.path for entry in list_images(examples)))
        run_app(detector, model.stem, paths, host=host, port=port)


@bench.command()
def speed(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for speed.md, speed.json and loss_curves.png.")] = Path(
        "anogan-bench"
    ),
    epochs: Epochs = None,
):
    """Time the search, and what leads to the same loss in fewer steps, on networks trained for it. Takes half an hour or more."""
    with _errors():
        with _loading():
            from anogan_tf.speed import run_speed
        report = run_speed(out, progress=_progress, **_given(epochs=epochs))
        _print_numbers(report["ratios"])
        console.print(f"Wrote {out / 'speed.md'}, speed.json and loss_curves.png.")


BenchData = Annotated[Path, typer.Option("--data", help="The set as it is published: a folder or file.")]
BenchOut = Annotated[Path, typer.Option("-o", "--out", help="Folder for rows, tables and trained networks.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")]
Classes = Annotated[
    Any, typer.Option(parser=_parse_names, metavar="A,B", show_default="all", help="Which classes are normal in turn.")
]
Methods = Annotated[
    Any,
    typer.Option(
        parser=_parse_names,
        metavar="A,B",
        show_default="pca,knn,knn_pixels,svm,pca_complexity,knn_complexity,p_d,encoder,refine,complexity,paper,gan_r,acae",
        help="What is compared; also typicality, surprise, neighbours, wgan-gp, hinge, and the sweeps lambda and gamma.",
    ),
]
Mistakes = Annotated[
    str, typer.Option(metavar="METHOD", help="Measure nothing; draw the worst mistakes of this method over all classes.")
]


def _add_benchmark(name, description):
    @bench.command(name, help=description)
    def run(
        path: BenchData,
        out: BenchOut = Path("anogan-bench"),
        seeds: Seeds = 1,
        classes: Classes = "",
        methods: Methods = "",
        epochs: Annotated[
            Optional[int], typer.Option(show_default="the benchmark's", min=1, help="Passes over the training images.")
        ] = None,
        mistakes: Mistakes = "",
    ):
        with _errors():
            with _loading():
                from anogan_tf.benchmark import draw_mistakes, run_benchmark
            options = {"classes": classes, "progress": _progress, **_given(epochs=epochs)}
            if mistakes:
                for picture in draw_mistakes(name, path, out, mistakes, **options):
                    console.print(f"Wrote {picture}.")
                return
            run_benchmark(name, path, out, seeds=seeds, **options, **({"methods": methods} if methods else {}))
            console.print(f"Wrote {out / name}.md and {name}.jsonl; trained networks are in {out / 'models'}.")


@bench.command()
def tiles(
    path: BenchData,
    out: BenchOut = Path("anogan-bench"),
    seeds: Seeds = 1,
    defects: Annotated[
        Any, typer.Option("--classes", parser=_parse_names, metavar="A,B", show_default="all", help="Which kinds of defects.")
    ] = "",
    methods: Annotated[
        Any,
        typer.Option(
            parser=_parse_names,
            metavar="A,B",
            show_default="pca,pca_complexity,encoder,refine,complexity",
            help="What is compared.",
        ),
    ] = "",
    epochs: Annotated[Optional[int], typer.Option(show_default="20", min=1, help="Passes over the training patches.")] = None,
    mistakes: Mistakes = "",
):
    """Magnetic tiles, by kind of defect: pixels and images."""
    with _errors():
        with _loading():
            from anogan_tf.tile_benchmark import draw_mistakes, run_tiles
        if mistakes:
            for picture in draw_mistakes(path, out, mistakes, progress=_progress, **_given(epochs=epochs)):
                console.print(f"Wrote {picture}.")
            return
        options = {**({"methods": methods} if methods else {}), **_given(epochs=epochs)}
        run_tiles(path, out, seeds=seeds, defects=defects, progress=_progress, **options)
        console.print(f"Wrote {out / 'tiles.md'} and tiles.jsonl; trained networks are in {out / 'models'}.")


_add_benchmark("mnist", "MNIST, one digit against nine, from its IDX files.")
_add_benchmark("fashion", "Fashion-MNIST, one class against nine, from its IDX files.")
_add_benchmark("pneumonia", "PneumoniaMNIST, normal against pneumonia, from its npz file.")


@contextlib.contextmanager
def _errors():
    """What a user can mend is one line on stderr and exit status 1; anything else is a traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        console.print(f"[red]Error:[/red] {_plain(error)}", highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Interrupted; files written before are whole.")
        raise typer.Exit(130) from None


def _plain(error):
    from rich.markup import escape

    if isinstance(error, OSError) and error.strerror:
        return escape(": ".join(str(part) for part in (error.filename, error.strerror) if part))
    return escape(str(error))


@contextlib.contextmanager
def _loading():
    """Around the imports that load TensorFlow: seconds of waiting, and greetings on stderr that no setting keeps quiet."""
    console.print("Loading TensorFlow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _held_back_stderr():
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):  # whose kernels else add up in whatever order they finish
            tf.config.experimental.enable_op_determinism()
        tf.config.list_logical_devices()  # it greets once more when it looks for devices
        tf.get_logger().setLevel("ERROR")  # each detector of a benchmark is traced anew, which it would warn of
        yield


@contextlib.contextmanager
def _held_back_stderr():
    """Keep what is written to stderr, by C++ too, and show it only if something fails."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def _progress(description, total):
    """A bar with the time left; gives `advance()`."""
    from rich import progress

    columns = (progress.TextColumn("{task.description:<12}"), progress.BarColumn(), progress.TaskProgressColumn())
    with progress.Progress(*columns, progress.TimeElapsedColumn(), progress.TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count=1: bar.advance(task, count)


def _given(**options):
    """The options the user gave; the others keep the library's defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _check_folder(folder, overwrite):
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder with -o.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} exists and isn't empty; choose another folder with -o, or pass --overwrite.")


def _is_finished(model):
    """Whether a training run came to its end: its state has its last name then."""
    return model.exists() and not model.with_suffix(".train.partial").exists()


def _check_model_name(model, overwrite):
    if model.suffix != ".keras":
        raise ValueError(f"{model}: a model file's name must end in .keras.")
    for path in (model, model.with_suffix(".train")):
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists; choose another name with -o, or pass --overwrite.")


def _print_numbers(numbers):
    from rich.table import Table

    table = Table("measure", "value")
    for name, value in numbers.items():
        table.add_row(name, str(value))
    Console().print(table)


def _end_with_skipped(skipped):
    if skipped:
        console.print(f"[yellow]Skipped {len(skipped)} of the images:[/yellow]")
        for picture in skipped:
            console.print(f"  {picture.name}: {picture.reason}", highlight=False, markup=False)
        raise typer.Exit(SOME_SKIPPED)

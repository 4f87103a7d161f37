"""`anogan score`: images to a table of scores and heatmaps, here or on a Beam runner."""

import hashlib
import shlex
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from anogan_tf.cli.console import (
    SOME_SKIPPED,
    check_folder,
    console,
    end_with_skipped,
    errors,
    load_calibrated,
    loading,
    open_source,
    progress,
)
from anogan_tf.cli.options import DataDir, NormalClass, Overwrite, Resume, Root, Side, Strict, Tfds, parse_place


def score(
    model: Annotated[
        Path,
        typer.Argument(parser=parse_place, metavar="MODEL", help="A model file that `anogan train` wrote; or see --runner."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", parser=parse_place, metavar="FOLDER", help="Folder for scores.csv and heatmaps.")
    ],
    images: Annotated[
        Optional[list[Path]],
        typer.Argument(
            parser=parse_place,
            metavar="[IMAGES]...",
            show_default=False,
            help="Folders, files (PNG, JPEG, TIFF, DICOM, NIfTI, .npy, .npz, IDX, ...) or CSV tables.",
        ),
    ] = None,
    tfds: Tfds = None,
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
    split: Annotated[Side, typer.Option(help="Which side to score, of a set that is split.")] = "test",
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
    with errors():
        if runner:
            local = {"--normal-class": normal_class, "--root": root, "--maps": maps, "--resume": resume}
            if given := [name for name, value in local.items() if value]:
                raise ValueError(f"{', '.join(given)}: not together with --runner.")
            options = {"runner": runner, "options": shlex.split(runner_options), "strict": strict, "overwrite": overwrite}
            _score_on_beam(model, images, tfds, data_dir, split, out, options)
            return
        if far := [place for place in (model, out, *(images or ())) if isinstance(place, str)]:
            raise ValueError(f"{far[0]} isn't on this machine: only a runner can read and write there (--runner).")
        check_folder(out, overwrite or resume)
        with loading():
            from anogan_tf.data.sources import rows_to_score
            from anogan_tf.workflows.score import score_files
        detector = load_calibrated(model)
        source = open_source(images, tfds, data_dir, normal_class, root)
        rows = rows_to_score(source, split)
        if left_out := len(source.entries) - len(rows):
            console.print(
                f"Left out {left_out} images that are not on the side {split!r} of the split (--split all scores them)."
            )
        options = {"heatmaps": heatmaps, "maps": maps, "strict": strict, "progress": progress}
        record = {"model": hashlib.sha256(model.read_bytes()).hexdigest()}
        scored = score_files(detector, source, out, rows=rows, resume=resume, record=record, **options)
        if scored.scored:
            rate = detector.calibration.false_positive_rate
            console.print(
                f"{scored.anomalous} of {scored.scored} images are anomalous (p <= {rate:g}). Wrote {out / 'scores.csv'}."
            )
            if detector.search_settings.mode == "search":
                steps = detector.search_settings.steps
                console.print(f"{scored.unfinished} searches were still improving when their {steps} steps were over.")
        else:
            console.print("[red]No image could be scored.[/red]")
        end_with_skipped(scored.skipped)


def _score_on_beam(model, images, tfds, data_dir, split, out, options):
    """What `anogan score --runner` does; `options` are those of `score_on_beam`."""
    if bool(images) == bool(tfds):
        raise ValueError("Name images by patterns of files, or a set with --tfds; one of the two.")
    with loading():
        from anogan_tf.data.tfds_sets import open_set, splits_of
        from anogan_tf.workflows import beam
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

"""`anogan evaluate`: how good a model is on labelled images, as one page."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from anogan_tf.cli.console import (
    check_folder,
    console,
    end_with_skipped,
    errors,
    load_calibrated,
    loading,
    open_source,
    print_numbers,
    progress,
)
from anogan_tf.cli.options import DataDir, Images, Model, NormalClass, Overwrite, Root, Side, Strict, Tfds


def evaluate(
    model: Model,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for report.html and metrics.json.")],
    images: Images = None,
    tfds: Tfds = None,
    data_dir: DataDir = None,
    normal_class: NormalClass = None,
    root: Root = None,
    split: Annotated[Side, typer.Option(help="Which side to evaluate, of a set that is split.")] = "test",
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Draw defects on normal images that were not trained on, and evaluate on these.")
    ] = False,
    title: Annotated[Optional[str], typer.Option(show_default="the model's name", help="Of the report.")] = None,
    strict: Strict = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawn defects and of samples.")] = 0,
    overwrite: Overwrite = False,
):
    """Measure a model on labelled images, or on normal ones with defects drawn on them: numbers, curves, pictures in one page."""
    with errors():
        check_folder(out, overwrite)
        with loading():
            from anogan_tf.data.sources import rows_to_score
            from anogan_tf.data.synthetic import SyntheticSource
            from anogan_tf.evaluation.evaluate import synthetic_rows
            from anogan_tf.evaluation.report import write_report
            from anogan_tf.workflows.splits import load_training_names
        detector = load_calibrated(model)
        source, options = open_source(images, tfds, data_dir, normal_class, root), {}
        used = load_training_names(model)
        if synthetic:
            options["baseline_source"] = source
            source = SyntheticSource(source, synthetic_rows(source, used[0] if used else (), split), seed)
        rows = range(len(source.entries)) if synthetic else rows_to_score(source, split)
        if used is None:
            console.print(f"It isn't known what {model} was trained on; make sure that it was none of these images.")
        options |= {"used": used, "seed": seed, "strict": strict, "progress": progress}
        numbers, evaluation = write_report(detector, source, out, title=title or model.stem, rows=rows, **options)
        shown = {name: f"{value['value']} ({value['low']} to {value['high']})" for name, value in numbers["image"].items()}
        shown |= {f"pixel_{name}": value for name, value in (numbers["pixel"] or {}).items()}
        print_numbers(shown)
        console.print(f"Wrote {out / 'report.html'} and metrics.json.")
        end_with_skipped(evaluation.skipped)

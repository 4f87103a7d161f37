"""`python -m benchmarks ...`, in a clone: what is measured, a command for each set."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from anogan_tf.cli.console import console, errors, given, loading, print_numbers, progress
from anogan_tf.cli.options import parse_names

app = typer.Typer(help="Measure.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def speed(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for speed.md, speed.json and loss_curves.png.")] = Path(
        "anogan-bench"
    ),
    epochs: Annotated[Optional[int], typer.Option(show_default="50", min=1, help="Passes over the training images.")] = None,
):
    """Time the search, and what leads to the same loss in fewer steps, on networks trained for it. Takes half an hour or more."""
    with errors():
        with loading():
            from benchmarks.speed import run_speed
        report = run_speed(out, progress=progress, **given(epochs=epochs))
        print_numbers(report["ratios"])
        console.print(f"Wrote {out / 'speed.md'}, speed.json and loss_curves.png.")


BenchData = Annotated[Path, typer.Option("--data", help="The set as it is published: a folder or file.")]
BenchOut = Annotated[Path, typer.Option("-o", "--out", help="Folder for rows, tables and trained networks.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from 0.")]
Classes = Annotated[
    Any, typer.Option(parser=parse_names, metavar="A,B", show_default="all", help="Which classes are normal in turn.")
]
Methods = Annotated[
    Any,
    typer.Option(
        parser=parse_names,
        metavar="A,B",
        show_default="pca,knn,knn_pixels,svm,pca_complexity,knn_complexity,p_d,encoder,refine,complexity,paper,gan_r,acae",
        help="What is compared; also complexity_deviation, pretext, neighbours, wgan-gp, hinge, and the sweeps lambda and gamma.",
    ),
]
Mistakes = Annotated[
    str, typer.Option(metavar="METHOD", help="Measure nothing; draw the worst mistakes of this method over all classes.")
]


def _add_benchmark(name, description):
    @app.command(name, help=description)
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
        with errors():
            with loading():
                from benchmarks.one_class import draw_mistakes, run_benchmark
            options = {"classes": classes, "progress": progress, **given(epochs=epochs)}
            if mistakes:
                for picture in draw_mistakes(name, path, out, mistakes, **options):
                    console.print(f"Wrote {picture}.")
                return
            run_benchmark(name, path, out, seeds=seeds, **options, **({"methods": methods} if methods else {}))
            console.print(f"Wrote {out / name}.md and {name}.jsonl; trained networks are in {out / 'models'}.")


@app.command()
def tiles(
    path: BenchData,
    out: BenchOut = Path("anogan-bench"),
    seeds: Seeds = 1,
    defects: Annotated[
        Any, typer.Option("--classes", parser=parse_names, metavar="A,B", show_default="all", help="Which kinds of defects.")
    ] = "",
    methods: Annotated[
        Any,
        typer.Option(
            parser=parse_names,
            metavar="A,B",
            show_default="pca,pca_complexity,encoder,refine,complexity,comparator",
            help="What is compared.",
        ),
    ] = "",
    epochs: Annotated[Optional[int], typer.Option(show_default="20", min=1, help="Passes over the training patches.")] = None,
    mistakes: Mistakes = "",
):
    """Magnetic tiles, by kind of defect: pixels and images."""
    with errors():
        with loading():
            from benchmarks.tiles import draw_mistakes, run_tiles
        if mistakes:
            for picture in draw_mistakes(path, out, mistakes, progress=progress, **given(epochs=epochs)):
                console.print(f"Wrote {picture}.")
            return
        options = {**({"methods": methods} if methods else {}), **given(epochs=epochs)}
        run_tiles(path, out, seeds=seeds, defects=defects, progress=progress, **options)
        console.print(f"Wrote {out / 'tiles.md'} and tiles.jsonl; trained networks are in {out / 'models'}.")


_add_benchmark("mnist", "MNIST, one digit against nine, from its IDX files.")
_add_benchmark("fashion", "Fashion-MNIST, one class against nine, from its IDX files.")
_add_benchmark("pneumonia", "PneumoniaMNIST, normal against pneumonia, from its npz file.")


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")

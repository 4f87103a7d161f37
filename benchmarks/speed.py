"""How fast the search is, against what others do and against what the machine can do: `python -m benchmarks speed`.

All of it is measured in one process on the same networks, so that ratios hold where seconds don't.
"""

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from anogan_tf.data.embedded import load_embedded
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.trajectory import SearchTrajectory
from anogan_tf.evaluation import metrics, plots
from anogan_tf.networks import architectures, losses
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import replacing
from anogan_tf.runtime.progress import no_progress
from anogan_tf.runtime.provenance import machine
from anogan_tf.search.settings import PAPER
from anogan_tf.training.gan import GAN
from anogan_tf.training.trainer import TRAINING_BATCH
from anogan_tf.workflows.parts import EPOCHS, train_networks
from anogan_tf.workflows.splits import split_normals
from benchmarks.tables import markdown_table

layers = keras.layers

STEPS = PAPER["steps"]
REPEATS = 3
PASSES, PASSED = 4, 1600  # over how many images when training is timed
LADDER = (5, 10, 15, 20, 25, 30, 40, 50)  # steps tried until a refinement is as good as the long search
CURVE = (1, 2, 3, 5, 8, 12, 18, 25, 50, 100, 250, STEPS)
COLUMNS = ("name", "image_size", "batch", "steps", "ms_per_image", "spread", "loss", "gflops", "share_of_ceiling", "peak_mb")
# The search as timed: no image stops early, and only the best z is reported as others report the last one.
TIMED = {**PAPER, "keep": "best", "steps": 50}


class Size(NamedTuple):
    """One size of networks that is measured.

    Attributes:
        side: of the images in pixels.
        preset: of the networks.
        epochs: of training, as a share of those at the first size; 0 where the networks only do their arithmetic.
        counts: how many images are searched at once.
        searched: how many normals, and as many anomalies, get the long search.
    """

    side: int
    preset: str
    epochs: float
    counts: tuple
    searched: int


SIZES = (
    Size(28, "light", 1.0, (1, 8, 64, 256), 300),
    Size(32, "light", 0.0, (256,), 0),
    Size(64, "paper", 0.2, (1, 8, 64), 64),
)


class _Subject(NamedTuple):
    """Networks of one size, and pixels to search for."""

    size: Size
    gan: GAN
    encoder: keras.Model
    test: np.ndarray
    labels: np.ndarray


def run_speed(out, *, epochs=EPOCHS, sizes=SIZES, progress=no_progress):
    """Measure, and write `speed.md`, `speed.json` and `loss_curves.png`.

    Args:
        out: the folder to write to.
        epochs: of training at the first size.
        sizes: what is measured.
        progress: see `runtime.progress`.

    Returns:
        What `speed.json` holds: a dict of `machine`, `start`, `rows`, `ratios`, `modes` and `training`.
    """
    out = Path(out)
    report = {"machine": _machine(), "start": _start_times(), "rows": [], "ratios": {}, "modes": [], "training": {}}
    for size in sizes:
        subject = _train(size, epochs, progress)
        with progress(f"{size.side}x{size.side}", 4) as on_progress:
            rows = _arithmetic(subject, report)
            on_progress()
            if size.epochs:
                _others(subject, rows, report)
                on_progress()
                _whole_searches(subject, rows, report)
                on_progress()
                _refilling(subject, report)
                on_progress()
            if size == sizes[0]:
                report["training"] = _training(subject)
                _draw_curves(subject, out / "loss_curves.png")
        report["rows"] += rows.values()
        write_report(out, report)
    return report


def _train(size, epochs, progress):
    images, shape = load_embedded(), (size.side, size.side, 1)
    trained = images.train[split_normals(len(images.train)).trained]
    test, labels = _balanced(images.test, images.test_label, size.searched or 8)
    if not size.epochs:
        gan = GAN(shape, preset=size.preset)
        return _Subject(size, gan, architectures.build_encoder(shape, gan.latent_dim, preset=size.preset), test, labels)
    epochs = max(1, round(size.epochs * epochs))
    with tempfile.TemporaryDirectory() as state:
        gan, encoder = train_networks(trained, state, shape, preset=size.preset, epochs=epochs, progress=progress)
    return _Subject(size, gan, encoder, test, labels)


def _balanced(pixels, labels, count):
    """So many normals and so many anomalies, all of them where there are fewer; anomalies of every class."""
    rows = np.concatenate([np.random.default_rng(0).permutation(np.flatnonzero(labels == label))[:count] for label in (0, 1)])
    return pixels[rows], labels[rows]


def _arithmetic(subject, report):
    """Steps of the search by number of images, block and precision, and how near they are to the machine's ceiling."""
    size = subject.size
    rows: dict[Any, dict] = {}
    for count in size.counts:
        for block in (16, None):
            rows[count, block] = _timed(subject, report, f"search, {_block_name(block)}", count, block=block)
    full = size.counts[-1]
    rows["bfloat16"] = _timed(subject, report, "search, no blocks, bfloat16", full, block=None, precision="bfloat16")
    rows["xla"] = _timed(subject, report, "search, blocks of 16, XLA", full, block=16, jit_compile=True)
    ratios = {
        f"blocks of 16 against none, {count} images": rows[count, 16]["ms_per_image"] / rows[count, None]["ms_per_image"]
        for count in size.counts
    }
    ratios["float32 against bfloat16"] = rows[full, None]["ms_per_image"] / rows["bfloat16"]["ms_per_image"]
    ratios["XLA against none"] = rows["xla"]["ms_per_image"] / rows[full, 16]["ms_per_image"]
    _add_ratios(report, size, ratios)
    return rows


def _timed(subject, report, name, count, jit_compile=False, **settings):
    """A row: the search of `count` images, timed."""
    detector = AnoGAN.from_gan(subject.gan, jit_compile=jit_compile, **{**TIMED, **settings})
    images = detector.preprocessing(np.resize(subject.test, (count, *subject.test.shape[1:])))
    run = _runner(detector)
    result, seconds, spread, peak = _measure(lambda: run(images))
    work = count * TIMED["steps"] * flops_per_step(detector) / 1e9
    ceiling = report["machine"]["ceiling_gflops"][detector.execution.precision]
    loss = float(np.median(result.loss))
    return _row(name, subject.size, count, TIMED["steps"], seconds / count, spread, loss, work / seconds, ceiling, peak)


def _runner(detector, refill=True):
    """The detector's search of prepared images as one `tf.function`."""
    searcher = detector._make_scorer().searcher
    images = tf.TensorSpec((None, *detector.image_shape), tf.float32)
    return tf.function(lambda images: searcher(images, refill=refill), input_signature=[images], autograph=False)


def _row(name, size, batch, steps, seconds, spread, loss, gflops=None, ceiling=None, peak=None):
    values = (
        name, size.side, batch, steps, round(1e3 * seconds, 3), spread and round(spread, 3), loss and round(loss, 2),
        gflops and round(gflops, 1), gflops and ceiling and round(gflops / ceiling, 3), peak and round(peak),
    )  # fmt: skip
    return dict(zip(COLUMNS, values))


def _others(subject, rows, report):
    """The search as public implementations do it, on the same networks: one image at a time."""
    for name, loop in (("Keras fit on one image", _keras_loop), ("GradientTape loop, one image", _tape_loop)):
        seconds, found = [], []
        for pixels in subject.test[:REPEATS]:
            images = subject.gan.preprocessing(pixels[np.newaxis])
            started = time.perf_counter()
            found.append(loop(subject, images))
            seconds.append(time.perf_counter() - started)
        spread = (max(seconds) - min(seconds)) / np.median(seconds)
        work = STEPS * flops_per_step(AnoGAN.from_gan(subject.gan)) / 1e9 / np.median(seconds)
        ceiling = report["machine"]["ceiling_gflops"]["float32"]
        rows[name] = _row(name, subject.size, 1, STEPS, np.median(seconds), spread, np.median(found), work, ceiling)
    ours = rows[subject.size.counts[-1], 16]["ms_per_image"] * STEPS / TIMED["steps"]
    ratio = rows["Keras fit on one image"]["ms_per_image"] / ours
    _add_ratios(report, subject.size, {f"Keras fit on one image against the search, {STEPS} steps both": ratio})


def _keras_loop(subject, images):
    """z as the weights of a dense layer over a constant, trained by `fit`; a new model for each image."""
    generator, extractor = subject.gan.ema_generator, architectures.feature_extractor(subject.gan.discriminator)
    were = generator.trainable, extractor.trainable
    generator.trainable = extractor.trainable = False
    constant = layers.Input((1,))
    z = layers.Dense(subject.gan.latent_dim, use_bias=False, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0))
    made = generator(z(constant), training=False)
    model = keras.Model(constant, [made, extractor(made, training=False)])
    # The rate is the search's own; each loss is the paper's sum.
    model.compile(
        keras.optimizers.Adam(PAPER["learning_rate"]),
        loss=[losses.residual_loss, losses.discrimination_loss],
        loss_weights=[1.0 - PAPER["weight"], PAPER["weight"]],
    )
    history = model.fit(tf.ones((1, 1)), [images, extractor(images, training=False)], epochs=STEPS, batch_size=1, verbose=0)
    generator.trainable, extractor.trainable = were
    return history.history["loss"][-1]


def _tape_loop(subject, images):
    """z as a variable, a compiled step, a Python loop."""
    generator, extractor = subject.gan.ema_generator, architectures.feature_extractor(subject.gan.discriminator)
    z, optimizer = tf.Variable(tf.random.normal((1, subject.gan.latent_dim))), keras.optimizers.Adam(PAPER["learning_rate"])
    optimizer.build([z])
    features = extractor(images, training=False)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            made = generator(z, training=False)
            residual = losses.residual_loss(images, made)
            discrimination = losses.discrimination_loss(features, extractor(made, training=False))
            loss = (1.0 - PAPER["weight"]) * residual + PAPER["weight"] * discrimination
        optimizer.apply([tape.gradient(loss, z)], [z])
        return loss

    for _ in range(STEPS):
        loss = step()
    return float(loss[0])


def _whole_searches(subject, rows, report):
    """Each way of searching on normals and anomalies to its end: time, loss, AUROC; and how few steps are as good as many."""
    size = subject.size
    target = _whole(subject, report, f"search as in the paper, {STEPS} steps", **{**PAPER, "keep": "best"})
    rows["paper"] = target.row
    rows["search"] = _whole(subject, report, "search", mode="search").row
    wanted = _medians(subject, target.scores)
    for steps in LADDER:
        refined = _whole(subject, report, f"refine, {steps} steps", steps=steps, tolerance=0.0)
        rows["refine", steps] = refined.row
        reached = _medians(subject, refined.scores) <= wanted
        if reached.all():
            break
    refined.row["name"] += f", as good as {STEPS} from a random start" if reached.all() else ""
    ways = {
        "refine": {},
        "refine, bfloat16": {"precision": "bfloat16"},
        "encoder": {"mode": "encoder"},
        "encoder, f-AnoGAN's score": {"mode": "encoder", "loss": "f-anogan"},
    }
    found = {name: _whole(subject, report, name, **settings) for name, settings in ways.items()}
    rows |= {name: whole.row for name, whole in found.items()}
    alone, against = rows["Keras fit on one image"]["ms_per_image"], "Keras fit on one image against"
    ratios = {f"{against} {name}": alone / rows[name]["ms_per_image"] for name in ("search", "refine", "encoder")}
    if reached.all():
        ratios[f"{against} refining to the loss of {STEPS} steps"] = alone / refined.row["ms_per_image"]
    _add_ratios(report, size, ratios)
    change = metrics.auroc_change(subject.labels, found["refine"].scores, found["refine, bfloat16"].scores)
    name = f"{size.side}x{size.side}: AUROC of refine, bfloat16 less float32 (95% interval)"
    report["ratios"][name] = [round(value, 4) for value in change]


def _medians(subject, scores):
    """Of the normals' scores, and of the anomalies'."""
    return np.array([np.median(scores[subject.labels == label]) for label in (0, 1)])


class _Whole(NamedTuple):
    row: dict
    scores: np.ndarray


def _whole(subject, report, name, **settings):
    """A row for a search of all the subject's images, timed once after a first batch; its AUROC goes to `modes`."""
    detector = AnoGAN.from_gan(subject.gan, subject.encoder, **settings)
    run, images = _runner(detector), detector.preprocessing(subject.test)
    run(images[:2])  # traced
    started = time.perf_counter()
    result = run(images)
    seconds = (time.perf_counter() - started) / len(subject.test)
    scores, labels = result.loss.numpy(), subject.labels
    auroc = {"auroc": round(metrics.auroc(labels, scores), 4)}
    medians = {kind: round(float(median), 3) for kind, median in zip(("normals", "anomalies"), _medians(subject, scores))}
    steps = round(float(np.mean(result.steps)), 1)
    report["modes"].append({"name": name, "image_size": subject.size.side, "steps": steps, **medians, **auroc})
    return _Whole(_row(name, subject.size, len(scores), steps, seconds, None, float(np.median(scores))), scores)


def _refilling(subject, report):
    """What swapping finished rows for waiting ones saves, with the scores of both."""
    detector = AnoGAN.from_gan(subject.gan)
    images, runs = detector.preprocessing(subject.test), {}
    for refill in (True, False):
        run = _runner(detector, refill)
        run(images[:2])
        started = time.perf_counter()
        result = run(images)
        runs[refill] = (result.loss.numpy(), time.perf_counter() - started)
    (scores, quick), (same, slow) = runs[True], runs[False]
    _add_ratios(report, subject.size, {"search without refilled rows against with them": slow / quick})
    report["ratios"][f"{subject.size.side}x{subject.size.side}: scores that refilling changes"] = int((scores != same).sum())


def _training(subject):
    """Images a second of `fit`, and of a bare compiled loop over the same step on the same images; in turns."""
    pixels = np.resize(load_embedded().train, (PASSED, 28, 28))
    gan = GAN(subject.gan.image_shape, preset=subject.size.preset)
    gan.compile()
    images = gan.preprocessing(pixels)
    step = tf.function(lambda rows: gan.train_on_images(tf.gather(images, rows)), autograph=False)
    order = tf.reshape(tf.range(len(pixels)), (-1, TRAINING_BATCH))

    def bare():
        for _ in range(PASSES):
            for rows in order:
                logs = step(rows)
        return float(logs["generator_loss"])

    def fit():
        gan.fit(pixels, epochs=PASSES, verbose=0)

    seconds: dict[Any, list[float]] = {bare: [], fit: []}
    for run in (bare, fit):
        run()
    for _ in range(REPEATS + 2):
        for run, taken in seconds.items():
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    ratios = np.array(seconds[fit]) / np.array(seconds[bare])
    return {
        "images_per_second_fit": round(PASSES * len(pixels) / np.median(seconds[fit])),
        "images_per_second_bare_loop": round(PASSES * len(pixels) / np.median(seconds[bare])),
        "fit_takes_times_as_long": round(float(np.median(ratios)), 3),
        "of": [round(float(ratio), 3) for ratio in ratios],
    }


def _draw_curves(subject, path):
    """The median loss against steps, from a random start as in the paper and from the encoder's."""
    curves, paper = {}, {**PAPER, "keep": "best"}
    ways = {
        "random start": (paper, CURVE),
        "encoder's start": ({"mode": "refine", "tolerance": 0.0}, [steps for steps in CURVE if steps <= LADDER[-1]]),
    }
    for start, (settings, numbers) in ways.items():
        trajectory = SearchTrajectory(AnoGAN.from_gan(subject.gan, subject.encoder, **settings, block=None), numbers)
        losses = trajectory(subject.gan.preprocessing(subject.test))["loss"]
        medians = [_medians(subject, each) for each in losses]
        for kind, values in zip(("normal", "anomaly"), zip(*medians)):
            curves[f"{kind}, {start}"] = (numbers, values)
    plots.save_figure(plots.loss_curves(curves), path)


def flops_per_step(detector):
    """Floating-point operations of one step for one image: forward, and backward to z alone, as much again."""
    searched = detector._make_scorer().searcher.networks
    return 2 * sum(_flops(network) for network in (searched.generator, searched.feature_network))


def _flops(network):
    """Multiplications and additions of a forward pass of one image; convolutions and dense layers only."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose)):
            # A transposed convolution uses its kernel at each pixel of its input, the other one at each of its output.
            places = layer.input.shape if isinstance(layer, layers.Conv2DTranspose) else layer.output.shape
            total += 2 * places[1] * places[2] * np.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            total += 2 * np.prod(layer.kernel.shape)
    return int(total)


def _measure(run):
    """What the last of some runs gave, their median seconds, the spread as a share of that, and the peak of memory in MB."""
    run()
    _reset_peak()
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - started)
    return result, float(np.median(seconds)), (max(seconds) - min(seconds)) / float(np.median(seconds)), _peak_mb()


def _reset_peak():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts anew


def _peak_mb():
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _machine():
    return {**machine(), "ceiling_gflops": {dtype: round(_matmul_gflops(dtype)) for dtype in ("float32", "bfloat16")}}


def _matmul_gflops(dtype, side=4096):
    matrix = tf.cast(tf.random.normal((side, side)), dtype)
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)), autograph=False)
    best = min(_seconds(lambda: product().numpy()) for _ in range(REPEATS + 2))
    return 2 * side**3 / best / 1e9


def _seconds(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _start_times():
    """Seconds until a new process has imported the package, and until the command line has shown its help."""
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "import anogan_tf": [sys.executable, "-c", "import anogan_tf"],
        "anogan --help": [sys.executable, "-m", "anogan_tf", "--help"],
    }

    def seconds(command):
        return min(_seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(5))

    return {name: round(seconds(command), 3) for name, command in commands.items()}


def _block_name(block):
    return "no blocks" if block is None else f"blocks of {block}"


def _add_ratios(report, size, ratios):
    report["ratios"] |= {f"{size.side}x{size.side}: {name}": round(float(ratio), 3) for name, ratio in ratios.items()}


def write_report(out, report):
    """Write `speed.json` and `speed.md` to the folder `out`."""
    with replacing(out / "speed.json") as path:
        path.write_text(json.dumps(report, indent=1) + "\n")
    with replacing(out / "speed.md") as path:
        path.write_text("\n\n".join(_sections(report)) + "\n")


def _sections(report):
    machine = {**report["machine"], **{f"seconds, {name}": value for name, value in report["start"].items()}}
    yield "# Speed"
    yield "Written by `python -m benchmarks speed`; `../README.md` says what the rows are."
    yield markdown_table([{"what": name, "value": value} for name, value in machine.items()])
    yield "## Time"
    yield markdown_table(report["rows"])
    yield "## Ratios"
    yield markdown_table([{"ratio": name, "value": value} for name, value in report["ratios"].items()])
    yield "## Detection"
    yield markdown_table(report["modes"])
    yield "## Training"
    yield markdown_table([{"what": name, "value": value} for name, value in report["training"].items()])

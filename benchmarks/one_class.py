"""Detection on public sets by the protocols of published tables: `python -m benchmarks mnist`, `fashion`, `pneumonia`.

One row of JSON for each run, appended as it ends; what has its row already isn't run again.
"""

import datetime
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anogan_tf.data.disk import DiskArray
from anogan_tf.data.preprocessing import Preprocessing, to_pixels
from anogan_tf.data.sources import load_images
from anogan_tf.detection.complexity import ALIKE
from anogan_tf.detection.detector import AnoGAN
from anogan_tf.detection.memory_bank import MemoryBank
from anogan_tf.detection.terms import split_settings
from anogan_tf.evaluation import baselines, metrics, plots
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import locked, replacing
from anogan_tf.runtime.progress import no_progress
from anogan_tf.runtime.provenance import versions
from anogan_tf.search.settings import PAPER
from anogan_tf.training.comparator import STEPS
from anogan_tf.training.objectives import OBJECTIVES
from anogan_tf.workflows.parts import ENCODER_SHARE, remember_patches, train_comparator, train_networks
from anogan_tf.workflows.splits import split_normals
from benchmarks.autoencoder import train_autoencoder
from benchmarks.tables import markdown_table

CALIBRATED = 1000  # training images that complexity is learnt from
SAMPLE = 1000  # test images that a search of 500 steps scores, drawn from each class in proportion
BENCHMARK_EPOCHS, BENCHMARK_LATENT_DIM = 10, 16
COMPLEXITY_DEVIATION = 0.5
MISTAKES = 10  # of each kind that are drawn
DIGITS = tuple("0123456789")


class Benchmark(NamedTuple):
    """A set and its protocol: train on the training images of one class, score the whole test set, the others are anomalous.

    Attributes:
        title: of the table.
        classes: which are normal in turn.
        epochs: of the GAN.
        normalize: as for `Preprocessing`.
        published: `{who: AUROC x 100 of each class, and their mean}`; None where none was published.
    """

    title: str
    classes: tuple
    epochs: int = BENCHMARK_EPOCHS
    normalize: bool = False
    published: dict = {}


BENCHMARKS = {
    "mnist": Benchmark(
        "MNIST, one class against nine",
        DIGITS,
        published={
            "AnoGAN, as published by Ruff et al. 2018": (
                96.6, 99.2, 85.0, 88.7, 89.4, 88.3, 94.7, 93.5, 84.9, 92.4, 91.3,
            ),
        },
    ),
    "fashion": Benchmark(
        "Fashion-MNIST, one class against nine",
        DIGITS,
        published={
            "GEOM (Golan and El-Yaniv 2018)": (99.4, 97.6, 91.1, 89.9, 92.1, 93.4, 83.3, 98.9, 90.8, 99.2, 93.5),
            "ARNet": (*[None] * 10, 93.9),
            "Deep SAD without labels": (*[None] * 10, 89.2),
        },
    ),
    "pneumonia": Benchmark("PneumoniaMNIST, normal against pneumonia", ("0",), epochs=50, normalize=True),
}  # fmt: skip


class Task(NamedTuple):
    """One class of a set, as pixels.

    Attributes:
        train: `[N, h, w, c]`, all training images of the normal class.
        test: `[M, h, w, c]`.
        kinds: `[M]`, the class of each test image.
        labels: `[M]`, 0 where it is the normal one, else 1.
    """

    train: np.ndarray
    test: np.ndarray
    kinds: np.ndarray
    labels: np.ndarray


def read_set(path):
    """The `Task`s of a set of small images with labels and a split, as a function of the normal class."""
    images = load_images([path])
    if not all(entry.label and entry.split for entry in images.entries):
        raise ValueError(
            f"{path} holds images without a label or a split; the set's own files are needed, as they are published."
        )
    pixels = np.stack(images.pixels)
    kinds, splits = (np.array([getattr(entry, field) for entry in images.entries]) for field in ("label", "split"))

    def task(normal_class):
        train, test = (kinds == normal_class) & (splits == "train"), splits == "test"
        if not train.any():
            raise ValueError(f"{path} has no training images of the class {normal_class!r}; there are {sorted(set(kinds))}.")
        return Task(pixels[train], pixels[test], kinds[test], (kinds[test] != normal_class).astype(int))

    return task


class Run:
    """One class and seed of a benchmark: what its methods are handed.

    Attributes:
        task: `Task`.
        preprocessing: `Preprocessing` of the networks and of the baselines.
        training_seconds: what training the networks took that were asked for, now or when they were kept.
        waited: seconds of it that were spent now.
    """

    def __init__(self, task, models, *, seed, epochs, normalize):
        self.task, self._models, self._epochs = task, models, epochs
        self.preprocessing = Preprocessing(task.train.shape[1:], normalize=normalize)
        self._options = {"latent_dim": BENCHMARK_LATENT_DIM, "seed": seed, "preprocessing": self.preprocessing}
        self.training_seconds, self.waited = None, 0.0

    def detector(self, objective="dcgan", self_supervision=0.0):
        """An `AnoGAN` with an encoder, its GAN trained with that objective and weight of the second task.

        With a second task it sees nothing of `held_out`: of what it learnt by heart its pretext loss would be too low.
        """

        def train(pixels, shape):
            pixels = self._trained if self_supervision else pixels
            # As many steps of the generator, and of the encoder, for all.
            epochs = self._epochs * OBJECTIVES[objective].discriminator_steps
            options = {"epochs": epochs, "encoder_epochs": math.ceil(ENCODER_SHARE * self._epochs), "objective": objective}
            options |= {"self_supervision": self_supervision}
            with tempfile.TemporaryDirectory() as state:
                networks = train_networks(pixels, state, shape, **options, **self._options)
            return AnoGAN.from_gan(*networks, seed=self._options["seed"])

        return self._kept(f"{objective}-self{self_supervision:g}" if self_supervision else objective, train)

    @property
    def normals(self):
        """Pixels of some training images."""
        return self.task.train[np.random.default_rng(self._options["seed"]).permutation(len(self.task.train))[:CALIBRATED]]

    @property
    def held_out(self):
        """Pixels of the training images that `anogan train` would hold out."""
        return self.task.train[self._held_out]

    @property
    def memory(self):
        """A `MemoryBank` of the others."""
        return MemoryBank.of(self.preprocessing(self.preprocessing.check(self._trained)))

    def comparing(self):
        """A comparator and its patch memory, by name, as `anogan train --comparator` trains them, of the others."""
        with tempfile.TemporaryDirectory() as folder:
            pixels = DiskArray(self.preprocessing.image_shape, folder)
            pixels.append(to_pixels(self.preprocessing(self.preprocessing.check(self._trained))))
            seed, kept = self._options["seed"], Path(f"{self._models}-comparator.keras")
            if not kept.exists():
                started = time.perf_counter()
                given = {"normalized": self.preprocessing.normalize, "steps": STEPS, "seed": seed}
                train_comparator(pixels, folder, pixels.shape[1:], **given).save(kept)
                self.waited += time.perf_counter() - started
            comparator = keras.saving.load_model(kept, compile=False)
            return {"comparator": comparator, "patch_memory": remember_patches(comparator, pixels, seed=seed)}

    @property
    def _trained(self):
        return np.delete(self.task.train, self._held_out, axis=0)

    @property
    def _held_out(self):
        return split_normals(len(self.task.train), self._options["seed"]).held_out

    def autoencoder(self):
        """The `AnoGAN` of an aCAE."""

        def train(pixels, shape):
            return train_autoencoder(pixels, shape, epochs=self._epochs, **self._options)

        return self._kept("acae", train)

    def _kept(self, name, train):
        """The trained detector, from its file if it is there."""
        path = Path(f"{self._models}-{name}.keras")
        note = path.with_suffix(".json")
        if path.exists() and note.exists():
            self.training_seconds = json.loads(note.read_text())["training_seconds"]
            return AnoGAN.load(path)
        started = time.perf_counter()
        detector = train(self.task.train, self.preprocessing.image_shape)
        self.training_seconds = round(time.perf_counter() - started, 1)
        detector.save(path)
        with replacing(note) as temporary:
            temporary.write_text(json.dumps({"training_seconds": self.training_seconds}))
        self.waited += time.perf_counter() - started
        return detector


def sample_rows(kinds, count, seed=0):
    """Rows of a sample of so many test images, drawn from each class in proportion; the same for every method."""
    kinds, rows = np.asarray(kinds), []
    if len(kinds) <= count:
        return np.arange(len(kinds))
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        rows.append(np.random.default_rng(seed).permutation(members)[: round(count * len(members) / len(kinds))])
    return np.sort(np.concatenate(rows))


class Method(NamedTuple):
    """How a row comes about.

    Attributes:
        config: what is written down of it, and makes it another run where it changes.
        score: from a `Run` and rows of the test images to their scores.
        sampled: whether it scores only the sample.
        seeded: whether another seed makes another run.
        detector: from a `Run` to the `AnoGAN` that scores, where one does.
    """

    config: dict
    score: Callable
    sampled: bool = False
    seeded: bool = True
    detector: Callable | None = None


def _score_baselines(baseline, relative=False):
    """A method that fits a baseline to the training images, its scores relative to normal images as busy where asked."""

    def score(run, rows):
        groups = (run.task.train, run.task.test[rows], run.preprocessing)
        return baselines.by_complexity(baseline, *groups) if relative else baseline(*groups)

    on_pixels = baseline is baselines.nearest_pixels
    config = {"blur": baselines.BLUR} if on_pixels else {"components": baselines.COMPONENTS}
    return Method({**config, **({"folds": baselines.FOLDS, "alike": ALIKE} if relative else {})}, score, seeded=False)


def _search(*, sampled=False, objective="dcgan", self_supervision=0.0, remembers=False, compares=False, **settings):
    """A method that searches with the GAN of an objective, and of a weight of the second task.

    With a memory or without, with a comparator or without.
    """
    unseen = self_supervision or compares  # what was learned by heart says nothing of others
    if sampled:  # long searches, of which no row ends before another: all at once is faster
        settings["block"] = None

    def detector(run):
        parts = {"memory_bank": run.memory if remembers else None, **(run.comparing() if compares else {})}
        found = run.detector(objective, self_supervision).with_settings(**parts, **settings)
        if settings.get("score") == "complexity":
            found.calibrate(run.held_out if unseen else run.normals)
        return found

    def score(run, rows):
        return detector(run).predict(run.task.test[rows], verbose=0)["score"]

    search, chosen, _ = split_settings(settings)
    names = ("mode", "loss", "weight", "steps", "optimizer", "learning_rate", "candidates", "keep", "whiten")
    config = {name: getattr(search, name) for name in names}
    config |= {"sample": SAMPLE, "block": None} if sampled else {}
    config |= {"objective": objective} if objective != "dcgan" else {}
    config |= {"self_supervision": self_supervision, "pretext": chosen.pretext} if self_supervision else {}
    config |= {"neighbours": chosen.neighbours} if remembers else {}
    config |= {"comparator_steps": STEPS} if compares else {}
    config |= {"complexity_deviation": chosen.complexity_deviation} if chosen.complexity_deviation else {}
    if chosen.score != "loss":
        config |= {"score": chosen.score, "calibrated": "held out" if unseen else CALIBRATED, "alike": ALIKE}
    return Method(config, score, sampled, detector=detector)


def _judge(run, rows):
    return baselines.discriminator_score(run.detector(), run.task.test[rows])


def _copy(run, rows):
    return run.autoencoder().predict(run.task.test[rows], verbose=0)["score"]


SWEEPS = {
    "lambda": {
        f"lambda={weight:g}": _search(sampled=True, **{**PAPER, "weight": weight}) for weight in (0.0, 0.05, 0.2, 0.5, 1.0)
    },
    "gamma": {f"gamma={steps}": _search(sampled=True, **{**PAPER, "steps": steps}) for steps in (10, 50, 100, 200)},
}
BASELINES = {
    name: _score_baselines(baseline) for name, baseline in zip(("pca", "knn", "knn_pixels", "svm"), baselines.BASELINES.values())
}
_NAMES = ("pca_complexity", "knn_complexity")
RELATIVE = {name: _score_baselines(baseline, relative=True) for name, baseline in zip(_NAMES, baselines.BY_COMPLEXITY.values())}
# In the order of the tables.
METHODS = {
    **BASELINES,
    **RELATIVE,
    "p_d": Method({}, _judge),
    "encoder": _search(mode="encoder"),
    "refine": _search(mode="refine"),
    "complexity": _search(mode="encoder", score="complexity"),
    "complexity_deviation": _search(mode="encoder", score="complexity", complexity_deviation=COMPLEXITY_DEVIATION),
    "pretext": _search(self_supervision=0.5, mode="encoder", score="complexity"),
    "neighbours": _search(self_supervision=0.5, remembers=True, mode="encoder", score="complexity"),
    "deviation_comparator": _search(compares=True, mode="encoder", score="complexity", complexity_deviation=COMPLEXITY_DEVIATION),
    "neighbours_comparator": _search(self_supervision=0.5, remembers=True, compares=True, mode="encoder", score="complexity"),
    "neighbours_deviation": _search(
        self_supervision=0.5, remembers=True, mode="encoder", score="complexity", complexity_deviation=COMPLEXITY_DEVIATION
    ),
    "neighbours_refine": _search(self_supervision=0.5, remembers=True, mode="refine", score="complexity"),
    "paper": _search(sampled=True, **PAPER),
    "gan_r": _search(sampled=True, **baselines.GAN_R),
    "acae": Method({"weight": PAPER["weight"]}, _copy),
    "wgan-gp": _search(objective="wgan-gp", mode="refine"),
    "hinge": _search(objective="hinge", mode="refine"),
    **SWEEPS["lambda"],
    **SWEEPS["gamma"],
}
DEFAULT_METHODS = (*BASELINES, *RELATIVE, "p_d", "encoder", "refine", "complexity", "paper", "gan_r", "acae")
TITLES = {
    **dict(zip(BASELINES, baselines.BASELINES)),
    **dict(zip(RELATIVE, baselines.BY_COMPLEXITY)),
    "p_d": "P_D",
    "encoder": "AnoGAN, `encoder`",
    "refine": "AnoGAN, `refine`",
    "complexity": "AnoGAN, `encoder`, by complexity",
    "complexity_deviation": "AnoGAN, `encoder`, by complexity and its deviation",
    "pretext": "AnoGAN, `encoder`, by complexity and pretext",
    "neighbours": "AnoGAN, `encoder`, by complexity, pretext and neighbours",
    "deviation_comparator": "AnoGAN, `encoder`, by complexity, its deviation and a comparator",
    "neighbours_comparator": "AnoGAN, `encoder`, by complexity, pretext, neighbours and a comparator",
    "neighbours_deviation": "AnoGAN, `encoder`, by complexity, its deviation, pretext and neighbours",
    "neighbours_refine": "AnoGAN, `refine`, by complexity, pretext and neighbours",
    "comparator": "AnoGAN, `encoder`, comparator",
    "comparator_refine": "AnoGAN, `refine`, comparator",
    "without_logits": "the same, `encoder`, without the comparator's logits",
    "without_patches": "the same, `encoder`, without remembered patches",
    "without_residual": "the same, `encoder`, without the residual",
    "paper": "AnoGAN, the paper's search, sample",
    "gan_r": "GAN_R, sample",
    "acae": "aCAE",
    "wgan-gp": "AnoGAN, `refine`, WGAN-GP",
    "hinge": "AnoGAN, `refine`, hinge and spectral norm",
}


def resolve_methods(names):
    """Names of methods, with "lambda" and "gamma" standing for their sweeps, in the tables' order."""
    wanted = {method for name in names for method in SWEEPS.get(name, (name,))}
    if unknown := sorted(wanted - METHODS.keys()):
        raise ValueError(f"{', '.join(unknown)}: no such method; there are {', '.join([*METHODS, *SWEEPS])}.")
    return [name for name in METHODS if name in wanted]


def run_benchmark(name, path, out, *, seeds=1, classes=None, methods=DEFAULT_METHODS, epochs=None, progress=no_progress):
    """Run methods on classes, appending rows to `OUT/NAME.jsonl` and writing the table `OUT/NAME.md` after each.

    Trained networks are kept in `OUT/models/`, for methods that are asked for later.

    Args:
        name: of `BENCHMARKS`.
        path: the folder or file of the set as it is published.
        out: the folder.
        seeds: how many, from 0; baselines know none.
        classes: which are normal in turn; by default all of the benchmark.
        methods: names from `METHODS` or `SWEEPS`.
        epochs: of the GAN; by default the benchmark's.
        progress: see `runtime.progress`.

    Returns:
        All rows of the file, a list of dicts.
    """
    benchmark, out, methods = BENCHMARKS[name], Path(out), resolve_methods(methods)
    classes, epochs = _resolve_classes(name, classes), epochs or benchmark.epochs
    table = out / f"{name}.jsonl"
    done = [_key(row) for row in read_rows(table)]
    plan = [
        (normal_class, seed, method)
        for normal_class in classes
        for seed in range(seeds)
        for method in methods
        if seed == 0 or METHODS[method].seeded
    ]
    plan = [step for step in plan if (*step, _config(benchmark, step[-1], epochs)) not in done]
    task_of = read_set(path) if plan else None
    with progress(name, len(plan)) as on_progress:
        for normal_class, seed, method in plan:
            run = _run(name, out, task_of, normal_class, seed, epochs)
            head = {"dataset": name, "normal_class": normal_class, "seed": seed, "method": method}
            config = {"config": _config(benchmark, method, epochs)}
            append_row(table, {**head, **_measure(run, METHODS[method]), **config, **dated()})
            write_table(name, out)
            on_progress()
    return read_rows(table)


def _resolve_classes(name, classes):
    known = BENCHMARKS[name].classes
    if unknown := sorted(set(classes or ()) - set(known)):
        raise ValueError(f"{', '.join(unknown)}: {name} has no such class; there are {', '.join(known)}.")
    return tuple(classes or known)


def _run(name, out, task_of, normal_class, seed, epochs):
    models = out / "models" / f"{name}-{normal_class}-seed{seed}-latent{BENCHMARK_LATENT_DIM}-epochs{epochs}"
    return Run(task_of(normal_class), models, seed=seed, epochs=epochs, normalize=BENCHMARKS[name].normalize)


def draw_mistakes(name, path, out, method, *, classes=None, epochs=None, progress=no_progress):
    """Draw the worst mistakes of a method over all classes, seed 0, as `OUT/NAME-METHOD-misses.png` and `...-false-alarms.png`.

    The anomalies with the lowest scores, and the normal images with the highest. Scores relative to complexity compare between
    classes; losses say more of the class than of the image.

    Args:
        name, path, out, classes, epochs, progress: as for `run_benchmark`.
        method: that has a detector.

    Returns:
        The paths of both pictures.
    """
    (method,), out = resolve_methods([method]), Path(out)
    if METHODS[method].detector is None:
        able = ", ".join(known for known in METHODS if METHODS[known].detector)
        raise ValueError(f"{method} has no reconstructions to show; there are {able}.")
    classes, task_of = _resolve_classes(name, classes), read_set(path)
    found: dict[str, list] = {"misses": [], "false-alarms": []}
    with progress("Mistakes", len(classes)) as on_progress:
        for normal_class in classes:
            run = _run(name, out, task_of, normal_class, 0, epochs or BENCHMARKS[name].epochs)
            for what, mistakes in _find_mistakes(run, METHODS[method], normal_class).items():
                found[what] += mistakes
            on_progress()
    paths = []
    for what, mistakes in found.items():
        pictures = zip(*sorted(mistakes, key=lambda one: one[0])[:MISTAKES])
        _, titles, queries, reconstructions, heat = pictures
        paths.append(out / f"{name}-{method}-{what}.png")
        plots.save_figure(plots.contact_sheet(queries, reconstructions, heat, titles, columns=2), paths[-1])
    return paths


def _find_mistakes(run, method, normal_class):
    """`{"misses": ..., "false-alarms": ...}` of one class: `(how far down the list, title, query, G(z), heatmap)` of each."""
    detector, found = method.detector(run), {}
    if detector.calibration is None:
        detector.calibrate(run.normals)
    scores = detector.predict(run.task.test, verbose=0)["score"]
    for what, label, order in (("misses", 1, scores), ("false-alarms", 0, -scores)):
        rows = np.flatnonzero(run.task.labels == label)
        rows = rows[np.argsort(order[rows], kind="stable")[:MISTAKES]]
        out = detector.predict(run.task.test[rows], verbose=0)
        queries, heat = np.asarray(run.preprocessing.prepare(run.task.test[rows])), detector.heatmap(out["anomaly_map"])
        titles = [f"{run.task.kinds[row]}, normal is {normal_class}: {scores[row]:.3g}" for row in rows]
        found[what] = list(zip(order[rows], titles, queries, out["reconstruction"], heat))
    return found


def _config(benchmark, method, epochs):
    """What is written down of a run; with another it counts as not done."""
    training = {"epochs": epochs, "latent_dim": BENCHMARK_LATENT_DIM} if METHODS[method].seeded else {}
    return {**METHODS[method].config, **training, "normalize": benchmark.normalize}


def _key(row):
    return row["normal_class"], row["seed"], row["method"], row["config"]


def _measure(run, method):
    """What a method makes of one class with one seed."""
    rows = sample_rows(run.task.kinds, SAMPLE) if method.sampled else np.arange(len(run.task.test))
    started, labels = time.perf_counter(), run.task.labels[rows]
    scores = method.score(run, rows)
    return {
        "auroc": round(metrics.auroc(labels, scores), 4),
        "n_normal": int((labels == 0).sum()),
        "n_anomalous": int((labels == 1).sum()),
        "seconds": round(time.perf_counter() - started - run.waited, 1),
        "training_seconds": run.training_seconds,
    }


def dated():
    """What every row ends with."""
    return {"versions": versions(), "date": datetime.date.today().isoformat()}


def read_rows(table):
    """The rows of a `.jsonl` file; none where there is no file."""
    rows = []
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines() if table.exists() else (), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{table}, line {number} is no row of JSON ({error}); remove the line.") from None
    return rows


def append_row(table, row):
    """Add a row to a `.jsonl` file, which an interrupt leaves whole, and another process that adds rows too."""
    with locked(table, wait=True):
        rows = table.read_text(encoding="utf-8") if table.exists() else ""
        with replacing(table) as path:
            path.write_text(f"{rows}{json.dumps(row)}\n", encoding="utf-8")


def rows_of(method, rows):
    """The rows of a method that a table shows: those of one configuration, the last that was run."""
    found = [row for row in rows if row["method"] == method]
    return [row for row in found if row["config"] == found[-1]["config"]]


def write_table(name, out):
    """Write the Markdown table of the rows in `OUT/NAME.jsonl`, published ones first, as `OUT/NAME.md`."""
    benchmark, rows = BENCHMARKS[name], read_rows(out / f"{name}.jsonl")
    lines = []
    for title, values in benchmark.published.items():
        lines.append({**_line(benchmark, title, None, dict(zip((*benchmark.classes, "mean"), values))), "ms": None})
    for method in METHODS:
        if found := rows_of(method, rows):
            line = _line(benchmark, TITLES.get(method, method), *_averaged(found, benchmark.classes))
            cost = np.median([1e3 * row["seconds"] / (row["n_normal"] + row["n_anomalous"]) for row in found])
            lines.append({**line, "ms": f"{cost:.2g}" if cost < 10 else f"{cost:.0f}"})
    text = [f"# {benchmark.title}", _EXPLANATION.format(name=name, sample=SAMPLE, calibrated=CALIBRATED), markdown_table(lines)]
    with replacing(out / f"{name}.md") as path:
        path.write_text("\n\n".join(text) + "\n", encoding="utf-8")


_EXPLANATION = """AUROC x 100 by the normal class, written by `python -m benchmarks {name}`; each run is a row of `{name}.jsonl`
with its settings, versions and date. More than one seed: their mean. "sample" rows score {sample:,} test images, drawn from each
class in proportion, or all where there are fewer; the others score all. "by complexity": relative to normal images as busy (see
`Complexity`), for AnoGAN {calibrated:,} of the training images, for the baselines all of them, each scored by one fitted to
others. "complexity deviation": and by how unusual it is to be so busy. "pretext": and by the discriminator's loss in a second
task, relative to a tenth of the training images, which nothing else saw; "neighbours": and by the distance to the nearest of the
others. The mean is given once every class has been run. ms: the median run's milliseconds a test image, fitting a baseline or a
line included, training networks not."""


def _averaged(rows, classes):
    """`(number of seeds that every class has, {class: mean AUROC x 100 over seeds})`."""
    last = {(row["normal_class"], row["seed"]): row["auroc"] for row in rows}
    values, seeds = {}, []
    for normal_class in classes:
        found = [auroc for (kind, _), auroc in last.items() if kind == normal_class]
        if found:
            values[normal_class] = 100.0 * float(np.mean(found))
            seeds.append(len(found))
    if len(values) == len(classes):
        values["mean"] = float(np.mean(list(values.values())))
    return min(seeds), values


def _line(benchmark, title, seeds, values):
    columns = (*benchmark.classes, "mean") if len(benchmark.classes) > 1 else benchmark.classes
    found = {column: values.get(column) for column in columns}
    return {"": title, "seeds": seeds, **{column: None if value is None else f"{value:.1f}" for column, value in found.items()}}

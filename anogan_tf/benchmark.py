"""Detection on public sets by the protocols of published tables: `anogan bench mnist`, `fashion`, `pneumonia`.

One row of JSON for each run, appended as it ends; what has its row already isn't run again.
"""

import datetime
import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anogan_tf import comparisons, data, metrics
from anogan_tf.detector import AnoGAN
from anogan_tf.objectives import OBJECTIVES
from anogan_tf.preparation import Preparation
from anogan_tf.records import markdown_table, versions
from anogan_tf.saving import replacing
from anogan_tf.settings import PAPER
from anogan_tf.workflows import silent, train_networks

SAMPLE = 1000  # test images that a search of 500 steps scores, drawn from each class in proportion
EPOCHS, LATENT_DIM = 10, 16
DIGITS = tuple("0123456789")


class Benchmark(NamedTuple):
    """A set and its protocol: train on the training images of one class, score the whole test set, the others are anomalous.

    Attributes:
        title: of the table.
        classes: which are normal in turn.
        epochs: of the GAN.
        normalise: as for `Preparation`.
        published: `{who: AUROC x 100 of each class, and their mean}`; None where none was published.
    """

    title: str
    classes: tuple
    epochs: int = EPOCHS
    normalise: bool = False
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
    "pneumonia": Benchmark("PneumoniaMNIST, normal against pneumonia", ("0",), epochs=50, normalise=True),
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
    images = data.load_images([path])
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
        preparation: `Preparation` of the networks and of the probes.
        training_seconds: what training the networks took that were asked for.
    """

    def __init__(self, task, models, *, seed, epochs, normalise):
        self.task, self._models, self._epochs = task, models, epochs
        self.preparation = Preparation(task.train.shape[1:], normalise=normalise)
        self._options = {"latent_dim": LATENT_DIM, "seed": seed, "preparation": self.preparation}
        self.training_seconds = None

    def detector(self, objective="dcgan"):
        """An `AnoGAN` with an encoder, its GAN trained with that objective."""

        def train(pixels, shape):
            # The same number of steps of the generator for all.
            epochs = self._epochs * OBJECTIVES[objective].discriminator_steps
            with tempfile.TemporaryDirectory() as state:
                networks = train_networks(pixels, state, shape, epochs=epochs, objective=objective, **self._options)
            return AnoGAN.from_gan(*networks)

        return self._kept(objective, train)

    def autoencoder(self):
        """The `AnoGAN` of an aCAE."""

        def train(pixels, shape):
            return comparisons.train_autoencoder(pixels, shape, epochs=self._epochs, **self._options)

        return self._kept("acae", train)

    def _kept(self, name, train):
        """The trained detector, from its file if it is there."""
        path = Path(f"{self._models}-{name}.keras")
        note = path.with_suffix(".json")
        if path.exists() and note.exists():
            self.training_seconds = json.loads(note.read_text())["training_seconds"]
            return AnoGAN.load(path)
        started = time.perf_counter()
        detector = train(self.task.train, self.preparation.image_shape)
        self.training_seconds = round(time.perf_counter() - started, 1)
        detector.save(path)
        with replacing(note) as temporary:
            temporary.write_text(json.dumps({"training_seconds": self.training_seconds}))
        return detector


def _everything(run):
    return np.arange(len(run.task.test))


def sample_rows(kinds, count, seed=0):
    """Rows of a sample of so many test images, drawn from each class in proportion; the same for every method."""
    kinds, rows = np.asarray(kinds), []
    if len(kinds) <= count:
        return np.arange(len(kinds))
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds == kind)
        rows.append(np.random.default_rng(seed).permutation(members)[: round(count * len(members) / len(kinds))])
    return np.sort(np.concatenate(rows))


def _probe(function):
    """A method that fits a probe to the training images."""

    def method(run):
        task = run.task
        return _everything(run), function(task.train, task.test, run.preparation), {"components": comparisons.COMPONENTS}

    return method


def _search(whole=False, objective="dcgan", **settings):
    """A method that searches with the GAN of an objective, for all test images or for the sample."""

    def method(run):
        rows = _everything(run) if whole else sample_rows(run.task.kinds, SAMPLE)
        detector = run.detector(objective).with_settings(**settings)
        chosen = detector.settings
        names = ("mode", "loss", "weight", "steps", "optimizer", "learning_rate", "candidates", "keep", "whiten")
        config = {name: getattr(chosen, name) for name in names}
        return rows, detector.predict(run.task.test[rows], verbose=0)["score"], config

    return method


def _discriminator(run):
    return _everything(run), comparisons.discriminator_score(run.detector("dcgan"), run.task.test), {}


def _autoencoder(run):
    return _everything(run), run.autoencoder().predict(run.task.test, verbose=0)["score"], {"weight": PAPER["weight"]}


SWEEPS = {
    "lambda": {f"lambda={weight:g}": _search(**{**PAPER, "weight": weight}) for weight in (0.0, 0.05, 0.2, 0.5, 1.0)},
    "gamma": {f"gamma={steps}": _search(**{**PAPER, "steps": steps}) for steps in (10, 50, 100, 200, 1000)},
}
PROBES = {name: _probe(probe) for name, probe in zip(("pca", "knn", "svm"), comparisons.PROBES.values())}
# In the order of the tables. `seeds` matter to all but the probes.
METHODS = {
    **PROBES,
    "p_d": _discriminator,
    "encoder": _search(True, mode="encoder"),
    "refine": _search(True, mode="refine"),
    "paper": _search(**PAPER),
    "gan_r": _search(**comparisons.GAN_R),
    "acae": _autoencoder,
    "wgan-gp": _search(True, "wgan-gp", mode="refine"),
    "hinge": _search(True, "hinge", mode="refine"),
    **SWEEPS["lambda"],
    **SWEEPS["gamma"],
}
DEFAULT_METHODS = ("pca", "knn", "svm", "p_d", "encoder", "refine", "paper", "gan_r", "acae")
TITLES = {
    **dict(zip(PROBES, comparisons.PROBES)),
    "p_d": "P_D",
    "encoder": "AnoGAN, `encoder`",
    "refine": "AnoGAN, `refine`",
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


def run_benchmark(name, path, out, *, seeds=1, classes=None, methods=DEFAULT_METHODS, epochs=None, progress=silent):
    """Run methods on classes, appending rows to `OUT/NAME.jsonl` and writing the table `OUT/NAME.md` after each.

    Trained networks are kept in `OUT/models/`, for methods that are asked for later.

    Args:
        name: of `BENCHMARKS`.
        path: the folder or file of the set as it is published.
        out: the folder.
        seeds: how many, from 0; probes know none.
        classes: which are normal in turn; by default all of the benchmark.
        methods: names from `METHODS` or `SWEEPS`.
        epochs: of the GAN; by default the benchmark's.
        progress: see `workflows.silent`.

    Returns:
        All rows of the file, a list of dicts.
    """
    benchmark, out, methods = BENCHMARKS[name], Path(out), resolve_methods(methods)
    classes = tuple(classes or benchmark.classes)
    if unknown := sorted(set(classes) - set(benchmark.classes)):
        raise ValueError(f"{', '.join(unknown)}: {name} has no such class; there are {', '.join(benchmark.classes)}.")
    epochs = epochs or benchmark.epochs
    plan = [
        (normal_class, seed, method)
        for normal_class in classes
        for seed in range(seeds)
        for method in methods
        if seed == 0 or method not in PROBES
    ]
    table = out / f"{name}.jsonl"
    done = {_key(row) for row in read_rows(table)}
    plan = [step for step in plan if (*step, epochs if step[-1] not in PROBES else None) not in done]
    task_of = read_set(path) if plan else None
    with progress(name, len(plan)) as advance:
        for normal_class, seed, method in plan:
            models = out / "models" / f"{name}-{normal_class}-seed{seed}-latent{LATENT_DIM}-epochs{epochs}"
            run = Run(task_of(normal_class), models, seed=seed, epochs=epochs, normalise=benchmark.normalise)
            row = _measure(name, run, normal_class, seed, method)
            if method not in PROBES:
                row["config"] |= {"epochs": epochs, "latent_dim": LATENT_DIM}
            append_row(table, row)
            write_table(name, out)
            advance()
    return read_rows(table)


def _key(row):
    return row["normal_class"], row["seed"], row["method"], row["config"].get("epochs")


def _measure(name, run, normal_class, seed, method):
    """A row: one method on one class with one seed."""
    started = time.perf_counter()
    rows, scores, config = METHODS[method](run)
    seconds, labels = time.perf_counter() - started, run.task.labels[rows]
    return {
        "dataset": name,
        "normal_class": normal_class,
        "seed": seed,
        "method": method,
        "auroc": round(metrics.auroc(labels, scores), 4),
        "n_normal": int((labels == 0).sum()),
        "n_anomalous": int((labels == 1).sum()),
        "seconds": round(seconds, 1),
        "training_seconds": run.training_seconds,
        "config": {**config, "normalise": run.preparation.normalise},
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
    }


def read_rows(table):
    """The rows of a `.jsonl` file; none where there is no file."""
    return [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []


def append_row(table, row):
    """Add a row to a `.jsonl` file."""
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def write_table(name, out):
    """Write the Markdown table of the rows in `OUT/NAME.jsonl`, published ones first, as `OUT/NAME.md`."""
    benchmark, rows = BENCHMARKS[name], read_rows(out / f"{name}.jsonl")
    lines = []
    for title, values in benchmark.published.items():
        lines.append(_line(benchmark, title, None, dict(zip((*benchmark.classes, "mean"), values))))
    for method in METHODS:
        found = [row for row in rows if row["method"] == method]
        if found:
            lines.append(_line(benchmark, TITLES.get(method, method), *_averaged(found, benchmark.classes)))
    text = [f"# {benchmark.title}", _EXPLANATION.format(name=name, sample=SAMPLE), markdown_table(lines)]
    with replacing(out / f"{name}.md") as path:
        path.write_text("\n\n".join(text) + "\n", encoding="utf-8")


_EXPLANATION = """AUROC x 100 by the normal class, written by `anogan bench {name}`; each run is a row of `{name}.jsonl` with its
settings, versions and date. More than one seed: their mean. "sample" rows score {sample:,} test images, drawn from each class
in proportion; the others score all. The mean is given once every class has been run."""


def _averaged(rows, classes):
    """`(number of seeds, {class: mean AUROC x 100 over seeds})`, of the last run for each class and seed."""
    last = {(row["normal_class"], row["seed"]): row["auroc"] for row in rows}
    values = {}
    for normal_class in classes:
        found = [auroc for (kind, _), auroc in last.items() if kind == normal_class]
        if found:
            values[normal_class] = 100.0 * float(np.mean(found))
    if len(values) == len(classes):
        values["mean"] = float(np.mean(list(values.values())))
    return len({seed for _, seed in last}), values


def _line(benchmark, title, seeds, values):
    columns = (*benchmark.classes, "mean") if len(benchmark.classes) > 1 else benchmark.classes
    found = {column: values.get(column) for column in columns}
    return {"": title, "seeds": seeds, **{column: None if value is None else f"{value:.1f}" for column, value in found.items()}}

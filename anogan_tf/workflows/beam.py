"""Scoring on Apache Beam: from file patterns or record files, by an exported model on many workers, to sharded CSV."""

import collections
import contextlib
import csv
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from anogan_tf.data.batching import PIXELS_AT_ONCE
from anogan_tf.data.entries import entries_of, is_image_name, read_entry
from anogan_tf.data.pixel_checks import check_pixels
from anogan_tf.data.tfds_sets import read_shard
from anogan_tf.detection.stream import ANOMALY, SCORE_COLUMNS, score_columns
from anogan_tf.runtime.types import PathLike
from anogan_tf.serving.saved_model import SIGNATURES

try:
    import apache_beam as beam
    from apache_beam.io import fileio
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.ml.inference.base import ModelHandler, RunInference
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineState
except ImportError:
    raise ImportError("Scoring by a runner needs Apache Beam: pip install apache-beam") from None

SHARD_COLUMNS = ("file", "truth", *SCORE_COLUMNS, "steps")  # of scores-00000-of-00004.csv and so on
SKIPPED_COLUMNS = ("file", "reason")  # of skipped-00000-of-00004.csv and so on
IMAGES_AT_ONCE = 64  # images in a batch, fewer where they are large; the search takes them by 16
INVALID = "not pixels that the model was made for: floats outside [0, 1], or no numbers"
SKIPPED = "skipped"  # the tag of what can't be scored


class Query(NamedTuple):
    """An image on its way to the model.

    Attributes:
        name: as in `ImageRef.name`.
        truth: its label, or "".
        image: PNG, or where pixels are floats `[h, w, c]`.
        size: how many pixels it has.
    """

    name: str
    truth: str
    image: Any
    size: int


class Counts(NamedTuple):
    """How many images were scored, how many of them are anomalous, how many couldn't be read; None where a runner doesn't say."""

    scored: int | None
    anomalous: int | None
    skipped: int | None


def score_on_beam(
    model: PathLike,
    images: beam.PTransform,
    out: PathLike,
    *,
    runner: str = "DirectRunner",
    options: Sequence[str] = (),
    strict: bool = False,
    overwrite: bool = False,
) -> Counts:
    """Score images by a Beam pipeline; the scores are those of `score_files`.

    Writes `OUT/scores-*-of-*.csv` and, for what can't be read, `OUT/skipped-*-of-*.csv`, in any order. Images and folder may be
    wherever Beam knows a file system for, such as gs://; the model has to be where TensorFlow reads it on each worker.

    Args:
        model: the folder of one version that `AnoGAN.export` wrote, or the folder of versions, of which the newest counts.
        images: a transform that gives `Query`s and, tagged `SKIPPED`, pairs of name and reason: `ReadPatterns`, `ReadTfds`.
        out: the folder.
        runner: the name of a Beam runner.
        options: arguments of the pipeline as on a command line, such as `["--flink_master=localhost:8081"]`.
        strict: whether an image that can't be read ends the run.
        overwrite: whether results of another run in the folder may be replaced, once this one has ended.

    Returns:
        `Counts`.

    Raises:
        ValueError: for a folder with results, a model that is none; for a run that failed.
    """
    handler, old = SavedModelHandler(find_version(model)), _results(out)
    if old and not overwrite:
        raise ValueError(f"{min(old)} is of another run; choose another folder with -o, or pass --overwrite.")
    pipeline = beam.Pipeline(options=PipelineOptions([f"--runner={runner}", *options]))
    queries = pipeline | "Read" >> images
    # An image's place in a batch changes nothing; on its way from many readers to many workers it may be any.
    rows = queries.main | beam.Reshuffle() | RunInference(handler) | beam.ParDo(_Line()).with_outputs(SKIPPED, main="main")
    skipped = (queries[SKIPPED], rows[SKIPPED]) | beam.Flatten()
    if strict:
        skipped |= beam.Map(_refuse)
    lines = ((rows.main, "scores", SHARD_COLUMNS), (skipped | beam.ParDo(_SkippedLine()), "skipped", SKIPPED_COLUMNS))
    for found, name, columns in lines:
        prefix = FileSystems.join(str(out), name)
        written = beam.io.WriteToText(prefix, file_name_suffix=".csv", header=_csv_line(columns), skip_if_empty=True)
        found | f"Write {name}" >> written
    result = pipeline.run()
    result.wait_until_finish()
    if result.state != PipelineState.DONE:
        raise ValueError(f"The runner says that the run is {result.state}; {out} is as it was, or has a part of the results.")
    now = _results(out)
    if left := [path for path, changed in old.items() if now.get(path) == changed]:  # shards that this run has none of
        FileSystems.delete(left)
    return Counts(*(_counted(result, name) for name in Counts._fields))


def find_version(model):
    """The folder of a SavedModel: the one that is given, or the newest of the versions in it."""
    model = str(model)
    if tf.io.gfile.exists(os.path.join(model, "saved_model.pb")):
        return model
    names = tf.io.gfile.listdir(model) if tf.io.gfile.isdir(model) else ()
    versions = [int(name.strip("/")) for name in names if name.strip("/").isdecimal()]
    if not versions:
        raise ValueError(f"{model} is no exported model. A runner scores what `anogan export MODEL.keras FOLDER` has written.")
    return os.path.join(model, str(max(versions)))


def _results(out):
    """The shards in a folder, and when each was changed."""
    names = ("scores", "skipped")
    found = FileSystems.match([FileSystems.join(str(out), f"{name}-*-of-*.csv") for name in names])
    return {file.path: file.last_updated_in_seconds for result in found for file in result.metadata_list}


class ReadPatterns(beam.PTransform):
    """The images in all files that match a pattern, in whatever format the package reads.

    Args:
        patterns: such as "parts/*.png", or "gs://bucket/parts/**" for all below.
    """

    def __init__(self, patterns: Iterable[PathLike]) -> None:
        super().__init__()
        self._patterns = [str(pattern) for pattern in patterns]
        for pattern, found in zip(self._patterns, FileSystems.match(self._patterns, limits=[1] * len(self._patterns))):
            if not found.metadata_list:
                raise ValueError(f"{pattern}: there is no such file.")

    def expand(self, pipeline):
        files = pipeline | beam.Create(self._patterns) | fileio.MatchAll() | beam.Reshuffle()
        return files | beam.ParDo(_ReadFile()).with_outputs(SKIPPED, main="main")


class ReadTfds(beam.PTransform):
    """The images of a set of tensorflow-datasets, from its record files.

    Args:
        builder: of the set, which is prepared.
        splits: names of its splits.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, splits: Sequence[str]) -> None:
        super().__init__()
        self._builder, self._splits = builder, splits

    def expand(self, pipeline):
        shards = [
            (split, shard, sum(counts[:shard]))
            for split in self._splits
            for counts in [self._builder.info.splits[split].shard_lengths]
            for shard in range(len(counts))
        ]
        shards = pipeline | beam.Create(shards) | beam.Reshuffle()
        return shards | beam.ParDo(_ReadShard(self._builder)).with_outputs(SKIPPED, main="main")


class SavedModelHandler(ModelHandler):
    """Loads an exported detector and asks it: for `RunInference`, from `Query`s to pairs of a `Query` and what the model says."""

    def __init__(self, folder: PathLike) -> None:
        super().__init__()
        self._folder = str(folder)

    def load_model(self):
        return tf.saved_model.load(self._folder)

    def batch_elements_kwargs(self):
        sizes = {"min_batch_size": IMAGES_AT_ONCE, "max_batch_size": IMAGES_AT_ONCE}
        return {**sizes, "element_size_fn": lambda query: math.ceil(query.size * IMAGES_AT_ONCE / PIXELS_AT_ONCE)}

    def run_inference(self, batch, model, inference_args=None):
        groups = collections.defaultdict(list)  # floats of one size make a batch; PNG files may differ
        for number, query in enumerate(batch):
            encoded = isinstance(query.image, bytes)
            groups["score_bytes" if encoded else "serving_default", None if encoded else query.image.shape].append(number)
        answers: list[Any] = [None] * len(batch)
        for (signature, _), numbers in groups.items():
            images = {SIGNATURES[signature][0].name: tf.constant([batch[number].image for number in numbers])}
            found = {name: values.numpy() for name, values in model.signatures[signature](**images).items()}
            for place, number in enumerate(numbers):
                answers[number] = (batch[number], {name: values[place] for name, values in found.items()})
        return answers


def _encoded(pixels):
    """Pixels `[h, w, c]` as `Query.image` and `size`, without loss; a ValueError where no model takes them."""
    pixels = check_pixels(pixels[np.newaxis], "image", bounded=False)[0]
    image = pixels.astype(np.float32) if pixels.dtype.kind == "f" else tf.io.encode_png(pixels).numpy()
    return image, pixels.shape[0] * pixels.shape[1]


class _ReadFile(beam.DoFn):
    def process(self, file):
        with _local(file.path) as path:
            for entry in entries_of(path) if is_image_name(path) else ():
                yield _query(entry._replace(path=file.path), read_entry(entry))


class _ReadShard(beam.DoFn):
    def __init__(self, builder):
        super().__init__()
        self._builder = builder

    def process(self, shard):
        for entry, picture in read_shard(self._builder, *shard):
            yield _query(entry, picture)


def _query(entry, picture):
    """What goes on: a `Query`, or why there is none."""
    try:
        if picture.pixels is None:
            raise ValueError(picture.reason)
        return Query(entry.name, entry.label, *_encoded(picture.pixels))
    except ValueError as error:
        return beam.pvalue.TaggedOutput(SKIPPED, (entry.name, str(error)))


@contextlib.contextmanager
def _local(path):
    """A file as one on this machine, under its name, which says what is in it."""
    if "://" not in path:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, path.rpartition("/")[2])
        with FileSystems.open(path, compression_type="uncompressed") as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target)
        yield copy


class _Line(beam.DoFn):
    """What the model says to lines of CSV."""

    def process(self, answer):
        query, found = answer
        if not found["valid"]:
            yield beam.pvalue.TaggedOutput(SKIPPED, (query.name, INVALID))
            return
        cells = score_columns({"p_value": [np.nan], **{name: [value] for name, value in found.items()}}, 0)
        _count("scored")
        if cells[-1] == ANOMALY:
            _count("anomalous")
        yield _csv_line((query.name, query.truth, *cells, found["steps"]))


class _SkippedLine(beam.DoFn):
    def process(self, skipped):
        _count("skipped")
        yield _csv_line(skipped)


def _refuse(skipped):
    raise ValueError(": ".join(skipped))


def _csv_line(cells):
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _count(name):
    beam.metrics.Metrics.counter(__name__, name).inc()


def _counted(result, name):
    wanted = beam.metrics.MetricsFilter().with_namespace(__name__).with_name(name)
    try:
        counters = result.metrics().query(wanted)["counters"]
    except NotImplementedError:
        return None
    return sum(counter.result for counter in counters)

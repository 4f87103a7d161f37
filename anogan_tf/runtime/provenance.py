"""What is written down beside a measurement: machine, versions, day; a run's record, and whether another run goes on with it."""

import datetime
import json
import os
import platform
from importlib import metadata
from pathlib import Path

import tensorflow as tf

from anogan_tf import __version__
from anogan_tf.runtime.backend import keras
from anogan_tf.runtime.files import replacing

RECORD = "run.json"


def versions():
    """Of this package and of those that numbers depend on."""
    others = {name: metadata.version(name) for name in ("numpy", "scikit-learn", "scipy")}
    return {"anogan_tf": __version__, "tensorflow": tf.__version__, "keras": keras.__version__, **others}


def machine():
    """Processor, cores, devices, versions and today's date, ready for JSON."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [device.device_type for device in tf.config.list_logical_devices()],
        "python": platform.python_version(),
        **versions(),
        "date": datetime.date.today().isoformat(),
    }


def write_record(folder, record):
    """Write `run.json`, what a run was made with, into a folder: the record, versions and the day."""
    record = {**record, "versions": versions(), "date": datetime.date.today().isoformat()}
    text = json.dumps(record, indent=2, default=str)
    with replacing(Path(folder) / RECORD) as path:
        path.write_text(text + "\n", encoding="utf-8")


def read_record(folder):
    """What `write_record` wrote into a folder, a dict."""
    path = Path(folder) / RECORD
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and start anew.") from None


def has_record(folder, record):
    """Whether a folder holds `run.json`, of a run that this one can go on with.

    Raises:
        ValueError: if what it holds differs from the record, naming what.
    """
    path = Path(folder) / RECORD
    if not path.exists():
        return False
    before = read_record(folder)
    changed = sorted(_differences(before, {**json.loads(json.dumps(record, default=str)), "versions": versions()}))
    if changed:
        raise ValueError(
            f"{path} is of a run that differs in {', '.join(changed)}; give the same, or start anew without resuming."
        )
    return True


def _differences(before, now, prefix=""):
    """Names of what differs, `a.b` for b within a, among the names of `now`."""
    for name, value in now.items():
        was = before.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _differences(was, {**dict.fromkeys(was), **value}, f"{prefix}{name}.")
        elif was != value:
            yield f"{prefix}{name}"


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

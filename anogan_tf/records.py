"""What is written down beside a measurement: the machine, the versions, the day; rows as a Markdown table."""

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

import tensorflow as tf

from anogan_tf import __version__
from anogan_tf.backend import keras


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


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def markdown_table(rows):
    """Dicts with the same keys as a Markdown table; None is an empty cell."""
    if not rows:
        return "-"
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row[key] for key in head] for row in rows)]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)

"""Which module may lean on which: imports point up this table."""

import ast
from pathlib import Path

import pytest

import anogan_tf

PACKAGE = Path(anogan_tf.__file__).parent
ROOMS_ABOVE = "the rooms above"
MAY_IMPORT = {
    "annotations": "",
    "backend": "",
    "archives": "backend",
    "saving": "annotations archives backend",
    "latent": "",
    "losses": "",
    "objectives": "losses",
    "networks": "backend",
    "preparation": "annotations backend",
    "data": "annotations preparation",
    "tiling": "",
    "maps": "",
    "memory": "annotations backend maps",
    "metrics": "annotations",
    "calibration": "maps",
    "folding": "backend networks",
    "transforms": "",
    "fitting": "annotations backend data preparation saving",
    "gan": "backend fitting latent losses networks objectives preparation transforms",
    "encoder": "backend fitting latent losses networks preparation",
    "autoencoder": "backend fitting losses networks preparation",
    "descent": "",
    "settings": "latent",
    "inversion": "annotations descent latent losses settings",
    "decoding": "preparation tiling",
    "warmup": "",
    "serving": "backend decoding preparation saving tiling warmup",
    "detector": "annotations backend calibration folding inversion losses maps memory networks preparation saving serving"
    " settings tiling transforms warmup",
    "unfolding": "annotations detector",
    "callbacks": "annotations backend maps saving",
    "plots": "annotations maps metrics saving",
    "comparisons": "annotations autoencoder backend calibration detector fitting memory networks preparation settings",
    "records": "backend saving",
    "synthetic": "annotations data",
    "workflows": ROOMS_ABOVE,
    "scoring": ROOMS_ABOVE,
    "evaluation": ROOMS_ABOVE,
    "report": ROOMS_ABOVE,
    "demo": ROOMS_ABOVE,
    "benchmark": ROOMS_ABOVE,
    "tile_benchmark": ROOMS_ABOVE,
    "speed": ROOMS_ABOVE,
    "app": ROOMS_ABOVE,
    "beam": ROOMS_ABOVE,
    "cli": ROOMS_ABOVE,
    "__main__": "cli",
}


def files_of(module):
    folder = PACKAGE / module
    return sorted(folder.glob("*.py")) if folder.is_dir() else [PACKAGE / f"{module}.py"]


def imported(module):
    """Names of the package's modules that a module, or a package, imports anywhere in its code."""
    found = set()
    for node in (node for file in files_of(module) for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.ImportFrom) and node.level:
            found.add("a relative import")
        elif isinstance(node, ast.ImportFrom) and node.module == "anogan_tf":
            found |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("anogan_tf."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("anogan_tf")}
    return found - {module}


def test_every_module_has_its_row():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_imports_point_upwards(module):
    rooms = list(MAY_IMPORT)
    above = set(rooms[: rooms.index(module)])
    allowed = above if MAY_IMPORT[module] == ROOMS_ABOVE else set(MAY_IMPORT[module].split())
    assert allowed <= above, "a row that points downwards"
    assert imported(module) <= allowed

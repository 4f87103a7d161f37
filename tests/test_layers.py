"""Which wing may lean on which, and which room of a wing on which: imports point up these tables."""

import ast
from pathlib import Path

import pytest

import anogan_tf

PACKAGE = Path(anogan_tf.__file__).parent
ALL_ABOVE = "all above"
# Wing: the wings that it leans on.
WINGS = {
    "runtime": "",
    "networks": "runtime",
    "data": "runtime",
    "training": "runtime networks data",
    "search": "runtime networks",
    "serving": "runtime data",
    "detection": "runtime networks data search serving",
    "evaluation": "runtime networks data search detection",
    "workflows": ALL_ABOVE,
    "cli": ALL_ABOVE,
}
# The rooms of each wing; a room imports from those before it, and from none behind it.
ROOMS = {
    "runtime": "types backend remarks files progress archives models provenance",
    "networks": "latent losses architectures comparator inference pretext",
    "data": "pixel_checks augmentation preprocessing batching disk embedded pictures medical arrays entries masks"
    " names tables layouts sources"
    " tfds_sets defects synthetic",
    "training": "trainer objectives gan encoder comparator callbacks",
    "search": "settings optimizers blocks search searcher",
    "serving": "decoding warmup description saved_model",
    "detection": "maps tiling memory_bank patch_memory anomaly_map complexity terms scorer calibration detector stream"
    " trajectory",
    "evaluation": "metrics plots baselines evaluate report self_check",
    "workflows": "options splits choose pace parts train anomaly_detector score demo beam web_app",
    "cli": "console options demo train score evaluate prepare export page app",
}


def imports_of(file):
    """`(line, module)` of every import from the package, anywhere in a file; of a wing its rooms."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: a relative import"
            parts = (node.module or "").split(".")
            if parts[0] == "anogan_tf" and len(parts) == 2:
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            elif parts[0] == "anogan_tf" and len(parts) > 2:
                yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("anogan_tf") for alias in node.names), f"{file}:{node.lineno}: import from it"


def test_every_module_has_its_room():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} == set(WINGS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    for wing, rooms in ROOMS.items():
        assert {path.stem for path in (PACKAGE / wing).glob("*.py")} - {"__init__"} == set(rooms.split()), wing


@pytest.mark.parametrize("wing", WINGS)
def test_imports_point_upwards(wing):
    above, rooms = list(WINGS)[: list(WINGS).index(wing)], ROOMS[wing].split()
    allowed = set(above) if WINGS[wing] == ALL_ABOVE else set(WINGS[wing].split())
    assert allowed <= set(above), "a row that points downwards"
    wrong = []
    for number, room in enumerate(rooms):
        file = PACKAGE / wing / f"{room}.py"
        for line, module in imports_of(file):
            _, other, inside = module.split(".")[:3]
            if not (inside in rooms[:number] if other == wing else other in allowed):
                wrong.append(f"{wing}/{room}.py:{line} imports {other}/{inside}.py")
    assert not wrong


def test_what_is_looked_for_at_the_top_is_at_most_ten_names():
    assert len(WINGS) <= 10

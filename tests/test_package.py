"""What holds for the package as a whole: lazy imports, the backend, public names."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from promises import PROMISES

import anogan_tf


def python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment})


def test_every_public_name_is_there_and_documented():
    for name in anogan_tf.__all__:
        assert getattr(anogan_tf, name).__doc__, name
    with pytest.raises(AttributeError, match="attribute nothing"):
        anogan_tf.nothing


def test_no_public_name_is_hidden_by_a_sub_package():
    """Once it is imported, a sub-package is the attribute of its name."""
    wings = {path.parent.name for path in Path(anogan_tf.__file__).parent.glob("*/__init__.py")}
    assert wings and not wings & set(anogan_tf.__all__)


def test_no_test_is_passed_over_for_want_of_this_package():
    """A module of ours that has moved would be missing as if it were another's that isn't installed."""
    asked = 'importorskip("' + "anogan_tf"
    assert [path.name for path in Path(__file__).parent.glob("*.py") if asked in path.read_text()] == []


def test_every_promise_of_the_readme_has_a_test():
    root = Path(__file__).parent
    kept = set(re.findall(r'promise\("([^"]+)"\)', "".join(path.read_text() for path in root.glob("test_*.py"))))
    assert kept == set(PROMISES)
    readme = " ".join((root.parent / "README.md").read_text().replace("*", "").split())
    assert [words for words in PROMISES.values() if words not in readme] == []


def documented():
    """The public functions and classes, and those of their methods that the reference shows."""
    text = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
    members = dict(re.findall(r"autoclass:: anogan_tf\.(\w+)\n   :members: (.*)", text))
    for name in anogan_tf.__all__:
        found = getattr(anogan_tf, name)
        yield name, found.__init__ if inspect.isclass(found) and not hasattr(found, "_fields") else found
        for member in filter(None, members.get(name, "").split(", ")):
            method = inspect.getattr_static(found, member)
            yield f"{name}.{member}", getattr(method, "fget", getattr(method, "__func__", method))


def test_every_public_function_has_types():
    for name, function in documented():
        if not inspect.isroutine(function):  # a dataclass's field, a record's constructor
            continue
        signature = inspect.signature(function)
        untyped = [
            one.name for one in signature.parameters.values() if one.annotation is one.empty and one.name not in ("self", "cls")
        ]
        assert not untyped, f"{name}: {untyped}"
        assert signature.return_annotation is not signature.empty, name


def test_type_checkers_see_what_is_handed_out_lazily(tmp_path):
    mypy = pytest.importorskip("mypy.api", reason="needs mypy")
    (tmp_path / "use.py").write_text(
        """
from anogan_tf import GAN, AnoGAN, load_images
detector = AnoGAN.from_gan(GAN((16, 16, 1))).calibrate(load_images("good").pixels)
reveal_type(detector)
AnoGAN.load(3)
GAN(image_shape=(16, 16))
"""
    )
    out, _, _ = mypy.run(["--strict", "--follow-imports=silent", "--ignore-missing-imports", str(tmp_path / "use.py")])
    said = [line.partition("use.py:")[2] for line in out.splitlines() if "use.py:" in line]
    assert [line.split(":")[0] for line in said] == ["4", "5", "6"], out
    assert (
        "anogan_tf.detection.detector.AnoGAN" in said[0] and "Argument 1 to" in said[1] and "tuple[int, int, int]" in said[2]
    ), out


@pytest.mark.parametrize("module", ["anogan_tf", "anogan_tf.cli.app"])
def test_importing_costs_nothing(module, process):
    heavy = "('tensorflow', 'keras', 'numpy', 'sklearn', 'matplotlib', 'PIL')"
    result = python(f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])")
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize("use", ["import anogan_tf; anogan_tf.GAN", "from anogan_tf.data.preprocessing import Preprocessing"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_says_what_to_set(backend, use, process):
    result = python(use, KERAS_BACKEND=backend)
    assert f"Keras is set to '{backend}'" in result.stderr and "KERAS_BACKEND=tensorflow" in result.stderr


def test_keras_json_counts_too(tmp_path, process):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    code = "import os; os.environ.pop('KERAS_BACKEND', 0); import anogan_tf; anogan_tf.AnoGAN"
    result = python(code, **{**environment, "KERAS_HOME": str(tmp_path)})
    assert "Keras is set to 'jax'" in result.stderr

"""Every notebook runs from top to bottom, headless, on a small budget; what they share is as `execute.py` writes it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra test")
nbclient = pytest.importorskip("nbclient", reason="needs the extra test")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SMALL = {"ANOGAN_NOTEBOOK_EPOCHS": "1", "ANOGAN_NOTEBOOK_STEPS": "1"}
# What a notebook must have printed.
PROMISES = {
    "1_train_and_detect": "same scores: True",
    "2_your_own_images": "wrote report/report.html",
    "3_export_and_serve": "same scores: True",
    "4_inside_anogan": "encoder's start,",
}

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# One of them keeps the promise for all: the others take as long.
run = [pytest.param(path, id=path.stem, marks=[pytest.mark.promise("as written")] * (path.stem[0] == "3")) for path in NOTEBOOKS]


@pytest.fixture(scope="module")
def execute():
    """The module `notebooks/execute.py`."""
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def codes(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    return "".join(output.get("text", "") for cell in codes(notebook) for output in cell.outputs)


@pytest.mark.parametrize("path", run)
def test_runs_from_top_to_bottom(path, tmp_path, monkeypatch, process):
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert all(cell.execution_count for cell in codes(notebook))
    assert PROMISES[path.stem] in printed(notebook)


@each
def test_is_stored_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for cell in codes(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert PROMISES[path.stem] in printed(notebook)
    assert path.stat().st_size < 1_500_000


@each
def test_begins_with_what_all_share(path, execute):
    notebook = nbformat.read(path, as_version=4)
    shared = execute.with_shared_cells(nbformat.read(path, as_version=4), execute.repository(), path.name)
    assert notebook.cells[:2] == shared.cells[:2], "run python notebooks/execute.py"


URL = "https://github.com/somebody/anogan_tf"


def test_badge_opens_the_notebook_in_colab(execute):
    colab = "https://colab.research.google.com/github/somebody/anogan_tf/blob/main/notebooks/a.ipynb"
    assert f"({colab})" in execute.badge(URL, "a.ipynb") and f"({colab})" in execute.badge(f"{URL}.git", "a.ipynb")
    assert execute.badge("", "a.ipynb") == execute.badge("https://elsewhere.org/a", "a.ipynb") == ""


def test_readme_lists_them(execute):
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert execute.with_list(readme, execute.repository()) == readme, "run python notebooks/execute.py"
    assert readme.count("(notebooks/") == len(NOTEBOOKS)
    assert execute.with_list(readme, URL).count("colab-badge.svg") == len(NOTEBOOKS)


@pytest.fixture
def install(execute, tmp_path, monkeypatch):
    """Runs the first cell in an empty folder as if the package weren't there; gives what pip was told."""
    told = []
    monkeypatch.chdir(tmp_path)
    real = importlib.metadata.distributions

    def missing(name):
        return iter(()) if name == "anogan_tf" else real(name=name)

    monkeypatch.setattr(importlib.metadata, "distributions", missing)
    monkeypatch.setattr(subprocess, "run", lambda command, check: told.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(url=""):
        exec(compile(execute.install_cell(url), "the first cell", "exec"), {})
        command = told.pop()
        assert command[:5] == [sys.executable, "-m", "pip", "install", "--quiet"]
        return command[5:]

    return run


def test_installs_from_the_clone_in_place(install, tmp_path, monkeypatch):
    (tmp_path / "anogan_tf").mkdir()
    (tmp_path / "anogan_tf" / "__init__.py").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert install(URL)[:2] == ["--editable", str(tmp_path)]
    assert sys.path[0] == str(tmp_path)


def test_installs_from_the_repository_elsewhere(install):
    assert install(URL)[0] == f"git+{URL}"


def test_installs_from_an_archive_while_there_is_no_repository(install, tmp_path):
    with pytest.raises(FileNotFoundError, match="Put an archive"):
        install()
    (tmp_path / "anogan_tf-notes.txt").touch()
    (tmp_path / "anogan_tf-main.zip").touch()
    assert install()[0] == str(tmp_path / "anogan_tf-main.zip")


def test_leaves_tensorflow_as_it_is_and_names_no_package_of_an_index(install):
    what, *pins = install(URL)
    assert pins == [f"{name}=={importlib.metadata.version(name)}" for name in ("tensorflow", "keras", "numpy")]

"""Run the notebooks from top to bottom and store them with what came out: `python notebooks/execute.py [NOTEBOOK ...]`.

What all of them share is written here: the first cell, which installs the package, and the badge that opens them in Colab, there and in
the README. Both take the repository's address from `url` in setup.cfg; while it is empty there is no badge, and the cell asks for an archive.
"""

import configparser
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent
INSTALL = """\
# Installs anogan_tf where it is missing: from the clone this notebook lies in, else from {origin}.
import importlib.metadata
import pathlib
import subprocess
import sys

REPOSITORY = "{url}"

if not any(importlib.metadata.distributions(name="anogan_tf")):
    here = pathlib.Path.cwd()
    clone = next((folder for folder in (here, *here.parents) if (folder / "anogan_tf" / "__init__.py").exists()), None)
    if clone:
        what = ["--editable", str(clone)]
        sys.path.insert(0, str(clone))
    elif REPOSITORY:
        what = ["git+" + REPOSITORY]
    else:
        archives = [path for ending in ("zip", "whl", "tar.gz") for path in here.glob(f"anogan_tf*.{{ending}}")]
        what = [str(max(archives, key=lambda path: path.stat().st_mtime))] if archives else []
        if not what and "google.colab" in sys.modules:
            from google.colab import files

            what = list(files.upload())[:1]
        if not what:
            raise FileNotFoundError("Put an archive of the repository, anogan_tf*.zip, beside this notebook.")
    installed = {{name: next(importlib.metadata.distributions(name=name), None) for name in ("tensorflow", "keras", "numpy")}}
    as_they_are = [f"{{name}}=={{found.version}}" for name, found in installed.items() if found]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *what, *as_they_are], check=True)
    importlib.invalidate_caches()
"""
ARCHIVE = "an archive of the repository (anogan_tf*.zip, .whl or .tar.gz) beside it or uploaded"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"
COLAB = "https://colab.research.google.com/github"
FIRST, LAST = "<!-- notebooks -->\n", "<!-- end of notebooks -->\n"  # the README's list stands between them


def repository():
    """The repository's address, as setup.cfg says it; "" if it doesn't."""
    settings = configparser.ConfigParser()
    settings.read(NOTEBOOKS.parent / "setup.cfg", encoding="utf-8")
    return settings.get("metadata", "url", fallback="").strip().rstrip("/")


def install_cell(url):
    """The first cell's code."""
    return INSTALL.format(url=url, origin=url or ARCHIVE).rstrip()


def badge(url, name):
    """Markdown that opens a notebook in Colab, which knows GitHub's addresses; "" for others."""
    host, _, project = url.removeprefix("https://").partition("/")
    if host != "github.com":
        return ""
    return BADGE.format(address=f"{COLAB}/{project.removesuffix('.git')}/blob/main/notebooks/{name}")


def with_shared_cells(notebook, url, name):
    """Write the badge above a notebook's title, and its first cell of code."""
    title, install = notebook.cells[:2]
    if install.source and not install.source.startswith(INSTALL[:20]):
        raise ValueError(f"The second cell of {name} doesn't install the package; put an empty one there.")
    title.source = f"{badge(url, name)}\n\n{title.source[title.source.index('# ') :]}".lstrip()
    install.source = install_cell(url)
    return notebook


def with_list(readme, url):
    """The README's text with its list of notebooks."""
    if FIRST not in readme or LAST not in readme:
        raise ValueError(f"The README's list of notebooks stands between {FIRST.strip()} and {LAST.strip()}; they are missing.")
    before, _, rest = readme.partition(FIRST)
    lines = []
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        title = nbformat.read(path, as_version=4).cells[0].source.partition("# ")[2].partition("\n")[0]
        lines.append(f"- [{title}](notebooks/{path.name}) {badge(url, path.name)}".rstrip() + "\n")
    return "".join([before, FIRST, *lines, LAST, rest.partition(LAST)[2]])


def execute(path, url):
    """Run one notebook in an empty folder and store it."""
    notebook = with_shared_cells(nbformat.read(path, as_version=4), url, path.name)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which differ with every run
        if cell.cell_type == "code":  # what TensorFlow logs of the machine belongs to the machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    # A stored notebook has its full budget, whatever the shell says.
    for name in [name for name in os.environ if name.startswith("ANOGAN_NOTEBOOK_")]:
        del os.environ[name]
    if repository() and not badge(repository(), ""):
        print(f"No badges: Colab opens notebooks from https://github.com/, not from {repository()}, the url in setup.cfg.")
    page = NOTEBOOKS.parent / "README.md"
    page.write_text(with_list(page.read_text(encoding="utf-8"), repository()), encoding="utf-8")
    for path in map(Path, sys.argv[1:] or sorted(NOTEBOOKS.glob("*.ipynb"))):
        print(path.name, flush=True)
        execute(path, repository())

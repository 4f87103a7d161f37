"""The pages of `docs/`: they build without a warning, and what they tell people to type is possible."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

import anogan_tf
from anogan_tf.cli.app import app
from anogan_tf.workflows import parts, train

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "export" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# In the order of a reader: later ones use what earlier ones have made.
STORY = ("quickstart", "choices", "data", "evaluation", "serving")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def test_they_build_without_a_warning(tmp_path, process):
    pytest.importorskip("sphinx", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "--fpr" in (tmp_path / "cli.html").read_text()


def test_every_public_name_has_its_entry():
    text = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in anogan_tf.__all__ if f":: anogan_tf.{name}\n" not in text] == []


def commands():
    for page in PAGES:
        for block in (*blocks(page, "shell"), *blocks(page, "")):
            for line in block.splitlines():
                if line.startswith("anogan ") and "..." not in line:
                    yield pytest.param(line, id=f"{page.parent.name}/{page.name}: {line[:50]}")


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_takes_its_arguments(line):
    command, words = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("anogan", words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_between_files_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).exists(), target


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, boots):
    """A folder as the pages have it, with pictures so small that training takes seconds."""
    folder = tmp_path_factory.mktemp("docs")
    for name, pixels in (
        ("parts/good", boots.train[:110]),
        ("tested/good", boots.test[:12]),
        ("tested/scratched", boots.test[306:318]),
        ("incoming", boots.test[300:306]),
    ):
        (folder / name).mkdir(parents=True)
        for number, picture in enumerate(pixels):
            Image.fromarray(picture[..., 0]).resize((40, 40)).save(folder / name / f"{number:03}.png")
    return folder


@pytest.mark.usefixtures("networks")
@pytest.mark.promise("as written")
def test_the_python_on_the_pages_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    few = {parts: ("EPOCHS", "MIN_STEPS", "SCENES"), train: ("TILE_EPOCHS", "JOINT_EPOCHS", "STEPS")}
    for room, name in ((room, name) for room, names in few.items() for name in names):
        monkeypatch.setattr(room, name, 1)
    monkeypatch.setattr(train, "TILES", 100)
    (workplace / "parts.train").mkdir()
    held_out = sorted((workplace / "parts" / "good").iterdir())[:50]
    (workplace / "parts.train" / "held_out.txt").write_text("\n".join(map(str, held_out)))
    assert blocks(ROOT / "README.md", "python")[0] in blocks(ROOT / "docs" / "quickstart.md", "python")
    names = {}
    for page in STORY:
        for code in blocks(ROOT / "docs" / f"{page}.md", "python"):
            small = re.sub(r"epochs=\d+", "epochs=1", code).replace("(64, 64, 1)", "(16, 16, 1)").replace("(32, 32", "(16, 16")
            small = small.replace("stride=16", "stride=8").replace("patch=32", "patch=16")
            exec(compile(small, f"docs/{page}.md", "exec"), names)
    assert names["heat"][0].shape == (16, 16) and (workplace / "eval3" / "report.html").exists()
    assert len(names["out"]["score"]) == 1 and (workplace / "serving" / "parts" / "1").is_dir()
    shutil.rmtree(workplace / "serving")

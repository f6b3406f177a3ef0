"""The wheel and the sdist have everything; what is installed works without the checkout."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# The smallest run that goes through every part of one.
SHORT = (
    *("--name", "short", "--training.epochs", "1", "--training.batch", "500"),
    *("--calibration", "200", "--start", "nearest", "--roundings", "--batch", "64"),
    *("--constants.generations", "1", "--constants.search.population", "8"),
    *("--weights.generations", "2", "--weights.search.population", "8", "--scan-length", "1"),
)

pytestmark = pytest.mark.slow


def said(*command: object, cwd: pathlib.Path, **variables: str) -> str:
    """The output of a command that must succeed, which sees neither the checkout nor data sets."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "QEVO_DATA_DIR")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fresh(place: pathlib.Path, *requirements: object) -> pathlib.Path:
    """The programs of a new environment that has these and what they depend on."""
    said(sys.executable, "-m", "venv", place, cwd=place.parent)
    programs = place / "bin"
    command = (programs / "python", "-m", "pip", "install", "--quiet")
    said(*command, *requirements, cwd=place.parent)
    return programs


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the wheel, and the sdist unpacked with the wheel made from it."""
    folder = tmp_path_factory.mktemp("built")
    python = fresh(folder / "builder", "build") / "python"
    said(python, "-m", "build", "--sdist", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    said(python, "-m", "build", "--wheel", "--outdir", folder / "again", source, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: pathlib.Path) -> pathlib.Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="asks git for what belongs to it")
def test_it_holds_the_package_and_nothing_else(wheel: pathlib.Path) -> None:
    wanted = set(said("git", "ls-files", "qevo", cwd=ROOT).split())
    assert {"qevo/py.typed", "qevo/cli.py"} <= wanted
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert wanted <= names
    assert all(name.startswith("qevo/") for name in names)
    assert wheel.stat().st_size < 7 << 20


def test_the_sdist_makes_the_same_wheel(built: pathlib.Path, wheel: pathlib.Path) -> None:
    files = []
    for path in (wheel, built / "again" / wheel.name):
        with zipfile.ZipFile(path) as archive:
            files.append({info.filename: info.CRC for info in archive.infolist()})
    assert files[0] == files[1]


def test_the_sdist_holds_what_its_tests_read(built: pathlib.Path) -> None:
    """All of them are found, and those on documents, contracts and scripts pass."""
    (source,) = (built / "unpacked").iterdir()
    chosen = "(test_readme or test_docs or test_layering or test_cfg_files) and not blocks"
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen)
    assert " passed" in said(*command, cwd=source, PYTHONPATH=str(source))


def test_what_is_installed_runs_elsewhere(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With the packages that it names as its dependencies, and no others."""
    programs = fresh(tmp_path / "installed", wheel)

    def run(program: str, *words: object) -> str:
        cache = str(tmp_path / "cache")
        return said(programs / program, *words, cwd=tmp_path, XDG_CACHE_HOME=cache)

    run("python", "-m", "pip", "check")
    place = run("python", "-c", "import qevo; print(qevo.__file__)")
    assert place.startswith(str(tmp_path / "installed"))
    assert "fashion_mnist_small: 10,000 + 2,000 images" in run("qevo", "doctor", "--json")
    run("qevo", "train", *SHORT)
    folder = tmp_path / "runs" / "short"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    accuracy = result["accuracy"]["evolved"]["test"]
    network = folder / "network.safetensors"
    assert f"test       {100 * accuracy:.2f} %" in run("qevo", "evaluate", network)

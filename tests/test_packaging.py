"""The wheel has everything, and what is installed from it works without the checkout."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_the_package_and_nothing_else(wheel: pathlib.Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "qevo"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    wanted = set(listed.stdout.split())
    assert {"qevo/py.typed", "qevo/cli.py"} <= wanted
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert wanted <= names
    assert all(name.startswith("qevo/") for name in names)
    assert wheel.stat().st_size < 7 << 20


def test_what_is_installed_runs_elsewhere(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(place), str(wheel)], check=True)
    environment = {k: v for k, v in os.environ.items() if k != "QEVO_DATA_DIR"}
    environment |= {"PYTHONPATH": str(place), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(place) in run("-c", "import qevo; print(qevo.__file__)")
    assert "fashion_mnist_small: 10,000 + 2,000 images" in run("-m", "qevo", "doctor", "--json")

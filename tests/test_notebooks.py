"""The notebooks run from a clean kernel, draw, and are kept without what they printed."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONG = (  # a minute or more each
    "01_evolve_a_ternary_network",
    "02_compress_a_network",
    "04_bring_your_own_network",
)
FIGURES = {  # the least that each draws
    "01_evolve_a_ternary_network": 5,
    "02_compress_a_network": 3,
    "03_your_own_discrete_problem": 3,
    "04_bring_your_own_network": 3,
}


def read(path: pathlib.Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_are_here() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(FIGURES)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem in LONG else [], id=path.stem)
        for path in NOTEBOOKS
    ],
)
def test_runs_from_a_clean_kernel(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cell fails or warns, and the figures are there."""
    monkeypatch.setenv("XLA_FLAGS", "")  # it computes more than it compiles
    notebook = read(path)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    said = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")
    assert not said
    figures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(figures) >= FIGURES[path.stem]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_clean_and_starts_by_installing(path: pathlib.Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in code(notebook))
    first = code(notebook)[0].source
    assert first == code(read(NOTEBOOKS[0]))[0].source
    assert 'find_spec("qevo") is None' in first
    assert "%pip install" in first


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_uses_no_private_name(path: pathlib.Path) -> None:
    source = "\n".join(cell.source for cell in code(read(path)))
    assert not re.findall(r"\bqevo[\w.]*\._(?!_)\w+|import _\w+", source)

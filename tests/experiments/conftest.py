"""The scripts can be imported as they import each other."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.syspath_prepend(str(FOLDER))
    return FOLDER

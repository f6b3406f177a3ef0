"""What the documents' tables say is what the records say."""

import json
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RECORD = re.compile(r"\((?:\.\./)?(results/\w+\.json)\)")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
FIGURE = re.compile(r"(?<![\w.,±])(?<!± )\d+\.\d\d(?![\d.])")  # in percent, but no deviations
UNITS = (1.0, 100.0, 1000.0)  # of a record's number in a table: itself, percent, thousandths


def numbers_of(part: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a record, with where they stand; items of a list stand in one place."""
    if isinstance(part, dict):
        for name, inner in part.items():
            yield from numbers_of(inner, f"{path}/{name}")
    elif isinstance(part, list):
        for inner in part:
            yield from numbers_of(inner, path)
    elif isinstance(part, float):
        yield path, part


def values_of(record: str) -> list[float]:
    """The numbers of a record, and the means of those in one place."""
    places = defaultdict[str, list[float]](list)
    for path, value in numbers_of(json.loads((ROOT / record).read_text(encoding="utf-8"))):
        places[path].append(value)
    singles = [value for values in places.values() for value in values]
    return singles + [sum(values) / len(values) for values in places.values()]


def unknown(figures: str, records: list[str]) -> list[str]:
    """The figures of a text that no record has when it is rounded."""
    values = [unit * value for record in records for value in values_of(record) for unit in UNITS]
    known = {f"{value:.2f}" for value in values}
    return [figure for figure in FIGURE.findall(LINK.sub("", figures)) if figure not in known]


def test_figures_of_the_readme_are_in_the_records_that_their_rows_link() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and RECORD.search(line)]
    assert len(rows) > 5
    assert {row: unknown(row, RECORD.findall(row)) for row in rows} == {row: [] for row in rows}


SECTIONS = {
    part.splitlines()[0].removeprefix("## "): part
    for part in re.split(
        r"^(?=## )", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), flags=re.M
    )
    if RECORD.search(part) and any(map(FIGURE.search, re.findall(r"^\|.*", part, flags=re.M)))
}


@pytest.mark.parametrize("title", SECTIONS)
def test_figures_of_tables_are_in_the_records_that_their_section_links(title: str) -> None:
    records = RECORD.findall(SECTIONS[title])
    rows = re.findall(r"^\|.*", SECTIONS[title], flags=re.M)
    assert {row: found for row in rows if (found := unknown(row, records))} == {}

"""The page of a report: one file, without scripts, that asks nobody for anything."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from typing import Any

from qevo.report.html import Column, Html, Record, element, join, note, safe, section, table
from qevo.report.sections import curve_charts, missing, run_sections
from qevo.report.table import METHODS

_COLORS = 8  # of runs, in the style
_LONG = 60  # letters, too many for a heading


def render_page(report: Mapping[str, Any]) -> str:
    """What report.json holds as one HTML page."""
    record = Record(report)
    runs = list(record.at("runs"))
    names = ", ".join(run.value["name"] for run in runs)
    style = importlib.resources.files("qevo.report").joinpath("page.css").read_text("utf-8")
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        element("meta", attributes={"name": "viewport", "content": "width=device-width"}),
        element("title", f"qevo: {names}"),
        element("style", Html(style)),
    )
    title = names if len(names) < _LONG else f"{len(runs)} runs"
    body = element(
        "body",
        element("header", element("p", "qevo report", css="kind"), element("h1", title)),
        element("main", *(_several(record, runs) if len(runs) > 1 else _one(runs[0]))),
        element("footer", f"qevo {report['qevo']}, {report['made']}"),
    )
    page = element("html", head, body, attributes={"lang": "en"})
    return f"<!doctype html>\n{page}\n"


def _one(run: Record) -> list[Html]:
    return [element("article", run_sections(run))]


def _several(record: Record, runs: list[Record]) -> list[Html]:
    """The runs side by side, then each on its own."""
    each = [
        element(
            "details",
            element("summary", _swatch(place), run.value["name"]),
            element("article", run_sections(run)),
            css="run",
            attributes={"id": f"run-{place + 1}"},
        )
        for place, run in enumerate(runs)
    ]
    return [
        element("article", _comparison(record, runs), _together(runs)),
        element("h2", "Each run"),
        *each,
    ]


def _comparison(record: Record, runs: list[Record]) -> Html:
    """One row a run, one column a method, and the spread of runs that differ in their seed."""
    known = [m for m in METHODS if any(m in (run.value["accuracy"] or {}) for run in runs)]

    def test(run: Record, method: str) -> Html:
        found = (run.value["accuracy"] or {}).get(method)
        return run.at("accuracy", method, "test").show("percent") if found else safe("–")

    def size(run: Record, key: str, kind: Any) -> Html:
        return run.at("size", key).show(kind) if run.value["size"] else safe("–")

    def validation(run: Record) -> Html:
        found = run.get("accuracy")
        return found.at("evolved", "validation").show("percent") if found else safe("–")

    columns = [
        Column("run", lambda run: _name(runs.index(run), run), number=False),
        Column("bits", lambda run: safe(run.value["bits"]), number=False),
        Column("seed", lambda run: run.at("seed").show()),
        *(Column(METHODS[m], lambda run, m=m: test(run, m)) for m in known),
        Column("evolved, validation", validation),
        Column("file, bytes", lambda run: size(run, "file", "count")),
        Column("smaller", lambda run: size(run, "ratio", "factor")),
    ]
    said = "Accuracy in %, on test images where not said otherwise."
    parts = [table(columns, runs, css="wide"), note(said)]
    if record.value["spreads"]:
        parts.append(_spreads(record.at("spreads"), known))
    parts += [
        join([element("p", element("b", run.value["name"])), lacks])
        for run in runs
        if (lacks := missing(run, "accuracy"))
    ]
    return section("Side by side", *parts)


def _spreads(spreads: Record, known: list[str]) -> Html:
    """Mean and standard deviation of runs that differ in their seed alone."""

    def test(group: Record, method: str) -> Html:
        found = method in group.value["accuracy"]
        return _mean(group.at("accuracy", method, "test")) if found else safe("–")

    columns = [
        Column("runs", lambda group: ", ".join(group.value["runs"]), number=False),
        *(Column(METHODS[m], lambda group, m=m: test(group, m)) for m in known),
    ]
    said = "Test accuracy in %, mean ± standard deviation of runs that differ in their seed alone."
    return join([table(columns, spreads, css="wide"), note(said)])


def _mean(spread: Record) -> Html:
    mean, deviation = (spread.at(key).show("percent") for key in ("mean", "deviation"))
    return join([mean, " ± ", deviation])


def _together(runs: list[Record]) -> Html:
    curves = [
        (run.value["name"], f"r{place % _COLORS}", run.at("curve"))
        for place, run in enumerate(runs)
        if run.value["curve"]
    ]
    if not curves:
        return Html()
    return section("Search", curve_charts(curves))


def _name(place: int, run: Record) -> Html:
    link = element("a", run.value["name"], attributes={"href": f"#run-{place + 1}"})
    return join([_swatch(place), link])


def _swatch(place: int) -> Html:
    return element("i", css=f"swatch r{place % _COLORS}")

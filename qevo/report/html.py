"""HTML that is safe by construction: text is escaped, and numbers come from a record."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

VOID = frozenset({"img", "meta"})

Format = Literal["percent", "count", "seconds", "milli", "factor", "bits"]


class Html(str):
    """Text that is HTML already; any other string is escaped on its way into an element."""


def element(
    name: str, *children: str, css: str = "", attributes: Mapping[str, str] | None = None
) -> Html:
    """One element; ``css`` is its class."""
    given = ({"class": css} if css else {}) | dict(attributes or {})
    start = "".join(f' {key}="{html.escape(value)}"' for key, value in given.items())
    inside = "".join(map(safe, children))
    return Html(f"<{name}{start}>" if name in VOID else f"<{name}{start}>{inside}</{name}>")


def safe(text: str) -> Html:
    """The text as HTML."""
    return text if isinstance(text, Html) else Html(html.escape(text))


def join(parts: Iterable[str]) -> Html:
    """Parts one after the other."""
    return Html("".join(map(safe, parts)))


class Shown(NamedTuple):
    """How a number is written: a factor, the digits, and what follows it."""

    factor: float
    digits: str
    unit: str = ""


_FORMATS: dict[Format, Shown] = {
    "percent": Shown(100, ",.2f"),
    "count": Shown(1, ",.0f"),
    "seconds": Shown(1, ",.1f", " s"),
    "milli": Shown(1000, ",.2f"),
    "factor": Shown(1, ",.1f", "×"),
    "bits": Shown(1, ".2f"),
}


@dataclasses.dataclass(frozen=True)
class Record:
    """A tree of JSON values seen from one place in it.

    What it shows carries its place, as ``<data data-at="runs/0/seed" value="3">``: a page made of
    it holds no number that the JSON beside it does not.
    """

    value: Any
    place: tuple[str | int, ...] = ()

    def at(self, *keys: str | int) -> Record:
        """A part of it."""
        value = self.value
        for key in keys:
            value = value[key]
        return Record(value, (*self.place, *keys))

    def get(self, key: str) -> Record | None:
        """A part of it, or ``None`` where it is absent or null."""
        return None if self.value.get(key) is None else self.at(key)

    def __iter__(self) -> Any:
        """The parts of a list or a mapping, in order."""
        keys: Sequence[Any] = (
            list(self.value) if isinstance(self.value, Mapping) else range(len(self.value))
        )
        return (self.at(key) for key in keys)

    @property
    def name(self) -> str:
        """The last step of its place."""
        return str(self.place[-1])

    def show(self, kind: Format = "count") -> Html:
        """The number for people to read; an empty text for null."""
        if self.value is None:
            return Html()
        factor, digits, unit = _FORMATS[kind]
        text = f"{factor * self.value:{digits}}"
        where = {"value": repr(self.value), "data-at": "/".join(map(str, self.place))}
        return join([element("data", text, attributes=where), unit])


class Column(NamedTuple):
    """A column of a table: its title, what it shows of a row, and whether that is a number."""

    title: str
    show: Callable[[Any], str]
    number: bool = True


def table(
    columns: Sequence[Column],
    rows: Iterable[Any],
    *,
    best: Callable[[Any], bool] | None = None,
    css: str = "",
) -> Html:
    """A table that scrolls sideways where it is too wide; ``best`` says which rows stand out."""
    head = [
        element("th", column.title, css="number" if column.number else "") for column in columns
    ]
    body = []
    for row in rows:
        cells = [
            element(
                "td" if place else "th",
                column.show(row),
                css="number" if column.number else "",
                attributes=None if place else {"scope": "row"},
            )
            for place, column in enumerate(columns)
        ]
        body.append(element("tr", *cells, css="best" if best and best(row) else ""))
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", whole, css=f"scroll {css}".strip(), attributes={"tabindex": "0"})


def section(title: str, *children: str) -> Html:
    """A titled part of the page."""
    return element("section", element("h3", title), *children)


def note(*children: str) -> Html:
    """A remark below something."""
    return element("p", *children, css="note")

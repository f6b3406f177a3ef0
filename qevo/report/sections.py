"""The parts of a report page that speak of one run."""

from __future__ import annotations

import json
from collections.abc import Sequence

from qevo.report.html import (
    Column,
    Html,
    Record,
    element,
    join,
    note,
    safe,
    section,
    table,
)
from qevo.report.svg import Line, histogram, legend, line_chart
from qevo.report.table import METHODS

_MANY = 24  # layers whose histograms are shown; all are in the JSON


def run_sections(run: Record) -> Html:
    """Everything about one run."""
    return join(
        [
            _tiles(run),
            _facts(run),
            _accuracy(run),
            _curves(run),
            _layers(run),
            _levels(run),
            _size(run),
            _examples(run),
            _environment(run),
        ]
    )


def missing(run: Record, *parts: str) -> Html:
    """What is not there, why, and the command that makes it."""
    lines = [
        note(
            element("b", "Not here: "),
            f"{lack['part']}: {lack['why'].rstrip('.')}.",
            *([" Make it with ", element("code", lack["make"]), "."] if lack["make"] else []),
        )
        for lack in run.value["missing"]
        if lack["part"] in parts
    ]
    return join(lines)


def _tiles(run: Record) -> Html:
    """The few numbers that matter most."""
    tiles = []

    def tile(label: str, *shown: str) -> None:
        value = element("strong", *shown)
        tiles.append(element("div", element("span", label), value, css="tile"))

    accuracy, size, curve = run.get("accuracy"), run.get("size"), run.get("curve")
    if accuracy:
        for method, label in (("evolved", "evolved"), ("float", "float teacher")):
            tile(
                f"{label}, test",
                accuracy.at(method, "test").show("percent"),
                element("small", " %"),
            )
    if size:
        tile("smaller than float32", size.at("ratio").show("factor"))
        tile("file", size.at("file").show(), element("small", " bytes"))
    if curve:
        last = curve.at("stages", len(curve.value["stages"]) - 1)
        tile("networks evaluated", last.at("evaluations").show())
        tile("search", last.at("seconds").show("seconds"))
    return element("div", *tiles, css="tiles") if tiles else Html()


def _facts(run: Record) -> Html:
    """What was run, in a sentence or two."""
    value = run.value
    state = element("span", value["state"], css=f"state {value['state']}")
    images = run.get("images")
    counts = [join([part.show(), f" {part.name}"]) for part in images] if images else []
    return element(
        "p",
        state,
        " ",
        element("b", value["network"]),
        f" on {value['source'] or value['data']}; weights {value['bits']}, activations ",
        run.at("activation_bits").show(),
        " bit, seed ",
        run.at("seed").show(),
        "; ",
        run.at("generations").show(),
        " of ",
        run.at("planned").show(),
        " generations",
        *(["; images: ", _listed(counts)] if counts else []),
        ".",
    )


def _listed(parts: Sequence[Html]) -> Html:
    return join(part for at, p in enumerate(parts) for part in ([", ", p] if at else [p]))


def _accuracy(run: Record) -> Html:
    """Every method on validation and test images, with bars."""
    found = run.get("accuracy")
    if found is None:
        return section("Accuracy", missing(run, "accuracy"))
    known = [name for name in METHODS if name in found.value]
    tests = [found.value[name]["test"] for name in known]
    least, most = min(tests), max(tests)
    floor = max(0.0, least - 0.3 * (most - least) - 0.005)

    def bar(name: str) -> Html:
        share = (found.value[name]["test"] - floor) / max(most - floor, 1e-9)
        width = {"style": f"width: {100 * share:.1f}%"}
        return element("span", element("i", css=f"m-{name}", attributes=width), css="bar")

    columns = [
        Column("network", lambda name: METHODS[name], number=False),
        Column("validation, %", lambda name: found.at(name, "validation").show("percent")),
        Column("test, %", lambda name: found.at(name, "test").show("percent")),
        Column("", bar, number=False),
    ]
    shown = table(columns, known, best=lambda name: name == "evolved")
    said = "Bars show test accuracy and do not start at zero. The search saw no test image."
    return section("Accuracy", shown, note(said))


def _curves(run: Record) -> Html:
    """Accuracy and loss over evaluations and seconds."""
    curve, accuracy = run.get("curve"), run.get("accuracy")
    if curve is None:
        return section("Search", missing(run, "curve"))
    levels = []
    if accuracy:
        for method in dict.fromkeys(("float", run.value["start"])):
            level = 100 * accuracy.value[method]["validation"]
            levels.append(Line(METHODS[method], f"m-{method}", [], [level]))
    return section(
        "Search",
        curve_charts([("validation", "m-evolved", curve)], levels),
        note(
            "Accuracy and loss are those of the search's current network on the validation images."
            " Vertical lines end a stage: constants, then weights. Seconds are those of each"
            " stage, compilation not counted, shared evenly among its generations."
        ),
    )


def curve_charts(curves: Sequence[tuple[str, str, Record]], levels: Sequence[Line] = ()) -> Html:
    """Validation accuracy over evaluations and over seconds, and the loss.

    Args:
      curves: label, CSS class and curve of each run.
      levels: accuracies to compare with.
    """
    charts = []
    for what, over, title, axis in (
        ("accuracy", "evaluations", "validation accuracy, %", "networks evaluated"),
        ("accuracy", "seconds", "validation accuracy, %", "seconds of search"),
        ("loss", "evaluations", "validation loss, nats", "networks evaluated"),
    ):
        scale = 100 if what == "accuracy" else 1
        lines = [
            Line(label, css, curve.value[over], [scale * y for y in curve.value[what]])
            for label, css, curve in curves
        ]
        marks = [stage[over] for stage in curves[0][2].value["stages"][:-1]]
        drawn = line_chart(
            lines,
            x=axis,
            y=title,
            levels=levels if what == "accuracy" else (),
            marks=marks if len(curves) == 1 else (),
        )
        charts.append(element("figure", element("figcaption", title), drawn))
    keys = [Line(label, css, [], []) for label, css, _ in curves]
    return join([legend([*keys, *levels]), element("div", *charts, css="charts")])


def _layers(run: Record) -> Html:
    """A row for every layer."""
    layers = run.get("layers")
    if layers is None:
        return section("Layers", missing(run, "start", "network"))
    searched = run.value["state"] == "finished"
    columns = [
        Column("layer", lambda layer: safe(layer.value["name"]), number=False),
        Column("weights", lambda layer: layer.at("weights").show()),
        Column("bits", _bits),
        Column("zeros, %", lambda layer: layer.at("zeros").show("percent")),
        Column("changed, %", lambda layer: layer.at("changed").show("percent")),
        Column("constants changed, %", lambda row: row.at("constants_changed").show("percent")),
    ]
    optional = (
        ("confidence, %", "confidence", "percent"),
        ("sensitivity, mnat", "sensitivity", "milli"),
    )
    for title, key, kind in optional:
        if any(layer[key] is not None for layer in layers.value):
            columns.append(Column(title, lambda row, k=key, f=kind: row.at(k).show(f)))
    columns += [
        Column("coded bytes", lambda layer: layer.at("bytes").show()),
        Column("bits per weight", lambda layer: layer.at("bits_per_weight").show("bits")),
    ]
    whose = "" if searched else " The network is the one accepted at the latest checkpoint."
    return section(
        "Layers",
        table(columns, layers),
        note(
            "Changed: weights that the search moved away from ",
            METHODS[run.value["start"]],
            "; constants are multipliers and biases. Confidence: mean mass of the tables of the"
            " search on the level they settled on. Sensitivity: divergence of the float network's"
            f" classes if this layer alone is rounded.{whose}",
        ),
        missing(run, "confidence", "sensitivity"),
    )


def _bits(layer: Record) -> Html:
    bits = layer.at("bits")
    return safe(bits.value) if isinstance(bits.value, str) else bits.show()


def _levels(run: Record) -> Html:
    """A histogram for every layer."""
    layers = run.get("layers")
    if layers is None:
        return Html()
    charts = []
    for layer in list(layers)[:_MANY]:
        name, levels = layer.value["name"], layer.value["levels"]
        drawn = histogram(
            levels["low"], levels["counts"], levels["before"], label=f"levels of {name}"
        )
        charts.append(element("figure", element("figcaption", name), drawn))
    more = len(layers.value) - len(charts)
    rest = f" {more} more layers are in the JSON." if more else ""
    return section(
        "Levels",
        element("div", *charts, css="histograms"),
        note(f"How many weights have each level; lines: before the search.{rest}"),
    )


def _size(run: Record) -> Html:
    """Where the bytes are, and how few they have become."""
    size = run.get("size")
    if size is None:
        return Html()
    value = size.value
    most = value["float32"]

    def bar(row: tuple[str, str]) -> Html:
        width = {"style": f"width: {max(100 * value[row[1]] / most, 0.3):.2f}%"}
        return element("span", element("i", css="m-evolved", attributes=width), css="bar")

    rows = [
        ("float32 parameters", "float32"),
        ("weights, packed side by side", "packed_weights"),
        ("weights, entropy coded", "coded_weights"),
        ("multipliers, biases, shifts", "constants"),
        ("header and scales", "header"),
        ("whole .qevo file", "file"),
    ]
    columns = [
        Column("part", lambda row: safe(row[0]), number=False),
        Column("bytes", lambda row: size.at(row[1]).show()),
        Column("", bar, number=False),
    ]
    return section(
        "Size",
        table(columns, rows, best=lambda row: row[1] == "file"),
        note(
            size.at("parameters").show(),
            " float32 parameters take ",
            size.at("ratio").show("factor"),
            " the bytes of the file, header and constants included; ",
            size.at("zeros").show("percent"),
            " % of the weights are zero. Write the file with ",
            element("code", f"qevo compress {run.value['folder']}/network.safetensors"),
            ".",
        ),
    )


def _examples(run: Record) -> Html:
    """Images on which the float and the integer network disagree."""
    examples = run.get("examples")
    title = "Where the networks disagree"
    if examples is None:
        return section(title, missing(run, "images", "examples", "network", "start"))
    cards = [_card(example) for example in examples.at("shown")]
    return section(
        title,
        element(
            "p",
            "On ",
            examples.at("differ").show(),
            " of ",
            examples.at("images").show(),
            " validation images; there the float network is right on ",
            examples.at("float_right").show(),
            ", the integer network on ",
            examples.at("integer_right").show(),
            ". The first of them:",
        ),
        element("div", *cards, css="cards"),
    )


def _card(example: Record) -> Html:
    value = example.value
    picture = element(
        "img",
        attributes={
            "src": f"data:image/png;base64,{value['png']}",
            "alt": f"validation image {value['index']}, {value['label']}",
        },
    )
    lines = [element("b", value["label"])]
    for network in ("float", "integer"):
        css = "right" if value[f"{network}_right"] else "wrong"
        mark = "✓" if css == "right" else "✗"
        lines.append(element("span", f"{mark} {network}: {value[network]}", css=css))
    return element("figure", picture, element("figcaption", *lines), css="card")


def _doing(what: str) -> str:
    """What seconds were spent on: a rounding, a stage such as 2_weights, or another thing."""
    number, _, genes = what.partition("_")
    return f"search of {genes}" if number.isdecimal() else METHODS.get(what, what)


def _environment(run: Record) -> Html:
    """How to run it again, and where it ran."""
    environment, seconds = run.at("environment"), run.get("seconds")
    rows = []

    def row(label: str, *shown: str) -> None:
        rows.append(element("div", element("dt", label), element("dd", *shown)))

    versions = environment.value["versions"] or {}
    if versions:
        row("versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    for label, key in (
        ("device", "device"),
        ("commit", "commit"),
        ("network, SHA-256", "network_sha256"),
    ):
        if environment.value[key]:
            row(label, str(environment.value[key]))
    if environment.value["peak_memory_bytes"] is not None:
        row("peak memory", environment.at("peak_memory_bytes").show(), " bytes")
    if seconds:
        spent = [join([_doing(part.name), " ", part.show("seconds")]) for part in seconds]
        row("time", _listed(spent))
    settings = json.dumps(run.value["settings"], indent=2)
    return section(
        "Command and environment",
        element("pre", element("code", run.value["command"])),
        element("dl", *rows) if rows else Html(),
        element(
            "details", element("summary", "all settings"), element("pre", settings), css="settings"
        ),
    )

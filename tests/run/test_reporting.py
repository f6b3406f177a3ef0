"""`qevo report`: the page is whole, true to its JSON, and asks nobody for anything."""

from __future__ import annotations

import dataclasses
import fcntl
import html.parser
import json
import pathlib
import re
import shlex
import shutil
import subprocess
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
from PIL import Image
from support import records

import qevo
from qevo import cli
from qevo.errors import QevoError
from qevo.report.html import VOID
from qevo.report.page import render_page
from qevo.run import folder as files
from qevo.run.claim import LOCK
from qevo.run.command import command_line
from qevo.run.config import RefineConfig, ShiftStageConfig, StageConfig
from qevo.run.reporting import ReportConfig, report
from qevo.run.so_far import network_so_far

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Number(NamedTuple):
    """A number as the page shows it."""

    place: str
    value: str
    text: str
    unit: str  # the title of its column, or what follows it


class Page(html.parser.HTMLParser):
    """Checks that every element ends where it should; keeps the text and the numbers."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: set[str] = set()  # all that there were
        self.words: list[str] = []
        self.numbers: list[Number] = []
        self.loose: list[str] = []  # digits in a cell for numbers, but outside of <data>
        self.titles: list[str] = []  # of the columns of this table
        self.column = 0
        self.feed(source)
        self.close()
        assert self.open == []

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def within(self, *tags: str) -> bool:
        return any(tag in tags for tag, _ in self.open)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "table":
            self.titles = []
        elif tag == "tr":
            self.column = -1
        elif tag in ("th", "td"):
            self.column += 1
            self.titles += [""] if self.within("thead") else []
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        follows = bool(self.numbers) and self.words[-1] == self.numbers[-1].text
        if follows and not self.numbers[-1].unit:
            self.numbers[-1] = self.numbers[-1]._replace(unit=data)
        self.words.append(data)
        if not self.open:
            return
        tag, attributes = self.open[-1]
        if tag == "data":
            place, value = attributes["data-at"], attributes["value"]
            assert place
            assert value
            unit = self.titles[self.column] if self.within("td") else ""
            self.numbers.append(Number(place, value, data, unit))
        elif tag == "th" and self.within("thead"):
            self.titles[-1] += data
        elif tag == "td" and attributes.get("class") == "number" and re.search(r"\d", data):
            self.loose.append(data)


def value_at(tree: Any, place: str) -> Any:
    for step in place.split("/"):
        tree = tree[int(step) if isinstance(tree, list) else step]
    return tree


class Written(NamedTuple):
    """A report that was written: where, its page, and its JSON."""

    path: pathlib.Path
    source: str
    facts: dict[str, Any]

    @classmethod
    def of(cls, *folders: pathlib.Path, output: pathlib.Path | None = None) -> Written:
        path = report(ReportConfig(folders, output))
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return cls(path, path.read_text(encoding="utf-8"), facts)


@pytest.fixture(scope="module")
def written(finished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The report on a finished run."""
    return Written.of(finished, output=tmp_path_factory.mktemp("report") / "page.html")


def test_every_number_is_that_of_the_json(written: Written) -> None:
    page = Page(written.source)
    assert page.loose == []
    assert len(page.numbers) > 60
    for number in page.numbers:
        known = value_at(written.facts, number.place)
        assert repr(known) == number.value
        shown, digits = float(number.text.replace(",", "")), number.text.partition(".")[2]
        scale = 100 if "%" in number.unit else 1000 if "mnat" in number.unit else 1
        assert abs(scale * known - shown) <= 0.5 * 10.0 ** -len(digits) + 1e-9, number


def test_the_numbers_are_those_of_the_run(written: Written, finished: pathlib.Path) -> None:
    (run,) = written.facts["runs"]
    result = files.read_json(finished / files.RESULT)
    assert run["accuracy"] == result["accuracy"]
    assert run["environment"]["network_sha256"] == result["network_sha256"]
    network = qevo.load(finished / files.NETWORK)
    start = qevo.load(finished / "nearest.safetensors")
    for layer in run["layers"]:
        weights = np.asarray(network.weights[layer["name"]])
        found = layer["levels"]
        for place, count in enumerate(found["counts"]):
            assert count == np.sum(weights == found["low"] + place)
        assert layer["zeros"] == np.mean(weights == 0)
        assert layer["changed"] == np.mean(weights != np.asarray(start.weights[layer["name"]]))
        assert 0.5 < layer["confidence"] <= 1
    coded = finished.parent / "coded.qevo"
    assert tiny.exit_code("compress", finished / files.NETWORK, "-o", coded) == 0
    # The run's own .qevo also holds what it was measured at.
    assert 0 <= coded.stat().st_size - run["size"]["file"] < 120


def test_the_curve_is_that_of_the_logs(written: Written, finished: pathlib.Path) -> None:
    (run,) = written.facts["runs"]
    curve = run["curve"]
    result = files.read_json(finished / files.RESULT)
    assert curve["evaluations"] == [16 * generation for generation in range(5, 31, 5)]
    spent = sum(result["seconds"][stage] for stage in ("1_constants", "2_weights"))
    assert curve["seconds"][-1] == pytest.approx(spent)
    assert curve["stages"][-1]["evaluations"] == result["evaluations"]
    last = records(finished / "2_weights")[-1]
    right = run["images"]["validation"] - last["validation_errors"]
    assert curve["accuracy"][-1] == pytest.approx(right / run["images"]["validation"])


def test_the_networks_disagree_where_it_says(written: Written) -> None:
    (run,) = written.facts["runs"]
    examples = run["examples"]
    shown = examples["shown"]
    assert len(shown) == min(examples["differ"], 12)
    assert all(example["float"] != example["integer"] for example in shown)
    assert written.source.count('<img src="data:image/png;base64,') == len(shown)
    # Accuracies differ by what one network has right and the other has not.
    gap = examples["float_right"] - examples["integer_right"]
    parts = (run["accuracy"][name]["validation"] for name in ("float", "evolved"))
    ours, theirs = (round(part * examples["images"]) for part in parts)
    assert ours - theirs == gap


def test_it_stands_alone(written: Written) -> None:
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', written.source) == []
    assert "<script" not in written.source
    assert not re.search(r"url\(|@import|https?://", written.source)


def test_the_figures_are_pictures(written: Written) -> None:
    figures = sorted(written.path.parent.glob("page-*.png"))
    names = {"curves", "levels"} | ({"examples"} if "<img" in written.source else set())
    assert {figure.stem.removeprefix("page-") for figure in figures} == names
    for figure in figures:
        with Image.open(figure) as image:
            image.load()
            assert np.unique(np.asarray(image)).size > 10


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_it(written: Written, tmp_path: pathlib.Path) -> None:
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--dump-dom", written.path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Page(done.stdout).numbers == Page(written.source).numbers  # nothing was mended


def test_a_run_that_is_still_going(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    going = tmp_path / "going"
    shutil.copytree(finished, going)
    (going / files.RESULT).unlink()
    (going / files.NETWORK).unlink()
    log = going / "2_weights" / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:12]) + lines[12][:20])  # the last line is on its way
    with (going / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        written = Written.of(going)
    assert written.path == going / "report.html"
    (run,) = written.facts["runs"]
    assert run["curve"]["evaluations"][-1] == 20 * 16
    assert run["accuracy"] is None
    text = Page(written.source).text
    assert "Not here: accuracy: the run is going on" in text
    assert "accepted at the latest checkpoint" in text
    # That checkpoint is the last one: its network is the one that the run ended with.
    before = qevo.load(finished / files.NETWORK)
    config = dataclasses.replace(files.read_config(going), runs=tmp_path, name="going")
    network = network_so_far(config, qevo.load(going / "nearest.safetensors"))
    for layer in network.layers:
        assert np.array_equal(network.weights[layer], before.weights[layer])
        for key, value in before.constants[layer].items():
            assert np.array_equal(network.constants[layer][key], value)


def test_a_run_that_has_just_begun(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copy(finished / files.CONFIG, tmp_path)
    written = Written.of(tmp_path)
    (run,) = written.facts["runs"]
    parts = {lack["part"] for lack in run["missing"]}
    assert {"accuracy", "start", "curve"} <= parts
    assert "no such file" in Page(written.source).text.lower()


def test_without_its_images(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "moved")
    config = files.read_json(tmp_path / "moved" / files.CONFIG)
    files.write_json(tmp_path / "moved" / files.CONFIG, config | {"data": "/gone.npz"})
    written = Written.of(tmp_path / "moved")
    (run,) = written.facts["runs"]
    assert run["examples"] is None
    assert run["curve"]["accuracy"]  # the soft labels say how many images there were
    assert "/gone.npz" in Page(written.source).text


def test_sensitivity_where_it_was_measured(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    layers = list(qevo.load(finished / files.NETWORK).layers)
    cells = {"bits": {"ternary": {"sensitivity": 0.0125}}}
    measured = {"layers": dict.fromkeys(layers, cells)}
    files.write_json(tmp_path / "run" / files.SENSITIVITY, measured)
    written = Written.of(tmp_path / "run")
    (run,) = written.facts["runs"]
    assert [layer["sensitivity"] for layer in run["layers"]] == [0.0125] * len(layers)
    assert "12.50" in Page(written.source).text


def test_several_runs_side_by_side(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "other")
    config = files.read_json(tmp_path / "other" / files.CONFIG)
    files.write_json(tmp_path / "other" / files.CONFIG, config | {"seed": 1})
    result = files.read_json(tmp_path / "other" / files.RESULT)
    before = result["accuracy"]["evolved"]["test"]
    result["accuracy"]["evolved"]["test"] = before - 0.02
    files.write_json(tmp_path / "other" / files.RESULT, result)
    output = tmp_path / "both.html"
    words = ("report", finished, tmp_path / "other", "-o", output, "--examples", 0)
    assert tiny.exit_code(*words) == 0
    facts = json.loads(output.with_suffix(".json").read_text())
    page = Page(output.read_text(encoding="utf-8"))
    assert [run["name"] for run in facts["runs"]] == ["tiny", "other"]
    (group,) = facts["spreads"]
    spread = group["accuracy"]["evolved"]["test"]
    assert spread["mean"] == pytest.approx(before - 0.01)
    assert spread["deviation"] == pytest.approx(0.02 / 2**0.5)
    shown = {number.place: number.text for number in page.numbers}
    for i, test in enumerate((before, before - 0.02)):
        assert shown[f"runs/{i}/accuracy/evolved/test"] == f"{100 * test:.2f}"
    assert shown["spreads/0/accuracy/evolved/test/mean"] == f"{100 * spread['mean']:.2f}"
    assert "<img" not in output.read_text(encoding="utf-8")


def test_what_cannot_be_reported(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match=r"is .* a run folder"):
        report(ReportConfig((tmp_path,)))
    with pytest.raises(QevoError, match="say which run"):
        report(ReportConfig(()))
    with pytest.raises(QevoError, match=r"is an \.html file"):
        report(ReportConfig((finished,), tmp_path / "page.pdf"))


@pytest.mark.parametrize("name", [files.RESULT, files.CONFIG, "other.json"])
def test_it_replaces_no_other_file(
    finished: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "other.json").write_text("[1]")
    before = (run / name).read_bytes()
    with pytest.raises(QevoError, match=rf"{name}, which is no report's"):
        report(ReportConfig((run,), (run / name).with_suffix(".html")))
    assert (run / name).read_bytes() == before
    assert not (run / name).with_suffix(".html").exists()
    for _ in range(2):  # a report replaces a report
        report(ReportConfig((run,), run / "page.html", examples=0))


def test_while_a_run_is_extended_the_network_is_that_of_the_search(
    finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    going = tmp_path / "going"
    shutil.copytree(finished, going)
    shutil.copy(going / "nearest.safetensors", going / files.NETWORK)  # as if of before
    settings = files.read_json(going / files.CONFIG)
    settings["weights"]["generations"] += 10
    files.write_json(going / files.CONFIG, settings)
    (going / "sensitivity.json").write_text('{"layers": {}}')
    (run,) = Written.of(going).facts["runs"]
    assert sum(layer["changed"] for layer in run["layers"]) > 0
    (lack,) = (lack for lack in run["missing"] if lack["part"] == "sensitivity")
    assert "damaged or another run's" in lack["why"]


def test_text_from_files_is_only_text(written: Written) -> None:
    bad = "<script>alert('1')</script>&"

    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poisoned(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [poisoned(part) for part in value]
        return bad if isinstance(value, str) and key not in {"start", "state"} else value

    page = Page(render_page(poisoned(written.facts)))
    assert "script" not in page.tags
    source = render_page(poisoned(written.facts))
    assert "<script" not in source
    assert Page(source).text.count(bad) > 10


@pytest.mark.parametrize("changes", [{}, {"name": "a b", "patience": 7, "bits": ("*=3", "x=4")}])
def test_the_command_is_that_of_the_run(changes: Any, tmp_path: pathlib.Path) -> None:
    config = tiny.config("some data.npz", tmp_path, **changes)
    assert said(config).run == config


def test_the_command_of_a_refinement(tmp_path: pathlib.Path) -> None:
    start = RefineConfig()
    assert isinstance(start.weights, ShiftStageConfig)
    search = dataclasses.replace(start.weights.search, stages=((16, 100), (4, 1000)), neutral=True)
    constants = StageConfig(5, dataclasses.replace(start.constants.search, antithetic=False))
    config = dataclasses.replace(
        start,
        network="net.py:Net",
        checkpoint=tmp_path / "net.pth",
        data="photos",
        weights=ShiftStageConfig(9, search),
        constants=constants,
    )
    assert said(config).run == config


def said(config: Any) -> Any:
    """What the command line of a configuration is understood as."""
    program, *words = shlex.split(command_line(config))
    assert program == "qevo"
    return cli.parse(words)

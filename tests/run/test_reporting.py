"""`qevo report`: the page is whole, true to its JSON, and asks nobody for anything."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest

from qevo import cli
from qevo.errors import QevoError
from qevo.report.page import Example, Layer, RunData, page
from qevo.run import folder as files
from qevo.run.reporting import ReportConfig, report

VOID = {"meta", "img", "br", "link", "hr"}
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Reader(html.parser.HTMLParser):
    """Checks that every element ends where it should, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def text_of(page: str) -> str:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return " ".join(reader.text)


@pytest.fixture(scope="module")
def written(
    finished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """The page about a finished run, and its numbers."""
    folder = tmp_path_factory.mktemp("report")
    path = report(ReportConfig((finished,), output=folder / "page.html"))
    (run,) = json.loads(path.with_suffix(".json").read_text())
    return path.read_text(encoding="utf-8"), run


def test_the_page_says_what_the_json_says(
    written: tuple[str, dict[str, Any]], finished: pathlib.Path
) -> None:
    page, run = written
    text = text_of(page)
    assert run["result"] == files.read_json(finished / files.RESULT)
    for row in run["result"]["accuracy"].values():
        assert f"{100 * row['validation']:.2f}" in text
        assert f"{100 * row['test']:.2f}" in text
    for layer in run["layers"]:
        assert f"{layer['weights']:,}" in text
        assert sum(layer["levels"].values()) == layer["weights"]
        assert f"{layer['coded']:,}" in text
    for size in run["sizes"].values():
        assert f"{size:,}" in text
    count, images = run["disagreements"]
    assert f"differ on {count:,} of {images:,} validation images" in text
    assert page.count("<figcaption>") == min(count, 12)
    assert run["result"]["network_sha256"] in text


def test_the_curve_is_that_of_the_run(written: tuple[str, dict[str, Any]]) -> None:
    _, run = written
    evaluations, seconds, accuracy = zip(*run["points"], strict=True)
    assert evaluations[-1] == run["result"]["evaluations"] == 30 * 16
    assert list(seconds) == sorted(seconds)
    assert all(0 <= share <= 1 for share in accuracy)


def test_it_stands_alone(written: tuple[str, dict[str, Any]]) -> None:
    page, _ = written
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "<script" not in page
    assert "url(" not in page


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_it(written: tuple[str, dict[str, Any]], tmp_path: pathlib.Path) -> None:
    page, run = written
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--dump-dom", path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    test = run["result"]["accuracy"]["evolved"]["test"]
    assert f"{100 * test:.2f}" in text_of(done.stdout)


def test_a_run_that_is_still_going(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "going")
    (tmp_path / "going" / files.RESULT).unlink()
    log = tmp_path / "going" / "2_weights" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:10]))
    path = report(ReportConfig((tmp_path / "going",)))
    assert path == tmp_path / "going" / "report.html"
    text = text_of(path.read_text(encoding="utf-8"))
    assert "The run has no result yet: it goes on with qevo train --resume --name going." in text
    (run,) = json.loads(path.with_suffix(".json").read_text())
    assert run["points"][-1][0] == 20 * 16


def test_several_runs_beside_each_other(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "other")
    output = tmp_path / "both.html"
    words = ["report", str(finished), str(tmp_path / "other"), "-o", str(output), "--no-examples"]
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert done.value.code == 0
    text = text_of(output.read_text(encoding="utf-8"))
    assert text.count("evolved") == 1  # one row for both
    assert "2 runs" in text
    assert "Disagreements" not in text


def test_what_is_no_run(tmp_path: pathlib.Path) -> None:
    with pytest.raises(QevoError, match=r"is .* a run folder"):
        report(ReportConfig((tmp_path,)))
    with pytest.raises(QevoError, match="say which runs"):
        report(ReportConfig(()))


def test_names_from_files_are_only_text() -> None:
    bad = "<script>alert(1)</script>"
    layer = Layer(bad, "3", 4, 0.5, 0.1, None, {-1: 2, 3: 2})
    example = Example(b"", bad, bad, bad)
    run = RunData(bad, {"name": bad}, layers=[layer], examples=[example], disagreements=(1, 2))
    written = page([run], made=bad)
    assert "<script" not in written
    assert text_of(written).count(bad) >= 6

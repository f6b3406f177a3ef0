"""Progress: a bar on a terminal, lines elsewhere, silence on request."""

import re
from collections.abc import Mapping

import pytest
from support import Medians, Walk

from qevo.core import evolve, progress
from qevo.core.progress import ProgressReport

RECORD = {"generation": 3, "best": 1234567, "accepted": -5}


def show(total: int = 9, *, done: int = 0, enabled: bool = True, upto: int = 9) -> None:
    with ProgressReport(total, done, title="demo", enabled=enabled) as report:
        for generation in range(done + 3, upto + 1, 3):
            report(generation, RECORD)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def test_the_last_generation_prints_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    show()
    out, err = capsys.readouterr()
    assert out == ""
    line = r"demo 9/9  [\d.]+/s  best 1,234,567  accepted -5  0 s left\n"
    assert re.fullmatch(line, err.replace(",\n", ","))


def test_words_stand_for_the_best_once_there_is_something_to_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0)

    def words(seen: Mapping[str, int]) -> str | None:
        return f"{seen['errors']} errors" if "errors" in seen else None

    with ProgressReport(9, 0, title="demo", enabled=True, words=words) as report:
        report(3, RECORD)
        report(6, RECORD | {"errors": 7})
        report(9, RECORD)
    said = re.findall(r"/s  (.*?)  accepted -5", capsys.readouterr().err)
    assert said == ["best 1,234,567", "7 errors", "7 errors"]


def test_words_know_of_looks_within_a_call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation is looked at after generations 3, 6 and 9, and calls end after 4, 8 and 10."""
    monkeypatch.setattr(progress, "_LINE_EVERY", 0)
    problem = Medians.of()
    evolve(
        Walk(problem.space),
        problem,
        0,
        generations=10,
        validate_every=3,
        scan_length=4,
        devices=1,
        words=lambda seen: f"farthest {seen['farthest']}" if "farthest" in seen else None,
    )
    assert len(re.findall(r"farthest \d+  accepted", capsys.readouterr().err)) == 3


def test_lines_come_at_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    show(30, upto=15)
    seen = re.findall(r"demo (\d+)/30", capsys.readouterr().err)
    assert seen == ["6", "12"]


def test_the_rate_leaves_out_earlier_sessions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 3.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    show(1003, done=1000, upto=1003)
    assert "1003/1003  1.0/s" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    show()
    err = capsys.readouterr().err
    assert "demo" in err
    assert "9/9" in err
    assert "accepted -5" in err


def test_what_was_done_before_is_not_compiling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    show(9, done=9)
    err = capsys.readouterr().err
    assert "done before" in err
    assert "compiling" not in err


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    show(enabled=False)
    assert capsys.readouterr() == ("", "")


def test_with_a_limit_the_total_is_what_the_time_allows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 1000, 12))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    with ProgressReport(1 << 30, 0, title="demo", enabled=True, limit=48) as report:
        for generation in (6, 12, 18):
            report(generation, RECORD)
    lines = capsys.readouterr().err.splitlines()
    assert [re.match(r"demo (\S+).* (\d+) s left", line).groups() for line in lines] == [
        ("6/24", "36"),
        ("12/24", "24"),
        ("18/24", "12"),
    ]


def test_a_wide_terminal_gets_a_curve(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for width, drawn in ((120, True), (80, False)):
        monkeypatch.setenv("COLUMNS", str(width))
        with ProgressReport(9, 0, title="demo", enabled=True) as report:
            for generation in range(1, 10):
                report(generation, RECORD | {"accepted": 100 - generation**2})
        err = capsys.readouterr().err
        assert "accepted 19" in err
        assert ("██▇▇▆▅▄▂▁" in err) is drawn


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([5, 5, 5], ""),
        ([0, 7], "▁█"),
        (range(8, 0, -1), "█▇▆▅▄▃▂▁"),
        (range(-700, 101, 100), "▁▂▃▄▅▅▆▇█"),
    ],
)
def test_sparklines(values: list[int], expected: str) -> None:
    assert progress.sparkline(values) == expected


def test_a_long_sparkline_is_of_means() -> None:
    assert progress.sparkline([0, 14] * 60, 4) == "▅▅▅▅"  # 7 of 14 is step 3.5, rounded to 4
    assert len(progress.sparkline(range(1000))) == 12


def test_a_curve_of_many_calls_spans_them_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressReport(4000, 0, title="demo", enabled=True) as report:
        for generation in range(1, 4001):
            report(generation, RECORD | {"accepted": -generation})
    assert re.search("█[▁-█]{10}▁", capsys.readouterr().err)

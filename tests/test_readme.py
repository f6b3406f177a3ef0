"""The README is true: its Python runs, its commands exist, its links lead somewhere."""

import os
import pathlib
import re
import shlex

import pytest

from qevo import cli

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
MANUALS = tuple(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))
PAGES = (*DOCUMENTS, *MANUALS)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def commands(document: str, program: str) -> list[list[str]]:
    """The arguments of each call of a program, in a code block or between backticks."""
    text = re.sub(r"\\\n\s*", "", text_of(document))  # a command over several lines
    lines = re.findall(rf"(?:^ {{4}}|`){program} ([^`\n]+)", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


PYTHON = [
    ("README.md", 3),  # run a file, evolve a network of one's own, the kernel alone
    ("docs/arithmetic.md", 1),
    ("docs/choosing.md", 1),
    ("docs/networks.md", 1),
    pytest.param("docs/detectors.md", 4, marks=pytest.mark.slow),
    pytest.param("docs/compressing.md", 1, marks=pytest.mark.slow),
    ("docs/exporting.md", 2),
    ("docs/tracking.md", 3),
    pytest.param("docs/refining.md", 2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("document", "count"), PYTHON)
def test_python_blocks_run_in_order(
    document: str, count: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text_of(document), re.M | re.S))
    assert len(blocks) >= count
    names: dict[str, object] = {"__name__": "document"}
    for block in blocks:
        line = text_of(document)[: block.start(1)].count("\n")
        source = "\n" * line + block[1]  # so that a traceback names the document's lines
        exec(compile(source, str(ROOT / document), "exec"), names)


def test_all_pages_with_python_are_run() -> None:
    pages = {"README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))}
    with_python = {page for page in pages if "```python" in text_of(page)}
    run = {getattr(page, "values", page)[0] for page in PYTHON}
    assert with_python == run | {"docs/scaling.md"}  # which needs several hosts


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M))
    found = commands(document, "make")
    assert found
    assert {words[0] for words in found} <= targets


def test_qevo_commands_are_understood(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands("README.md", "qevo")
    assert {words[0] for words in found} >= {"train", "evaluate", "audit"}
    for words in (*found, *(words for page in MANUALS for words in commands(page, "qevo"))):
        answered_by_tyro = {"--help", "--tyro-print-completion"} & set(words)
        if not answered_by_tyro and len(words) > 1:
            cli.parse(words)


@pytest.mark.parametrize("document", PAGES)
def test_links_and_scripts_are_there(document: str) -> None:
    text = text_of(document)
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    scripts = re.findall(r"\b(?:experiments|benchmarks)/\w+\.py\b", text)
    assert all(((ROOT / document).parent / link).exists() for link in links), links
    assert all((ROOT / script).exists() for script in scripts), scripts


def test_nothing_is_left_to_fill_in() -> None:
    for document in (*PAGES, "CHANGELOG.md"):
        assert not re.findall(r"@@\w+|TODO|FIXME", text_of(document)), os.fspath(document)

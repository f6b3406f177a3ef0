"""The documentation as a site: no warnings, every public name, nothing from other hosts."""

import html
import pathlib
import re
import subprocess
import sys

import pytest

import qevo
from qevo.cli import DESCRIPTION

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site: pathlib.Path) -> None:
    sources = sorted((ROOT / "docs").rglob("*.md"))
    assert len(sources) > 15
    for source in sources:
        name = source.relative_to(ROOT / "docs").with_suffix("")
        page = site / "index.html" if name.name == "index" else site / name / "index.html"
        title = source.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert html.escape(title, quote=False) in page.read_text(encoding="utf-8"), name


def test_the_reference_has_every_public_name(site: pathlib.Path) -> None:
    pages = "".join(p.read_text(encoding="utf-8") for p in (site / "reference").rglob("*.html"))
    known = {name.rpartition(".")[2] for name in re.findall(r'id="(qevo[\w.]*)"', pages)}
    assert set(qevo.__all__) - known == set()


def test_no_page_asks_another_host_for_anything(site: pathlib.Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        sources = re.findall(r'(?:<script|<img|<iframe)[^>]* src="([^"]+)"', text)
        sources += re.findall(
            r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]* href="([^"]+)"', text
        )
        assert [source for source in sources if re.match(r"(?:https?:)?//", source)] == [], page


def test_the_command_line_is_told_as_its_help_has_it() -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    told = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    ours = [line.strip() for line in DESCRIPTION.splitlines() if line.startswith("  ")]
    assert told == ours

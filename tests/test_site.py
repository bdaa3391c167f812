"""The documentation site builds without a warning, with all that is public, and examples that ran."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import intake_nwbzarr
from intake_nwbzarr import errors
from tests.test_examples import NAMES, is_drawn

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-c",
        "docs",
        "-d",
        folder / "doctrees",
    ]
    done = subprocess.run(
        [*command, ".", folder / "html"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=900
    )
    assert (done.returncode, done.stderr) == (0, "")
    return (folder / "html").resolve()


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_site_builds_without_a_warning_and_has_all_that_is_public(site: Path) -> None:
    pages = {page.stem for page in (site / "docs").glob("*.html")}
    assert pages >= {page.stem for page in (ROOT / "docs").glob("*.md")}
    reference = (site / "docs" / "reference.html").read_text()
    modules = {"errors", "__version__"}
    for name in set(intake_nwbzarr.__all__) - modules:
        assert re.search(rf'id="intake_nwbzarr\.[a-z_.]*{name}"', reference), name
    described = (site / "docs" / "errors.html").read_text()
    for name, found in vars(errors).items():
        if isinstance(found, type) and found.__module__ == errors.__name__:
            assert f'id="intake_nwbzarr.errors.{name}"' in described, name
    for page in site.rglob("*.html"):
        assert "system-message" not in page.read_text(), page
    # Its address leads to its first page.
    assert "docs/index.html" in (site / "index.html").read_text()


@pytest.mark.slow
def test_the_examples_are_notebooks_with_what_they_printed_and_drew(site: Path) -> None:
    for name in NAMES:
        page = (site / "examples" / f"{name}.html").read_text()
        pictures = re.findall(r'src="\.\./(_images/[0-9a-f]+\.png)"', page)
        assert len(pictures) == 1, name
        assert is_drawn(site / pictures[0])
        assert "Traceback" not in page, name
        assert "stderr" not in page, name
        assert "Warning" not in page, name
        # A Dataset as notebooks show it, or what many sessions came to.
        assert "xr-header" in page or "sessions" in page, name


@pytest.mark.slow
def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    pages = {page: page.read_text() for page in site.rglob("*.html") if "_static" not in page.parts}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    missing = []
    for page, text in pages.items():
        for link in re.findall(r'<(?:a|img)\b[^>]*?\b(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = unquote(html.unescape(link)).partition("#")
            target = (page.parent / name).resolve() if name else page
            if not target.is_file() or (anchor and target in anchors and anchor not in anchors[target]):
                missing.append((page.name, link))
    assert missing == []

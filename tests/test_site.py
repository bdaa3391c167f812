"""The documentation site builds without a warning, and its reference has everything that is public."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import intake_nwbzarr
from intake_nwbzarr import errors

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
        [*command, ".", folder / "html"], capture_output=True, text=True, check=False, cwd=ROOT, timeout=280
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.mark.slow
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

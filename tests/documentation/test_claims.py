"""Claims of the pages on security and on other tools: bounds are the code's, ratios those measured."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import intake
import pytest

from intake_nwbzarr import untrusted_input
from tests.documentation.blocks import ROOT

DOCS = ROOT / "docs"


def test_the_bounds_of_the_page_are_those_of_the_code() -> None:
    page = " ".join((DOCS / "security.md").read_text().split())
    gib, mib = 2**30, 2**20
    for words, bound in (
        ("256 MiB for a metadata document", untrusted_input.LARGEST_DOCUMENT / mib == 256),
        ("a million groups and arrays", untrusted_input.MOST_NODES == 10**6),
        ("64 levels", untrusted_input.DEEPEST_PATH == 64),
        ("2 GiB for a chunk", 2 * gib == untrusted_input.LARGEST_OBJECT),
        ("1 GiB for a chunk of objects", gib == untrusted_input.LARGEST_OBJECT_CHUNK),
        ("50 million opcodes for a pickle", untrusted_input.MOST_OPCODES == 50 * 10**6),
        ("at most 32 in a row", untrusted_input.MOST_LINK_HOPS == 32),
        ("Redirects: at most three", untrusted_input.MOST_REDIRECTS == 3),
    ):
        assert words in page
        assert bound, words
    for path in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / path).exists(), path


def test_opening_a_catalog_imports_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page warns of it; if Intake stops doing so, the page has to say so."""
    (tmp_path / "named_by_a_catalog.py").write_text("")
    (tmp_path / "catalog.yaml").write_text("plugins: {source: [{module: named_by_a_catalog}]}\nsources: {}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    list(intake.open_catalog(str(tmp_path / "catalog.yaml")))
    assert sys.modules.pop("named_by_a_catalog", None) is not None


def test_ratios_to_other_tools_are_those_of_the_last_measurement() -> None:
    measured = (DOCS / "performance.md").read_text()
    ratios = re.findall("\\b\\d+(?:\\.\\d+)?\N{MULTIPLICATION SIGN}", (DOCS / "comparison.md").read_text())
    assert len(ratios) > 10
    assert [ratio for ratio in ratios if f" {ratio}" not in measured] == []
    for requests in ("8 requests instead of 58", "8 requests instead of 595"):
        assert requests in (DOCS / "comparison.md").read_text()

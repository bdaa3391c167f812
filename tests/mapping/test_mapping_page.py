"""The reference page: what is committed is what the engine shows, and it leaves nothing out."""

import re
from pathlib import Path

import pytest
import xarray as xr

from tests.mapping.core_schema import ABSTRACT, PARENTS
from tests.mapping.mapping_objects import Session
from tests.mapping.mapping_page import COMMAND, PAGE, PROSE, example_sessions, mapping_page, read_entries
from tests.mapping.schema_words import schema_words

# Some of the objects depart from the schema on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.MappingWarning")

_CALL = re.compile(r'^xr\.open_dataset\(\w+, engine="nwbzarr", group="(.+)"\)$', re.MULTILINE)
_ROW = re.compile(r"^\| ([a-z ]*) \| (`.+`) \| (`.+`|scalar) \| (\S+) \|", re.MULTILINE)


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The committed page's sections by type."""
    parts = re.split(r"^### (\w+)$", PAGE.read_text(), flags=re.MULTILINE)
    names, texts = parts[1::2], parts[2::2]
    assert len(set(names)) == len(names)
    # A chapter's heading ends the section before it.
    return {name: text.partition("\n## ")[0] for name, text in zip(names, texts, strict=True)}


@pytest.fixture
def page() -> str:
    return PAGE.read_text()


@pytest.mark.filterwarnings("ignore:The linked table for DynamicTableRegion:UserWarning")
def test_the_committed_page_is_what_the_engine_shows_now(
    page: str, every_type_path: Path, tmp_path: Path
) -> None:
    # Compared here, for a report of the difference would be as long as the page.
    if mapping_page(PROSE.read_text(), example_sessions(every_type_path, tmp_path)) != page:
        pytest.fail(f"docs/mapping.md is not what the engine shows now; run: {COMMAND}")


def test_every_type_of_the_schema_has_a_section_and_a_row_of_the_index(
    page: str, sections: dict[str, str]
) -> None:
    assert set(sections) == set(PARENTS)
    rows = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| \S", page, re.MULTILINE)
    assert [name for name, _ in rows] == sorted(PARENTS, key=str.lower)
    assert all(anchor == name.lower() for name, anchor in rows)


def test_no_section_is_empty(sections: dict[str, str]) -> None:
    abstract = {name for name, text in sections.items() if "No object is of this type itself" in text}
    assert abstract == ABSTRACT
    # The schema gives it nothing: it is there for extensions to extend.
    bare = {name for name, text in sections.items() if "It only has the attributes of every Dataset" in text}
    assert bare == {"LabMetaData"}
    for name, text in sections.items():
        if name not in abstract | bare:
            assert _ROW.search(text) or "\n- Attributes" in text, name


def test_each_line_of_code_opens_what_the_table_after_it_shows(
    sections: dict[str, str], every_type_path: Path
) -> None:
    elsewhere = {"EventWaveform", "CSRMatrix", "SimpleMultiContainer"}
    checked = 0
    for text in (text for name, text in sections.items() if name not in elsewhere):
        first = text.partition("\nAnother")[0]
        for group in _CALL.findall(first):
            opened = xr.open_dataset(every_type_path, engine="nwbzarr", group=group)
            for names, dims, dtype in _variables(first):
                for name in names:
                    variable = opened.variables[name]
                    assert (", ".join(map(str, variable.dims)), str(variable.dtype)) == (dims, dtype), (
                        group,
                        name,
                    )
                    checked += 1
    assert checked > 400


def _variables(text: str) -> list[tuple[list[str], str, str]]:
    """The names, dimensions and type in each row of a section's tables."""
    rows = []
    for _, names, dims, dtype in _ROW.findall(text):
        # What `a_start`/`_count` stands for.
        unfolded = re.sub(r"`([^`]+)_start`/`_count`", r"`\1_start`, `\1_count`", names)
        rows.append((re.findall(r"`([^`]+)`", unfolded), dims.strip("`").replace("scalar", ""), dtype))
    return rows


def test_links_lead_to_headings_and_files_that_exist(page: str) -> None:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for link in re.findall(r"\]\(([^)]+)\)", page):
        file, _, anchor = link.partition("#")
        assert anchor in anchors if not file else (PAGE.parent / file).exists(), link


def test_cells_of_tables_are_narrow_and_rows_have_as_many_as_their_heading(page: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        lines = [line.split("|")[1:-1] for line in table.splitlines()]
        assert {len(cells) for cells in lines} == {len(lines[0])}
        assert max(len(cell) for cells in lines for cell in cells) <= 100


def test_a_type_whose_objects_the_prose_passes_over_is_an_error(every_type_path: Path) -> None:
    with pytest.raises(LookupError, match="objects of the type Units"):
        read_entries(":: Units", [Session(every_type_path)])
    assert read_entries(":: BaseImage", [Session(every_type_path)])["BaseImage"].examples == ()


def test_an_example_that_is_not_there_is_an_error(every_type_path: Path) -> None:
    with pytest.raises(LookupError, match="No example session holds 'nowhere'"):
        read_entries(":: Units nowhere", [Session(every_type_path)])


@pytest.mark.parametrize(
    ("prose", "message"),
    [
        (":: EnumData in units", "'units' shows nothing of the type EnumData"),
        (":: Units units | units", "'units' shows nothing that 'units' does not"),
    ],
)
def test_an_example_that_shows_nothing_of_its_type_or_nothing_new_is_an_error(
    prose: str, message: str, every_type_path: Path
) -> None:
    with pytest.raises(LookupError, match=message):
        mapping_page(prose, [Session(every_type_path)])


def test_a_description_is_one_sentence_without_its_mark() -> None:
    words = schema_words()
    assert set(words) == set(PARENTS)
    assert words["ScratchData"].sentence == "Any one-off datasets."
    assert words["SweepTable"].deprecated
    assert words["SweepTable"].sentence == "Table used to group different PatchClampSeries."
    assert not words["Units"].deprecated
    assert {"spike_times", "waveforms_index"} <= words["Units"].datasets

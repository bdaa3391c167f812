"""The structure of the package as docs/architecture.md draws it: imports go down, and never in a circle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.rooms import PACKAGE, circles, import_graph

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
# The lowest first; files beside them (errors, limits, backend, cli, ...) are used from anywhere.
FOLDERS = (
    "location",
    "hdf5",
    "transport",
    "hierarchy",
    "arrays",
    "indexes",
    "mapping",
    "accessor",
    "checks",
    "copies",
    "conversion",
    "pages",
    "catalog",
    "sessions",
    "demo",
    "cli",
)


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """What each module imports from the package, inside of functions as well."""
    return import_graph(sorted(PACKAGE.rglob("*.py")), function_level=True)


def test_no_modules_import_one_another(imports: dict[str, set[str]]) -> None:
    assert circles(imports) == []


def test_folders_import_only_from_those_below(imports: dict[str, set[str]]) -> None:
    floor = {folder: number for number, folder in enumerate(FOLDERS)}
    upwards = [
        (module, imported)
        for module, all_imported in imports.items()
        for imported in all_imported
        if floor.get(_folder(module), len(floor)) < floor.get(_folder(imported), -1)
    ]
    assert upwards == []


def test_every_folder_has_a_floor_and_is_on_the_page() -> None:
    assert {each.parent.name for each in PACKAGE.glob("*/__init__.py")} == set(FOLDERS)
    page = PAGE.read_text()
    assert [folder for folder in FOLDERS if f"{folder}/" not in page] == []


def test_every_file_that_the_page_names_exists() -> None:
    names = set(re.findall(r"[\w/-]+\.(?:py|json|md)", PAGE.read_text()))
    root = PACKAGE.parent
    assert names
    assert [name for name in names if not ((root / name).exists() or any(PACKAGE.rglob(name)))] == []


def _folder(module: str) -> str:
    """Return the folder of a module, or its own name where it stands beside the folders."""
    return module.split(".")[1] if "." in module else ""

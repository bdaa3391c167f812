"""What `import intake` pays for this package, and what it finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# All that `import intake` imports because this package is installed.
OWN = [
    "intake_nwbzarr",
    *(
        f"intake_nwbzarr.{name}"
        for name in (
            "arguments",
            "catalog",
            "catalog.entries",
            "catalog.reader",
            "errors",
            "location",
            "location.options",
            "location.urls",
            "sessions",
            "sessions.reader",
        )
    ),
]


def run(code: str, **variables: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | variables
    ).stdout


def test_importing_intake_imports_the_reader_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("import_on_startup: false\n")
    code = "import intake, sys; print(*sys.modules)"
    alone = run(code, INTAKE_CONF_FILE=str(tmp_path / "conf.yaml")).split()
    assert "intake" in alone
    assert "intake_nwbzarr" not in alone
    added = set(run(code).split()) - set(alone)
    assert sorted(name for name in added if name.partition(".")[0] not in sys.stdlib_module_names) == OWN


@pytest.mark.parametrize(
    "module", ["intake_nwbzarr.cli.main", "intake_nwbzarr.catalog.source", "intake_nwbzarr.sessions.catalog"]
)
def test_entry_points_import_neither_pynwb_nor_hdmf(module: str) -> None:
    assert (
        run(f"import {module}, sys; print('pynwb' in sys.modules, 'hdmf' in sys.modules)") == "False False\n"
    )


def test_the_driver_is_registered() -> None:
    assert run("import intake; print(intake.open_nwbzarr.__name__)") == "NWBZarrSource\n"

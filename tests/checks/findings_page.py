"""Write docs/findings.md from the table of codes: `python -m tests.checks.findings_page`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from intake_nwbzarr.checks.codes import CODES

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"

_BEGIN = """# Findings

What `nwbzarr check` ([command line](command-line.md#nwbzarr-check)) reports, and what warnings of opening a
session are about: a warning has its code in its attribute `code`. `nwbzarr explain CODE` prints an entry of
this page, and `nwbzarr explain LinkError` what an error means.

- **error**: readers get wrong data, or none.
- **warning**: some readers fail, or reading is slow or expensive.
- **hint**: it could be better, and may be intended. Hints alone give `nwbzarr check` the exit status 0.

This page is written by `python -m tests.checks.findings_page` from `checks/codes.py`.
"""


def page() -> str:
    """Return the text of the page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _BEGIN
    for area in dict.fromkeys(code.area for code in CODES.values()):
        yield f"## {area}"
        yield ""
        for code in CODES.values():
            if code.area == area:
                mend = code.mend.replace("{location}", "LOCATION")
                command, comma, rest = mend.partition(", ")
                if command.startswith("nwbzarr "):
                    mend = f"`{command}`{comma}{rest}"
                yield from (f"### {code.name}", "", f"**{code.severity}.** {code.meaning}", "")
                yield from (code.why, "", f"Mend: {mend}{'' if mend.endswith('.') else '.'}", "")


if __name__ == "__main__":
    PAGE.write_text(page())

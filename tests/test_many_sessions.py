"""The page on many sessions: its tables of columns are those of the schemas."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from intake_nwbzarr.sessions.tables.table_schema import SCHEMAS, Kind

PAGE = Path(__file__).parents[1] / "docs" / "many-sessions.md"


@pytest.mark.parametrize("kind", ["sessions", "objects"])
def test_the_tables_of_columns_are_those_of_the_schemas(kind: Kind) -> None:
    # To write them into the page: python -m tests.test_many_sessions
    assert _columns(kind) in PAGE.read_text()


def _columns(kind: Kind) -> str:
    rows = [
        f"| `{field.name}` | {_type(field.type)} | {field.metadata[b'description'].decode()} |"
        for field in SCHEMAS[kind]
    ]
    head = ["| column | type | content |", "|---|---|---|"]
    return "\n".join([f"<!-- {kind}: begin -->", *head, *rows, f"<!-- {kind}: end -->"])


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return "timestamp (UTC)" if pa.types.is_timestamp(kind) else str(kind).replace("double", "float64")


def _write() -> None:
    text = PAGE.read_text()
    for kind in SCHEMAS:
        pattern = rf"<!-- {kind}: begin -->.*?<!-- {kind}: end -->"
        text = re.sub(pattern, lambda _, kind=kind: _columns(kind), text, flags=re.DOTALL)  # type: ignore[misc]
    PAGE.write_text(text)


if __name__ == "__main__":
    _write()

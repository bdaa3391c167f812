"""The core schema as the installed pynwb ships it, and the module generated from it.

``python -m tests.neurodata.core_schema`` rewrites ``intake_nwbzarr/neurodata/core_types.py``.
"""

from pathlib import Path
from pprint import pformat

import pynwb
import yaml

from intake_nwbzarr.neurodata.schema import TypeDefinition, definitions

GENERATED = Path(__file__).parents[2] / "intake_nwbzarr" / "neurodata" / "core_types.py"
HEADER = '''"""The types of the NWB core schema {version} and of hdmf-common, generated from it."""

from __future__ import annotations

from intake_nwbzarr.neurodata.schema import DimensionNames
'''


def core_definitions() -> tuple[str, dict[str, TypeDefinition]]:
    """The schema's version, and every type it defines with those it builds on."""
    root = Path(pynwb.__file__).parent / "nwb-schema"
    found: dict[str, TypeDefinition] = {}
    for file in sorted(root.rglob("*.yaml")):
        found.update(definitions(yaml.safe_load(file.read_text())))
    namespace = yaml.safe_load((root / "core" / "nwb.namespace.yaml").read_text())
    return namespace["namespaces"][0]["version"], found


def module_text() -> str:
    """What `core_types.py` should hold."""
    version, found = core_definitions()
    parents = {name: definition.parent for name, definition in sorted(found.items())}
    dimensions = {
        name: dict(definition.dimensions)
        for name, definition in sorted(found.items())
        if definition.dimensions
    }
    return (
        HEADER.format(version=version)
        + f"\nPARENTS: dict[str, str | None] = {pformat(parents, width=105)}\n"
        + f"\nDIMENSIONS: dict[str, dict[str, DimensionNames]] = {pformat(dimensions, width=105)}\n"
    )


if __name__ == "__main__":
    GENERATED.write_text(module_text())

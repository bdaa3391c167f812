"""The core schema as the installed pynwb ships it, and the file generated from it.

``python -m tests.mapping.core_schema`` rewrites ``intake_nwbzarr/mapping/core_types.json``.
"""

import json
from pathlib import Path

import pynwb
import yaml

from intake_nwbzarr.mapping.schema import CORE_TYPES, TypeDefinition, definitions

PARENTS: dict[str, str | None] = {
    name: each["extends"] for name, each in json.loads(CORE_TYPES.read_bytes())["types"].items()
}

# No object is of these types themselves.
ABSTRACT = frozenset({"BaseImage", "Container", "NWBContainer", "NWBData", "NWBDataInterface"})


def core_definitions() -> tuple[str, dict[str, TypeDefinition]]:
    """The schema's version, and every type it defines with those it builds on."""
    root = Path(pynwb.__file__).parent / "nwb-schema"
    found: dict[str, TypeDefinition] = {}
    for file in sorted(root.rglob("*.yaml")):
        found.update(definitions(yaml.safe_load(file.read_text())))
    namespace = yaml.safe_load((root / "core" / "nwb.namespace.yaml").read_text())
    return namespace["namespaces"][0]["version"], found


def document_text() -> str:
    """What `core_types.json` should hold: a type a line."""
    version, found = core_definitions()
    types = {
        name: {"extends": definition.parent}
        | ({"dimensions": definition.dimensions} if definition.dimensions else {})
        for name, definition in sorted(found.items())
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in types.items())
    return f'{{\n"nwb_core": {json.dumps(version)},\n"types": {{\n{lines}\n}}\n}}\n'


if __name__ == "__main__":
    CORE_TYPES.write_text(document_text())

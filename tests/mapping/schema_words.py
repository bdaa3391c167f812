"""What the core schema says of its types in words: a sentence, whether it is deprecated, datasets by name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynwb
import yaml

from tests.mapping.core_schema import PARENTS

_DEPRECATED = re.compile(r"^\[?DEPRECATED\]?\.?\s*")


@dataclass(frozen=True)
class Words:
    """Of one type.

    Parameters
    ----------
    sentence
        The first of its description.
    deprecated
        Whether the schema says that new files are not to have it.
    datasets
        The names of those that it defines itself.
    """

    sentence: str
    deprecated: bool
    datasets: frozenset[str]


def schema_words() -> dict[str, Words]:
    """The words on every type, of the schema that the installed pynwb ships."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Words] = {}
    for file in sorted((Path(pynwb.__file__).parent / "nwb-schema").rglob("*.yaml")):
        found.update(_types(yaml.load(file.read_text(), loader)))
    return found


def defined_datasets(words: Mapping[str, Words], neurodata_type: str) -> set[str]:
    """The names of the datasets that the schema defines for a type, those it inherits included."""
    names: set[str] = set()
    kind: str | None = neurodata_type
    while kind is not None and kind in words:
        names |= words[kind].datasets
        kind = PARENTS.get(kind)
    return names


def _types(specification: Mapping[str, Any]) -> Iterator[tuple[str, Words]]:
    for kind in ("groups", "datasets"):
        for inner in specification.get(kind) or ():
            yield from _types(inner)
            name = inner.get("neurodata_type_def") or inner.get("data_type_def")
            if name is not None:
                datasets = frozenset(
                    str(each["name"]) for each in inner.get("datasets") or () if "name" in each
                )
                yield str(name), Words(*_sentence(inner["doc"]), datasets)


def _sentence(text: str) -> tuple[str, bool]:
    """The first sentence of a description without its mark, and whether it is marked deprecated."""
    words = " ".join(text.split())
    plain = _DEPRECATED.sub("", words)
    first = re.split(r"(?<=\.)\s+(?=[A-Z\[])", plain)[0]
    return first if first.endswith(".") else f"{first}.", plain != words

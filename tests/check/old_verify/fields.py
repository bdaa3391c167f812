"""Fields: what pynwb knows of an object, where the file stores it, and where a Dataset may show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr
from hdmf.container import AbstractContainer

from tests.check.old_verify.sides import Sides

# xarray keeps these for encoding: as attributes they get a prefix.
_RESERVED = frozenset({"coordinates", "dtype", "grid_mapping", "scale_factor", "add_offset", "missing_value"})

# Datasets that become the coordinate `time`.
TIMES = frozenset({"times", "timestamps"})


@dataclass(frozen=True)
class Field:
    """One field of an object.

    Parameters
    ----------
    name
        As pynwb calls it.
    value
        As pynwb gives it.
    dataset
        The path of the dataset that stores it, from the object's own; empty for an attribute of the object.
    attribute
        The attribute that stores it; None for a dataset's values, a link or a group.
    """

    name: str
    value: Any
    dataset: str
    attribute: str | None

    @property
    def stored_name(self) -> str:
        """The last part of where it is stored."""
        return self.attribute or self.dataset.rpartition("/")[2]


def fields_of(container: AbstractContainer, path: str, sides: Sides) -> Iterator[Field]:
    """An object's fields that the file stores, and that are not None.

    pynwb adds defaults of the schema (``conversion`` 1.0, ``bias_current`` 0.0 of an IZeroClampSeries, the
    unit of a manifold that is not there) and references back; neither is in the file, nor compared.

    Parameters
    ----------
    container
        The object.
    path
        Where it is in the file.
    sides
        Both sides.
    """
    mapper = sides.nwbfile.read_io.manager.type_map.get_map(container)
    for name, value in container.fields.items():
        if value is None:
            continue
        dataset, attribute = _place(mapper.get_attr_spec(name), name)
        where = f"{path}/{dataset}".strip("/") if dataset else path
        if sides.is_stored(where, attribute):
            yield Field(name, value, dataset, attribute)
        elif dataset == name and sides.is_stored(path, name):
            yield Field(name, value, "", name)


def _place(spec: Any, name: str) -> tuple[str, str | None]:
    """The dataset and the attribute that the schema stores a field in."""
    if spec is None:
        return name, None
    parts: list[str] = []
    attribute = None
    while spec is not None and getattr(spec, "data_type_def", None) is None:
        if type(spec).__name__.endswith("AttributeSpec"):
            attribute = spec.name
        elif spec.name is not None:
            parts.insert(0, spec.name)
        spec = spec.parent
    return "/".join(parts), attribute


def shown_attributes(dataset: xr.Dataset, field: Field) -> Iterator[Any]:
    """The values of the attributes that show a field: the Dataset's, and those of its variables."""
    main = main_attributes(dataset)
    name = field.stored_name
    own = [_attribute_name(name), *(["units"] if name == "unit" else [])]
    if field.attribute is not None and field.dataset:
        owner = field.dataset.rpartition("/")[2]
        for variable in (owner, *(["time"] if owner in TIMES or owner == "starting_time" else [])):
            if variable in dataset.variables:
                attributes = dataset[variable].attrs
                yield from (attributes[each] for each in own if each in attributes)
        own = [f"{owner}_{name}"]
    for shown in (dataset.attrs, main):
        yield from (shown[each] for each in own if each in shown)


def main_attributes(dataset: xr.Dataset) -> Mapping[Any, Any]:
    """The attributes of the data that stand for their object; a table's column called ``data`` does not."""
    if "data" not in dataset.variables:
        return {}
    attributes = dataset["data"].attrs
    return attributes if attributes.get("nwb_path") == dataset.attrs.get("nwb_path") else {}


def shown_variable(dataset: xr.Dataset, name: str) -> xr.Variable | None:
    """The variable of a name, which has an underscore more where something else has it."""
    for _ in range(3):
        if name in dataset.variables:
            return dataset.variables[name]
        name += "_"
    return None


def _attribute_name(name: str) -> str:
    return f"nwb_{name}" if name in _RESERVED else name

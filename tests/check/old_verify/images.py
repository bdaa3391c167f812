"""Arrays that are objects by themselves: images, the order of images, scratch data, tables of resources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from hdmf.common import DynamicTableRegion
from hdmf.container import Container, Data
from pynwb.base import Images

from tests.check.old_verify.fields import shown_variable
from tests.check.old_verify.findings import Difference, Equal, Finding, Unshown, shortened
from tests.check.old_verify.objects import compare_object
from tests.check.old_verify.regions import compare_region
from tests.check.old_verify.sides import Sides
from tests.check.old_verify.values import OneField, same, unlike


def compare_images(images: Images, path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare a container of images: each image with the variable of its name, and their order.

    Parameters
    ----------
    images
        As pynwb read it.
    path
        Where it is in the file.
    shown
        The Dataset that shows it.
    sides
        Both sides.
    """
    for image in images.images.values():
        yield from _compare_member(image, image.name, path, shown, sides)
    if images.order_of_images is not None:
        expected = np.asarray([sides.path(image) for image in images.order_of_images.data], object)
        yield _compare_values(path, expected, shown, "order_of_images", sides)
    yield from compare_object(images, path, shown, sides, compared=("images", "order_of_images"))


def compare_members(container: Container, path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare the arrays with a type of their own that an object other than a table or a series holds."""
    for child in container.children:
        if isinstance(child, DynamicTableRegion):
            yield from compare_region(child, child.name, path, shown, sides)
        elif isinstance(child, Data):
            yield from _compare_member(child, child.name, path, shown, sides)


def compare_array(data: Data, path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare an array that is an object by itself, such as scratch data, with the Dataset at its path."""
    yield _compare_values(path, data.data, shown, "data", sides)
    yield from compare_object(data, path, shown, sides, compared=("data",))


def _compare_member(data: Data, name: str, path: str, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    where = f"{path}/{name}"
    names = getattr(getattr(data.data, "dtype", None), "names", None)
    if names:
        # A compound is shown as one variable for each of its fields.
        for each in names:
            yield _compare_values(where, OneField(data.data, each), shown, f"{name}_{each}", sides)
    else:
        yield _compare_values(where, data.data, shown, name, sides)
    yield from compare_object(
        data, where, xr.Dataset(attrs=_attributes(shown, name)), sides, compared=("data",)
    )


def _compare_values(path: str, raw: Any, shown: xr.Dataset, name: str, sides: Sides) -> Finding:
    kind = sides.kind(path)
    variable = shown_variable(shown, name)
    if variable is not None:
        difference = unlike(raw, variable)
    elif name in shown.attrs:
        equal = same(raw, shown.attrs[name])
        difference = None if equal else (shortened(raw), shortened(shown.attrs[name]))
    else:
        return Unshown(path, name, kind, shortened(raw))
    if difference is None:
        return Equal(path, name, kind)
    return Difference(path, name, kind, *difference)


def _attributes(shown: xr.Dataset, name: str) -> dict[Any, Any]:
    variable = shown_variable(shown, name)
    if variable is None:
        return {**shown.attrs}
    return {**shown.attrs, **variable.attrs}

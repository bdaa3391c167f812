"""Inert records: what a pickle says of arrays, dtypes and references, without any of them being made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np


@dataclass
class DtypeRecord:
    """What a pickle says of a NumPy dtype; its flags are ignored."""

    code: str
    order: str = "="
    names: tuple[str, ...] | None = None
    fields: Mapping[str, Any] | None = None


@dataclass
class ArrayRecord:
    """What a pickle says of a NumPy array: items in C order, or the bytes of plain elements."""

    shape: tuple[int, ...] = ()
    dtype: DtypeRecord | None = None
    content: list[Any] | bytes | None = None
    fortran: bool = False


@dataclass
class ReferenceRecord:
    """What a pickle says of an hdmf-zarr object reference."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Name:
    """A global that may be named; `call` is what calling it means here."""

    name: str
    call: Callable[..., Any] | None = None


def element_dtype(record: DtypeRecord) -> np.dtype[Any]:
    """The NumPy dtype of plain elements: numbers, booleans and fixed-width text.

    Raises
    ------
    ValueError
        For any other.
    """
    code = re.fullmatch(r"([biufcSU])(\d{1,6})", record.code)
    if code is None or record.order not in ("<", ">", "|", "=") or record.names is not None:
        raise ValueError(f"it has elements of the type {record.code[:40]!r}")
    return np.dtype(record.code).newbyteorder(
        ">" if record.order == ">" else "<" if record.order == "<" else "="
    )


def named(module: str, name: str) -> Name:
    """The global that a pickle names.

    Raises
    ------
    ValueError
        When it is not part of an array of strings, numbers and references.
    """
    found = _NAMES.get((module, name))
    if found is None:
        raise ValueError(f"it names {module[:80]}.{name[:80]}")
    return found


def expect[T](value: Any, kind: type[T] | tuple[type[T], ...]) -> T:
    """The value, when it is of that kind; else a ValueError."""
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} stands in an unexpected place")
    return value


def _new_array(cls: Any, _shape: Any, _typecode: Any) -> ArrayRecord:
    if cls is not _NDARRAY:
        raise ValueError("it makes an array of an unknown class")
    return ArrayRecord()


def _array_of_bytes(content: Any, dtype: Any, shape: Any, order: Any) -> ArrayRecord:
    content = bytes(expect(content, (bytes, bytearray)))
    return ArrayRecord(expect(shape, tuple), expect(dtype, DtypeRecord), content, order == "F")


def _new_dtype(code: Any, _align: Any = False, _copy: Any = True) -> DtypeRecord:
    return DtypeRecord(expect(code, str))


def _number(dtype: Any, content: Any) -> Any:
    """A number from its bytes, of a dtype made here from an allowed description."""
    expected = element_dtype(expect(dtype, DtypeRecord))
    content = expect(content, bytes)
    if len(content) != expected.itemsize:
        raise ValueError(f"it has a number of {len(content)} bytes where {expected.itemsize} belong")
    value = np.frombuffer(content, expected, count=1)[0] if expected.itemsize else expected.type()
    return value.item() if expected.kind in "SU" else value


def _encoded(text: Any, encoding: Any) -> bytes:
    # How protocols 0 to 2 write bytes.
    if encoding != "latin1":
        raise ValueError("it has bytes in an unknown encoding")
    return expect(text, str).encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _reconstructed(cls: Any, base: Any, values: Any) -> ReferenceRecord:
    # How protocols 0 and 1 write an object reference, which is a dictionary.
    if cls is not REFERENCE or base is not _DICT:
        raise ValueError("it reconstructs an object of an unknown class")
    return ReferenceRecord({expect(key, str): value for key, value in expect(values, dict).items()})


REFERENCE: Final = Name("hdmf_zarr.utils.ZarrReference")
_NDARRAY: Final = Name("numpy.ndarray")
_DICT: Final = Name("dict")

# NumPy 2 renamed numpy.core, Python 3 renamed copy_reg and __builtin__; pickles hold both.
_NAMES: Final[Mapping[tuple[str, str], Name]] = {
    ("hdmf_zarr.utils", "ZarrReference"): REFERENCE,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Name("numpy.dtype", _new_dtype),
    **{
        (f"numpy.{core}.{module}", name): Name(f"numpy.{core}.{module}.{name}", call)
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "_reconstruct", _new_array),
            ("multiarray", "scalar", _number),
            ("numeric", "_frombuffer", _array_of_bytes),
        )
    },
    ("_codecs", "encode"): Name("_codecs.encode", _encoded),
    **{
        (module, "_reconstructor"): Name(f"{module}._reconstructor", _reconstructed)
        for module in ("copyreg", "copy_reg")
    },
    **{(module, "dict"): _DICT for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): Name("bytes", _no_bytes) for module in ("builtins", "__builtin__")},
}

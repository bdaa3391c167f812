"""Fill values: what Zarr 3 metadata say is in a chunk that is not stored."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.errors import MetadataError


def fill_value(document: object, dtype: np.dtype[Any], path: str) -> NDArray[Any]:
    """A fill value's JSON form as a zero-dimensional array.

    Parameters
    ----------
    document
        As in the metadata: a number, ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, the bits as ``"0x7fc0"``,
        ``[real, imaginary]``, a string, bytes as base64 or as a list of numbers, a mapping from the fields
        of a compound or its bytes as base64. None means zero, an empty string for strings.
    dtype
        What the array is read as.
    path
        The array's, for the error.

    Raises
    ------
    MetadataError
        When the document does not describe a value of that dtype.
    """
    result = np.zeros((), dtype)
    if dtype.kind == "O":
        result[()] = document if isinstance(document, str) else ""
    elif document is not None:
        try:
            result[()] = _value(document, dtype, path)
        except (TypeError, ValueError, KeyError, OverflowError, binascii.Error) as error:
            raise MetadataError(
                f"The array {path!r} of {dtype} has the fill value {document!r}, which is not of that type: "
                f"{error}."
            ) from error
    return result


def _value(document: Any, dtype: np.dtype[Any], path: str) -> Any:
    match dtype.kind:
        case "V" if dtype.names is not None and isinstance(document, Mapping):
            return tuple(fill_value(document.get(name), dtype[name], path)[()] for name in dtype.names)
        case "V" | "S" if isinstance(document, str):
            data = base64.b64decode(document, validate=True)
            if dtype.kind == "V" and len(data) != dtype.itemsize:
                raise ValueError(f"{len(data)} bytes for {dtype.itemsize}")
            return np.frombuffer(data, dtype.newbyteorder("<"))[0] if dtype.kind == "V" else data
        case "V" if dtype.names is None:
            return np.void(bytes(document))
        case "U":
            return document if isinstance(document, str) else ""
        case "M" | "m":
            return np.array(document, "i8").view(dtype) if isinstance(document, int) else document
        case "c" if isinstance(document, (list, tuple)):
            real, imaginary = (_number(part, np.dtype(f"f{dtype.itemsize // 2}")) for part in document)
            return complex(real, imaginary)
        case _:
            return _number(document, dtype)


def _number(document: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(document, str) and document.startswith("0x"):
        bits = bytes.fromhex(document[2:])
        return np.frombuffer(bits, dtype.newbyteorder(">"))[0]
    return float(document) if isinstance(document, str) else document

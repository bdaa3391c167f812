"""Pickles that run something, crash NumPy, or take all memory or time when they are unpickled."""

import os
import pickle
import struct
from typing import Any

from tests.hierarchy.zarr2 import objects


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def data(value: bytes) -> bytes:
    return b"C" + bytes([len(value)]) + value


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def values(*parts: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + values(*arguments) + b"R"


def doubled(first: bytes, times: int = 100) -> bytes:
    """A tuple of twice the tuple before, and so on: short to write, endless to print. Needs an empty memo."""
    return first + b"\x85" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(times))


NONE, FALSE, TRUE = b"N", b"\x89", b"\x88"
ZERO, ONE, MINUS_ONE = b"K\0", b"K\x01", b"J\xff\xff\xff\xff"
THREE_GIB = b"\x8a\x05\0\0\0\xc0\0"
NDARRAY = name("numpy", "ndarray")
DTYPE = name("numpy", "dtype")
REFERENCE = name("hdmf_zarr.utils", "ZarrReference")
POINTER = data(b"A" * 8)


def dtype(code: str, *, names: bytes = NONE, fields: bytes = NONE, flags: int = 0) -> bytes:
    """A dtype with whatever state."""
    state = values(b"K\x03", text("|"), NONE, names, fields, b"K\x08", ONE, b"K" + bytes([flags]))
    return call(DTYPE, text(code), FALSE, TRUE) + state + b"b"


OBJECTS = dtype("O8", flags=63)
# Its only field is an object, which its flags deny.
HIDDEN_OBJECTS = dtype(
    "V8", names=text("a") + b"\x85", fields=b"}" + text("a") + OBJECTS + ZERO + b"\x86s", flags=0
)


def multiarray(function: str) -> bytes:
    return name("numpy._core.multiarray", function)


def array(shape: bytes, kind: bytes, content: bytes) -> bytes:
    empty = call(multiarray("_reconstruct"), NDARRAY, values(ZERO), data(b"b"))
    return empty + values(ONE, shape, kind, FALSE, content) + b"b"


ONE_ELEMENT = values(ONE)

CRASHERS = {
    "ndarray called on a pointer": call(NDARRAY, ONE_ELEMENT, text("O"), POINTER) + b".",
    "_frombuffer of hidden objects": (
        call(name("numpy._core.numeric", "_frombuffer"), POINTER, HIDDEN_OBJECTS, ONE_ELEMENT, text("C"))
        + b"."
    ),
    "scalar of hidden objects": call(multiarray("scalar"), HIDDEN_OBJECTS, POINTER) + b".",
    "_reconstruct of hidden objects": array(ONE_ELEMENT, HIDDEN_OBJECTS, POINTER) + b".",
}
"""Made of nothing but the names that pickled arrays consist of."""

RESERVATION = call(multiarray("_reconstruct"), NDARRAY, values(THREE_GIB), data(b"b")) + b"."
"""An array of 3 GiB, in less than a hundred bytes."""

BOMBS = {
    "3 GiB reserved": RESERVATION,
    "3 GiB declared": array(values(THREE_GIB), dtype("V1"), data(b"")) + b".",
    "memo index": b"Nr\xff\xff\xff\xff.",
    "memo of everything": b"]" + b"\x94" * 3_000_000 + b".",
    "doubled lists": b"]"
    + b"".join(b"\x94]h" + bytes([i]) + b"ah" + bytes([i]) + b"a" for i in range(100))
    + b".",
    "doubled elements": doubled(NONE)
    + b"]"
    + b"h\x63a"
    + b"0"
    + array(ONE_ELEMENT, OBJECTS, b"]h\x63a")
    + b".",
    "doubled shape": doubled(NONE) + b"0" + array(b"h\x63", OBJECTS, b"]") + b".",
    "doubled names": doubled(NONE)
    + b"0"
    + array(ONE_ELEMENT, dtype("V8", names=b"h\x63", fields=b"}"), b"]Na")
    + b".",
    "oversized string": b"\x8d" + struct.pack("<Q", 2**40) + b"abc.",
    "oversized bytes": b"\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "oversized bytearray": b"\x96" + struct.pack("<Q", 2**40) + b"abc.",
    "many digits": b"L" + b"9" * 100_000 + b"L\n.",
    "large number as a length": array(
        b"\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6 + b"\x85", OBJECTS, b"]"
    )
    + b".",
    "deep lists": b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "deep marks": b"(" * 10**6 + b".",
}

UNUSUAL = {
    "truncated": pickle.dumps(objects(["a"]))[:-5],
    "followed by more": pickle.dumps(objects(["a"])) * 2,
    "an external buffer": b"\x80\x05\x97.",
    "a persistent id": b"Pid\n.",
    "an extension code": b"\x82\x01.",
    "keyword arguments": REFERENCE + b")}\x92.",
    "state of a reference": REFERENCE + b")\x81}b.",
    "a method of a class replaced": REFERENCE + b"}" + text("__init__") + name("os", "system") + b"sb.",
}


class _Reduced:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def runners(marker: str) -> dict[str, bytes]:
    """Streams that create the file `marker` when they are unpickled."""
    command, code = f"touch {marker}", f"open({marker!r}, 'w').close()"
    return {
        "os.system": pickle.dumps(objects([_Reduced(os.system, command)])),
        "os.system, protocol 0": pickle.dumps(_Reduced(os.system, command), 0),
        "eval": pickle.dumps(objects([_Reduced(eval, code)])),
        "a chain of calls": pickle.dumps(_Reduced(list, _Reduced(map, eval, [code]))),
        "INST": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        "STACK_GLOBAL": call(name("os", "system"), b"X" + struct.pack("<I", len(command)) + command.encode())
        + b".",
    }

"""Pickles, interpreted without running them: the opcodes that arrays of objects need."""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from intake_nwbzarr.bounds import DEEPEST_PICKLE, MOST_OPCODES
from intake_nwbzarr.errors import LegacyObjectError


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


def interpret(data: bytes, *, maximum_opcodes: int, where: str) -> Any:
    """Read a pickle of any protocol.

    Parameters
    ----------
    data
        The pickle, and nothing after it.
    maximum_opcodes
        How many opcodes an honest stream of the expected size may take.
    where
        The array and chunk, for errors.

    Returns
    -------
    object
        None, bool, int, float, str, bytes, a NumPy number; a list, tuple or dictionary of such; or one of the
        records of this module. Containers may be shared, and may hold themselves.

    Raises
    ------
    LegacyObjectError
        When the stream is damaged, names anything else than the parts of arrays and references, or exceeds
        the limits.
    """
    try:
        return _Machine(data, min(maximum_opcodes, MOST_OPCODES)).run()
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise LegacyObjectError(
            f"{where} holds a pickle that cannot be read as strings, numbers and object references: {error}. "
            "The file is damaged or hostile; nothing in it was run."
        ) from error


class _Machine:
    """The stack, the memo and the marks of one stream."""

    def __init__(self, data: bytes, maximum_opcodes: int) -> None:
        self.data = data
        self.maximum_opcodes = maximum_opcodes
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, stack, memo = self.data, self.stack, self.memo
        position, end = 0, len(data)
        stream = io.BytesIO(data)
        for _ in range(self.maximum_opcodes):
            if position >= end:
                raise ValueError("it ends in the middle")
            code = data[position]
            position += 1
            # Nearly all of a long array of strings are the first two; the third is in every reference.
            if code == 0x8C:  # SHORT_BINUNICODE
                start = position + 1
                position = start + data[position]
                if position >= end:
                    raise ValueError("it ends in the middle of a string")
                stack.append(data[start:position].decode("utf-8", "surrogatepass"))
            elif code == 0x94:  # MEMOIZE
                memo[len(memo)] = stack[-1]
            elif code == 0x68:  # BINGET
                stack.append(memo[data[position]])
                position += 1
            elif code == 0x2E:  # STOP
                break
            else:
                reader, handler = _HANDLERS[code] if code in _HANDLERS else _refuse(code)
                argument = None
                if reader is not None:
                    stream.seek(position)
                    argument = reader(stream)
                    position = stream.tell()
                handler(self, argument)
        else:
            raise ValueError(f"it takes more than {self.maximum_opcodes} steps")
        if position != end:
            raise ValueError(f"{end - position} bytes follow its end")
        if len(stack) != 1:
            raise ValueError(f"it ends with {len(stack)} objects")
        return stack[0]

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_none(self, _: Any) -> None:
        self.stack.append(None)

    def push_true(self, _: Any) -> None:
        self.stack.append(True)

    def push_false(self, _: Any) -> None:
        self.stack.append(False)

    def nothing(self, _: Any) -> None:
        pass

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def mark(self, _: Any) -> None:
        if len(self.marks) >= DEEPEST_PICKLE:
            raise ValueError(f"it is nested deeper than {DEEPEST_PICKLE}")
        self.marks.append(len(self.stack))

    def pop_mark(self, _: Any) -> None:
        self.pop_to_mark()

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def empty_list(self, _: Any) -> None:
        self.stack.append([])

    def list_from_mark(self, _: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        expect(self.stack[-1], list).append(value)

    def appends(self, _: Any) -> None:
        items = self.pop_to_mark()
        expect(self.stack[-1], list).extend(items)

    def empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def tuple_from_mark(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def dict_from_mark(self, _: Any) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self.update(items)

    def set_item(self, _: Any) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self.update(items)

    def set_items(self, _: Any) -> None:
        self.update(self.pop_to_mark())

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        values = target.values if isinstance(target, ReferenceRecord) else expect(target, dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            values[expect(key, str)] = value

    def name(self, argument: tuple[str, str]) -> None:
        self.stack.append(named(*argument))

    def name_from_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(named(expect(module, str), expect(name, str)))

    def call(self, _: Any) -> None:
        arguments, function = expect(self.stack.pop(), tuple), expect(self.stack.pop(), Name)
        if function.call is None:
            raise ValueError(f"it calls {function.name}")
        self.stack.append(function.call(*arguments))

    def new(self, _: Any) -> None:
        arguments, cls = self.stack.pop(), expect(self.stack.pop(), Name)
        if cls is not REFERENCE or arguments != ():
            raise ValueError(f"it makes an object of {cls.name}")
        self.stack.append(ReferenceRecord())

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, ArrayRecord):
            _, shape, dtype, fortran, content = expect(state, tuple)
            target.shape, target.dtype = expect(shape, tuple), expect(dtype, DtypeRecord)
            target.fortran = fortran is True
            target.content = content if isinstance(content, list) else expect(content, bytes)
        elif isinstance(target, DtypeRecord):
            # (version, byte order, subarray, names, fields, item size, alignment, flags, …)
            _, order, subarray, names, fields, *_ = expect(state, tuple)
            if subarray is not None:
                raise ValueError("it has elements that are arrays")
            target.order, target.names, target.fields = expect(order, str), names, fields
        else:
            raise ValueError(f"it sets the state of a {type(target).__name__}")


def _two_lines(stream: io.BytesIO) -> tuple[str, str]:
    # Not the reader of pickletools, which undoes escapes that no name has, and warns of the invalid ones.
    module, name = stream.readline(), stream.readline()
    if not name.endswith(b"\n"):
        raise ValueError("it ends in the middle of a name")
    return module[:-1].decode(), name[:-1].decode()


def _reader(opcode: Any) -> Callable[[io.BytesIO], Any] | None:
    """How an opcode's argument is read; None when it has none."""
    if opcode.name == "GLOBAL":
        return _two_lines
    reader: Callable[[io.BytesIO], Any] | None = opcode.arg and opcode.arg.reader
    return reader


def _refuse(code: int) -> Any:
    names = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    raise ValueError(f"it uses the opcode {names.get(code, hex(code))}")


_METHODS: Final[Mapping[str, Callable[[_Machine, Any], None]]] = {
    **dict.fromkeys(
        ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"), _Machine.push
    ),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), _Machine.nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "LONG_BINGET"), _Machine.get),
    "NONE": _Machine.push_none,
    "NEWTRUE": _Machine.push_true,
    "NEWFALSE": _Machine.push_false,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "MARK": _Machine.mark,
    "EMPTY_LIST": _Machine.empty_list,
    "LIST": _Machine.list_from_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "EMPTY_TUPLE": _Machine.empty_tuple,
    "TUPLE": _Machine.tuple_from_mark,
    "TUPLE1": _Machine.tuple1,
    "TUPLE2": _Machine.tuple2,
    "TUPLE3": _Machine.tuple3,
    "EMPTY_DICT": _Machine.empty_dict,
    "DICT": _Machine.dict_from_mark,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name_from_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new,
    "BUILD": _Machine.build,
}

_HANDLERS: Final = {
    ord(opcode.code): (_reader(opcode), _METHODS[opcode.name])
    for opcode in pickletools.opcodes
    if opcode.name in _METHODS
}

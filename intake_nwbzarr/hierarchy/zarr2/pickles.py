"""A pickle interpreter that imports and calls nothing, for the opcodes that object arrays need."""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from intake_nwbzarr.errors import LegacyObjectError
from intake_nwbzarr.untrusted_input import DEEPEST_PICKLE, MOST_OPCODES


@dataclass
class DtypeRecord:
    """A NumPy dtype in a pickle; its flags are ignored."""

    code: str
    order: str = "="
    names: tuple[str, ...] | None = None
    fields: Mapping[str, Any] | None = None


@dataclass
class ArrayRecord:
    """A NumPy array in a pickle, with items in C order, or the bytes of plain elements."""

    shape: tuple[int, ...] = ()
    dtype: DtypeRecord | None = None
    content: list[Any] | bytes | None = None
    fortran: bool = False


@dataclass
class ReferenceRecord:
    """An hdmf-zarr object reference in a pickle."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Global:
    """A global name that a pickle may contain; `call` replaces a call of it."""

    name: str
    call: Callable[..., Any] | None = None


def element_dtype(record: DtypeRecord) -> np.dtype[Any]:
    """Return the NumPy dtype of plain elements: numbers, booleans and fixed-width strings."""
    code = re.fullmatch(r"([biufcSU])(\d{1,6})", record.code)
    if code is None or record.order not in ("<", ">", "|", "=") or record.names is not None:
        raise ValueError(f"it has elements of the type {record.code[:40]!r}")
    return np.dtype(record.code).newbyteorder(
        ">" if record.order == ">" else "<" if record.order == "<" else "="
    )


def find_global(module: str, name: str) -> Global:
    """Return a global name, which must be part of an array of strings, numbers and references."""
    found = _GLOBALS.get((module, name))
    if found is None:
        raise ValueError(f"it names {module[:80]}.{name[:80]}")
    return found


def expect[T](value: Any, kind: type[T] | tuple[type[T], ...]) -> T:
    """Return a value, which must be of a type."""
    if not isinstance(value, kind):
        raise ValueError(f"it has an unexpected {type(value).__name__}")
    return value


def _new_array(cls: Any, _shape: Any, _typecode: Any) -> ArrayRecord:
    if cls is not _NDARRAY:
        raise ValueError("it creates an array of an unknown class")
    return ArrayRecord()


def _array_of_bytes(content: Any, dtype: Any, shape: Any, order: Any) -> ArrayRecord:
    content = bytes(expect(content, (bytes, bytearray)))
    return ArrayRecord(expect(shape, tuple), expect(dtype, DtypeRecord), content, order == "F")


def _new_dtype(code: Any, _align: Any = False, _copy: Any = True) -> DtypeRecord:
    return DtypeRecord(expect(code, str))


def _number(dtype: Any, content: Any) -> Any:
    """Return a number from its bytes and its dtype in the pickle."""
    expected = element_dtype(expect(dtype, DtypeRecord))
    content = expect(content, bytes)
    if len(content) != expected.itemsize:
        raise ValueError(f"it has a number of {len(content)} bytes instead of {expected.itemsize}")
    value = np.frombuffer(content, expected, count=1)[0] if expected.itemsize else expected.type()
    return value.item() if expected.kind in "SU" else value


def _encoded(text: Any, encoding: Any) -> bytes:
    # Protocols 0 to 2 write bytes like this.
    if encoding != "latin1":
        raise ValueError("it has bytes in an unknown encoding")
    return expect(text, str).encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _reconstructed(cls: Any, base: Any, values: Any) -> ReferenceRecord:
    # Protocols 0 and 1 write an object reference, which is a dictionary, like this.
    if cls is not REFERENCE or base is not _DICT:
        raise ValueError("it creates an object of an unknown class")
    return ReferenceRecord({expect(key, str): value for key, value in expect(values, dict).items()})


REFERENCE: Final = Global("hdmf_zarr.utils.ZarrReference")
_NDARRAY: Final = Global("numpy.ndarray")
_DICT: Final = Global("dict")

# With the old names, too: NumPy 2 renamed numpy.core, Python 3 renamed copy_reg and __builtin__.
_GLOBALS: Final[Mapping[tuple[str, str], Global]] = {
    ("hdmf_zarr.utils", "ZarrReference"): REFERENCE,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Global("numpy.dtype", _new_dtype),
    **{
        (f"numpy.{core}.{module}", name): Global(f"numpy.{core}.{module}.{name}", call)
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "_reconstruct", _new_array),
            ("multiarray", "scalar", _number),
            ("numeric", "_frombuffer", _array_of_bytes),
        )
    },
    ("_codecs", "encode"): Global("_codecs.encode", _encoded),
    **{
        (module, "_reconstructor"): Global(f"{module}._reconstructor", _reconstructed)
        for module in ("copyreg", "copy_reg")
    },
    **{(module, "dict"): _DICT for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): Global("bytes", _no_bytes) for module in ("builtins", "__builtin__")},
}


def interpret_pickle(data: bytes, *, maximum_opcodes: int, where: str) -> Any:
    """Return the content of a pickle: plain values, containers, and records of this module."""
    # Containers may be shared, and may contain themselves.
    try:
        return _Interpreter(data, min(maximum_opcodes, MOST_OPCODES)).run()
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise LegacyObjectError(
            f"{where} contains a pickle that cannot be read as strings, numbers and object references: "
            f"{error}. The file is damaged or malicious; no code in it was run.",
            next_step="Compare the chunk with the original file.",
        ) from error


class _Interpreter:
    """The stack, memo and marks of one pickle."""

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
            # Strings consist of the first two opcodes; every reference has the third.
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
            raise ValueError(f"it has more than {self.maximum_opcodes} opcodes")
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

    def ignore(self, _: Any) -> None:
        pass

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def mark(self, _: Any) -> None:
        if len(self.marks) >= DEEPEST_PICKLE:
            raise ValueError(f"it is nested deeper than {DEEPEST_PICKLE} levels")
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
        self.stack.append(find_global(*argument))

    def name_from_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(find_global(expect(module, str), expect(name, str)))

    def call(self, _: Any) -> None:
        arguments, function = expect(self.stack.pop(), tuple), expect(self.stack.pop(), Global)
        if function.call is None:
            raise ValueError(f"it calls {function.name}")
        self.stack.append(function.call(*arguments))

    def new(self, _: Any) -> None:
        arguments, cls = self.stack.pop(), expect(self.stack.pop(), Global)
        if cls is not REFERENCE or arguments != ():
            raise ValueError(f"it creates an object of {cls.name}")
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
    # The reader of pickletools decodes escapes, and warns about invalid ones, which names do not have.
    module, name = stream.readline(), stream.readline()
    if not name.endswith(b"\n"):
        raise ValueError("it ends in the middle of a name")
    return module[:-1].decode(), name[:-1].decode()


def _reader(opcode: Any) -> Callable[[io.BytesIO], Any] | None:
    """Return the function that reads an opcode's argument, None if it has none."""
    if opcode.name == "GLOBAL":
        return _two_lines
    reader: Callable[[io.BytesIO], Any] | None = opcode.arg and opcode.arg.reader
    return reader


def _refuse(code: int) -> Any:
    names = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    raise ValueError(f"it uses the opcode {names.get(code, hex(code))}")


_METHODS: Final[Mapping[str, Callable[[_Interpreter, Any], None]]] = {
    **dict.fromkeys(
        ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        _Interpreter.push,
    ),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "BINUNICODE8"), _Interpreter.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _Interpreter.push),
    **dict.fromkeys(("PROTO", "FRAME"), _Interpreter.ignore),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Interpreter.put),
    **dict.fromkeys(("GET", "LONG_BINGET"), _Interpreter.get),
    "NONE": _Interpreter.push_none,
    "NEWTRUE": _Interpreter.push_true,
    "NEWFALSE": _Interpreter.push_false,
    "POP": _Interpreter.pop,
    "POP_MARK": _Interpreter.pop_mark,
    "MARK": _Interpreter.mark,
    "EMPTY_LIST": _Interpreter.empty_list,
    "LIST": _Interpreter.list_from_mark,
    "APPEND": _Interpreter.append,
    "APPENDS": _Interpreter.appends,
    "EMPTY_TUPLE": _Interpreter.empty_tuple,
    "TUPLE": _Interpreter.tuple_from_mark,
    "TUPLE1": _Interpreter.tuple1,
    "TUPLE2": _Interpreter.tuple2,
    "TUPLE3": _Interpreter.tuple3,
    "EMPTY_DICT": _Interpreter.empty_dict,
    "DICT": _Interpreter.dict_from_mark,
    "SETITEM": _Interpreter.set_item,
    "SETITEMS": _Interpreter.set_items,
    "GLOBAL": _Interpreter.name,
    "STACK_GLOBAL": _Interpreter.name_from_stack,
    "REDUCE": _Interpreter.call,
    "NEWOBJ": _Interpreter.new,
    "BUILD": _Interpreter.build,
}

_HANDLERS: Final = {
    ord(opcode.code): (_reader(opcode), _METHODS[opcode.name])
    for opcode in pickletools.opcodes
    if opcode.name in _METHODS
}

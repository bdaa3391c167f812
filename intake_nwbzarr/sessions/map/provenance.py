"""Where results are from: the keys they are stored under, and what is noted beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, Self

import numpy as np

from intake_nwbzarr import __version__
from intake_nwbzarr.sessions.selected import Give, Selected

FORMAT: Final = "nwbzarr-results"


def result_key(selected: Selected, name: str, give: Give) -> str:
    """Return the key of a session's result: what it depends on, but for the function's code."""
    paths = {condition: sorted(found) for condition, found in sorted(selected.paths.items())}
    multiple = dict(sorted(selected.multiple.items()))
    depends = [selected.key, selected.etag, paths, multiple, name, __version__, give]
    return sha256(json.dumps(depends).encode()).hexdigest()[:32]


@dataclass
class Provenance:
    """How results came about, in ``provenance.json`` beside them."""

    name: str
    # Of the state of the tables that the sessions are from.
    tables: str | None
    # Its qualified name, and a digest of its code and of what it encloses.
    function: str
    function_digest: str
    give: str
    workers: str
    # "running", then "complete", or "interrupted" where it ended early.
    status: str = "running"
    began: str = field(default_factory=lambda: _now())
    ended: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    package: str = __version__
    python: str = sys.version.split()[0]
    # Of functions with which a map of the same name began, and whose results may have been kept.
    earlier_digests: list[str] = field(default_factory=list)
    format: str = FORMAT
    version: str = "1.0"

    def end(self, status: str, counts: Mapping[str, int]) -> None:
        """Note how it ended, and when."""
        self.status, self.ended, self.counts = status, _now(), dict(counts)

    def encode(self) -> bytes:
        """Return the provenance as JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the provenance in a JSON document; raise ValueError for any other."""
        content = json.loads(data)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("it is not the provenance of results")
        known = {name: content[name] for name in cls.__dataclass_fields__ if name in content}
        kinds = {"counts": dict, "earlier_digests": list}
        if not all(isinstance(each, kinds.get(name, str | None)) for name, each in known.items()):
            raise ValueError("it is not valid")
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError("it is not complete") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def function_name(function: Callable[..., Any]) -> str:
    """Return the qualified name of a function."""
    if isinstance(function, partial):
        return function_name(function.func)
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def function_digest(function: Callable[..., Any]) -> str:
    """Return a digest of a function's code, and of the values and functions of its module that it uses."""
    digest = sha256()
    for part in _parts(function, set()):
        digest.update(part.encode(errors="surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _parts(item: Any, seen: set[int]) -> list[str]:
    """Return texts that say what a function, or something that it encloses, is."""
    if id(item) in seen:
        return ["again"]
    if isinstance(item, FunctionType):
        # Each function once, however many others call it.
        seen.add(id(item))
        cells = [_content(cell) for cell in item.__closure__ or ()]
        used = [item.__defaults__, item.__kwdefaults__, *cells, *_globals(item)]
        return _code(item.__code__) + [text for each in used for text in _parts(each, seen)]
    if isinstance(item, MethodType):
        return _parts(item.__func__, seen) + _parts(item.__self__, seen)
    if isinstance(item, partial):
        return [text for each in (item.func, item.args, item.keywords) for text in _parts(each, seen)]
    if isinstance(item, tuple | list):
        return [type(item).__name__, *(text for each in item for text in _parts(each, seen | {id(item)}))]
    if isinstance(item, dict):
        return [text for pair in item.items() for each in pair for text in _parts(each, seen | {id(item)})]
    if item is None or isinstance(item, bool | int | float | str | bytes | type):
        return [repr(item)]
    if callable(item) and hasattr(item, "__wrapped__"):
        # Such as what functools.lru_cache makes.
        return [type(item).__qualname__, *_parts(item.__wrapped__, seen | {id(item)})]
    call = vars(type(item)).get("__call__")
    own = _parts(call, seen | {id(item)}) if isinstance(call, FunctionType) else []
    return own + _token(item)


def _token(item: Any) -> list[str]:
    from dask.base import tokenize

    try:
        return [tokenize(item, ensure_deterministic=True)]
    except Exception:
        # Something with an identity of its own, such as an open file: its class has to do.
        return [f"{type(item).__module__}.{type(item).__qualname__}"]


def _globals(function: FunctionType) -> list[Any]:
    """Return the plain values, and the functions of the same module, that a function uses by name."""
    found = []
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name)
        is_own = isinstance(value, FunctionType) and value.__module__ == function.__module__
        if is_own or (isinstance(value, _PLAIN) and not name.startswith("__")):
            found.append(value)
    return found


_PLAIN: Final = (bool, int, float, str, bytes, tuple, list, dict, np.ndarray)


def _names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _code(code: CodeType) -> list[str]:
    constants = [
        text
        for constant in code.co_consts
        for text in (
            _code(constant)
            if isinstance(constant, CodeType)
            else [repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)]
        )
    ]
    return [code.co_code.hex(), *code.co_names, *code.co_varnames, *constants]


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None

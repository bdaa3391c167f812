"""Damage: one change to a document or a chunk of a session, chosen by a seed, and every way of reading it."""

from __future__ import annotations

import copy
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from intake_nwbzarr import check, open_hierarchy, open_nwb
from intake_nwbzarr.errors import NWBZarrError

CORPUS = Path(__file__).parent / "data" / "corpus"
SESSIONS = [
    f"{kind}_hdmf-zarr-{release}"
    for kind in ("ecephys", "icephys", "ophys")
    for release in ("0.8.0", "0.14.0")
]
LOADED = 10**7
"""Elements of an array that is read; larger ones are only declared."""

DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.5, 1e400, float("nan")),
    *(-(2**31), 2**31, 2**53, 2**63, 2**64, 10**40),
    *("", "x", "/", ".", "..", "0", "NaN", "\ud800", "\0", "é", "a" * 5000, "units", "/units"),
    *("int8", "float64", "string", "bool", "complex128", "gzip", "bytes", "object"),
    *("<U0", "|O", "<M8[ns]", "|S3"),
    *([], [0], [1], [2, 2], [-1], [10**12], [2**40, 2**40], [None], ["a", "b"], [[1]]),
    *({}, {"name": "x"}, {"name": "bytes"}, {"path": "/units", "source": "."}),
    {"_REFERENCE": {"path": "/nowhere", "source": "."}},
    {"zarr_dtype": "object", "value": {"path": "/acquisition", "source": "."}},
    [{"name": "link", "path": "/units", "source": "../other.nwb.zarr"}],
    [{"name": "numcodecs.pickle"}],
    [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "gzip", "configuration": {"level": 1}}],
    {"name": "fixed_length_utf32", "configuration": {"length_bytes": 8}},
    DEEP,
]
"""Values that stand where others belong."""


class Session:
    """A session of the corpus that is damaged in place, and mended again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = folder / f"{name}.nwb.zarr"
        with zipfile.ZipFile(CORPUS / f"{name}.nwb.zarr.zip") as archive:
            archive.extractall(self.path)
        is_zarr_3 = (self.path / "zarr.json").exists()
        self.document = self.path / ("zarr.json" if is_zarr_3 else ".zmetadata")
        self.whole = json.loads(self.document.read_text())
        files = [file for file in self.path.rglob("*") if file.is_file()]
        self.chunks = sorted(
            file
            for file in files
            if file.name not in {"zarr.json", ".zmetadata", ".zgroup", ".zarray", ".zattrs"}
            and "specifications" not in file.parts
        )
        self.groups = [
            path
            for path in open_hierarchy(self.path)
            if path and not path.startswith("specifications") and "/" in path
        ]

    @contextmanager
    def damaged(self, random: random.Random) -> Iterator[str]:
        """Change one thing, or several, and say what."""
        if random.random() < 0.25:
            chunk = random.choice(self.chunks)
            before = chunk.read_bytes()
            after, what = _damaged_bytes(before, random)
            chunk.write_bytes(after)
            try:
                yield f"{chunk.relative_to(self.path)} {what}"
            finally:
                chunk.write_bytes(before)
            return
        changed = copy.deepcopy(self.whole)
        nodes = changed.get("consolidated_metadata", changed)["metadata"]
        told = [_damage_document(changed, nodes, random) for _ in range(random.choice([1, 1, 1, 2, 5]))]
        self.document.write_text(json.dumps(changed))
        try:
            yield "; ".join(told)
        finally:
            self.document.write_text(json.dumps(self.whole))


def _damaged_bytes(data: bytes, random: random.Random) -> tuple[bytes, str]:
    place = random.randrange(len(data) + 1)
    match random.randrange(5):
        case 0:
            return data[:place], f"truncated to {place}"
        case 1:
            flipped = bytearray(data or b"\0")
            place = random.randrange(len(flipped))
            flipped[place] ^= 1 << random.randrange(8)
            return bytes(flipped), f"bit of byte {place} flipped"
        case 2:
            return data + random.randbytes(place), f"{place} bytes more"
        case 3:
            return random.randbytes(len(data)), "random"
        case _:
            start = min(place, 16)
            return data[:start] + b"\xff" * 4 + data[start + 4 :], f"0xff at {start}"


def _damage_document(root: dict[str, Any], nodes: dict[str, Any], random: random.Random) -> str:
    names = [name for name in nodes if not name.startswith("specifications")]
    name = random.choice([*names, ""])
    document = root if name == "" and "consolidated_metadata" in root else nodes.get(name, nodes)
    kind = random.randrange(20)
    if kind == 0 and name:
        del nodes[name]
        return f"{name}: left out"
    if kind == 1 and name:
        nodes[name] = copy.deepcopy(random.choice(ODD))
        return f"{name}: {_short(nodes[name])}"
    if kind == 2 and name:
        other = random.choice(names)
        nodes[name] = copy.deepcopy(nodes[other])
        return f"{name}: that of {other}"
    if kind == 3 and name:
        renamed = f"{name}/{random.choice(['x', 'data', 'id', '.zarray', 'é'])}"
        nodes[renamed] = copy.deepcopy(nodes[name])
        return f"{renamed}: that of {name}"
    holder, key = _place(document, random)
    if holder is None:
        return "nothing"
    value = copy.deepcopy(random.choice(ODD))
    if random.random() < 0.2:
        value = copy.deepcopy(_place(nodes, random)[0])
    if random.random() < 0.1:
        del holder[key]
        return f"{name}: {key!r} left out"
    holder[key] = value
    return f"{name}: {key!r} = {_short(value)}"


def _place(document: Any, random: random.Random) -> tuple[Any, Any]:
    """Somewhere in a document: a container, and a key of it."""
    holder, key = None, None
    while isinstance(document, dict | list) and document:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        keys = [key for key in keys if key not in ("consolidated_metadata", "metadata")] or keys
        holder, key = document, random.choice(keys)
        document = document[key]
        if random.random() < 0.3:
            break
    return holder, key


def _short(value: Any) -> str:
    try:
        return repr(value)[:100]
    except RecursionError:
        return "nested deeply"


def read_everything(session: Session, random: random.Random) -> None:
    """Open flat, as a tree, one object and raw, read, and check; only errors of this package are accepted."""
    group = random.choice(session.groups)
    ways: list[Callable[[], Any]] = [
        lambda: _load(xr.open_dataset(session.path, engine="nwbzarr")),
        lambda: _load_tree(session.path),
        lambda: _load(xr.open_dataset(session.path, engine="nwbzarr", group=group, mask_and_scale=False)),
        lambda: _load_raw(session.path),
        lambda: json.dumps((found := check(session.path)).document) + str(found),
    ]
    for way in ways:
        _tolerating(way)


def _load_tree(path: Path) -> None:
    for node in xr.open_datatree(path, engine="nwbzarr").subtree:
        _load(node.to_dataset(inherit=False))


def _load(dataset: xr.Dataset) -> None:
    repr(dataset)
    for name in dataset.variables:
        if dataset[name].size <= LOADED:
            _tolerating(dataset[name].load)


def _load_raw(path: Path) -> None:
    with open_nwb(path) as nwbfile:
        for container in nwbfile.objects.values():
            for field in ("data", "timestamps", "id"):
                data: Any = getattr(container, field, None)
                if isinstance(data, zarr.Array) and data.size <= LOADED:
                    _tolerating(partial(data.__getitem__, ...))


def _tolerating(read: Callable[[], Any]) -> None:
    with suppress(NWBZarrError):
        read()


def sessions(folder: Path) -> list[Session]:
    """All sessions that are damaged, unpacked."""
    shutil.rmtree(folder, ignore_errors=True)
    return [Session(name, folder) for name in SESSIONS]

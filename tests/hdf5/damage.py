"""Damage to small HDF5 files, chosen by a seed, and reading all of a file in a process of its own."""

from __future__ import annotations

import os
import pickle
import random
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import NWBZarrError
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.hdf5.files import VERSIONS, compressed_group, expected, write, write_shared

SECONDS = 60
"""After which reading a file counts as endless."""

MOST_MEMORY = 2**30
"""Bytes that reading a file may take beside what the libraries take."""

LOADED = 10**6
"""Elements of an array that is read; damaged shapes can be larger."""

SIGNATURES = (
    *(b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"FRHP", b"BTHD", b"FAHD", b"EAHD"),
    *(b"FHDB", b"FHIB", b"SMTB"),
)

type Values = dict[str, np.ndarray[Any, Any]]


def _fill(file: h5py.File) -> None:
    chance = np.random.default_rng(1)
    numbers = chance.integers(0, 1000, (60, 7))
    for name, largest in {"fixed": None, "extensible": (None, 7), "tree": (None, None)}.items():
        for kind in ("plain", "gzip"):
            options = {} if kind == "plain" else {"compression": "gzip", "shuffle": True, "fletcher32": True}
            dataset = file.create_dataset(
                f"chunked/{name} {kind}", (60, 7), "<i4", chunks=(4, 7), maxshape=largest, **options
            )
            dataset[:40] = numbers[:40]
    file.create_dataset("chunked/lzf", data=numbers, dtype="<i2", chunks=(30, 7), compression="lzf")
    file["contiguous"] = numbers.astype(">f4")
    file["texts/variable"] = np.array(["a", "é", "", "long " * 50] * 5, object)
    file["texts/fixed"] = np.array([b"a", b"bc"], "S5")
    file["references"] = np.array([file.ref, file["texts"].ref, h5py.Reference()], h5py.ref_dtype)
    file["booleans"] = np.arange(9) % 2 == 0
    pair = np.dtype([("a", "<i4"), ("name", h5py.string_dtype()), ("to", h5py.ref_dtype)])
    file["compound"] = np.array([(1, "x", file.ref), (2, "y", file["texts"].ref)], pair)
    file["scalar"] = 5
    file["soft"] = h5py.SoftLink("/texts/fixed")
    for number in range(30):
        file["texts"].attrs[f"attribute {number}"] = f"text {number}"
    for number in range(40):
        file[f"many/{number}"] = number


def _fill_shared(file: h5py.File) -> None:
    _fill(file)
    group = compressed_group(file, "compressed", "gzip", "fletcher32")
    for number in range(200):
        group[f"member {number}"] = h5py.SoftLink("/scalar")
    group["long"] = h5py.SoftLink("/" + "x" * 20_000)
    for number in range(5):
        group[f"dataset {number}"] = number


def undamaged(folder: Path) -> list[Path]:
    """Write the files that are damaged, one for each version of the format."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = [write(folder / f"{name}.nwb", _fill, libver=libver) for name, libver in VERSIONS.items()]
    return [*plain, write_shared(folder / "shared.nwb", _fill_shared)]


def damaged(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Return the bytes of a file with some changes, and what they are."""
    changed = bytearray(content)
    told = []
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        at = chance.randrange(len(changed))
        # What refers to something else is mostly near a signature.
        if chance.random() < 0.5:
            signature = chance.choice(SIGNATURES)
            places = [place for place in range(len(changed)) if changed.startswith(signature, place)]
            at = min(chance.choice(places or [at]) + chance.randrange(200), len(changed) - 1)
        match chance.randrange(6):
            case 0 | 1:
                changed[at] ^= 1 << chance.randrange(8)
                told.append(f"bit flipped at {at}")
            case 2:
                value = chance.choice([b"\xff" * 8, bytes(8), b"\xff" * 2, bytes([0, 0, 0, 0, 1, 0, 0, 0])])
                changed[at : at + len(value)] = value
                told.append(f"{value!r} at {at}")
            case 3:
                value = chance.randbytes(chance.choice([1, 2, 4, 8, 64]))
                changed[at : at + len(value)] = value
                told.append(f"{value!r} at {at}")
            case 4:
                other = chance.randrange(len(changed))
                changed[at : at + 16] = changed[other : other + 16]
                told.append(f"16 bytes of {other} at {at}")
            case _:
                # An address that leads somewhere else, perhaps back.
                at = at // 8 * 8
                value = (chance.randrange(len(changed)) // 8 * 8).to_bytes(8, "little")
                changed[at : at + 8] = value
                told.append(f"address {int.from_bytes(value, 'little')} at {at}")
    return bytes(changed[: len(content)]), "; ".join(told)


def read_all(path: Path) -> Values:
    """Return what can be read of a file; only errors of this package are passed over."""
    found: Values = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            hierarchy = open_hierarchy(path)
        except NWBZarrError:
            return found
        for name in hierarchy:
            try:
                node = hierarchy[name]
                if not isinstance(node, ArrayNode) or node.size > LOADED:
                    continue
                stored = StoredArray(hierarchy.file, node)
                if node.dtype.names is None:
                    found[name] = stored.read()
                    continue
                for field in node.dtype.names:
                    found[f"{name}\0{field}"] = stored.field(field).read()
            except NWBZarrError:
                continue
    return found


def differences(path: Path, found: Values) -> list[str]:
    """Return where h5py reads something else; what it does not read is passed over."""
    different = []
    with h5py.File(path) as file:
        for key, values in found.items():
            name, _, field = key.partition("\0")
            try:
                dataset = file[name]
                creation = dataset.id.get_create_plist()
                if creation.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED:
                    # What is not written is then what was in memory.
                    continue
                if creation.get_fill_time() == h5py.h5d.FILL_TIME_NEVER:
                    continue
                wanted = expected(dataset, field=field or None)
            except (OSError, RuntimeError, ValueError, KeyError, TypeError, UnicodeError, SystemError):
                continue
            flat = [_comparable(value) for value in values.reshape(-1).tolist()]
            others = [_comparable(value) for value in wanted.reshape(-1).tolist()]
            # What h5py cannot open has no name there.
            pairs = zip(flat, others, strict=False)
            if values.shape != wanted.shape or any(a != b for a, b in pairs if b is not None):
                different.append(f"{key!r}: {flat[:5]} instead of {wanted.reshape(-1).tolist()[:5]}")
    return different


def _comparable(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, h5py.Reference):
        return None
    if isinstance(value, float) and np.isnan(value):
        return "NaN"
    return value


def check(original: Path, seed: int, folder: Path) -> str | None:
    """Damage a file, read it in a forked process and compare it in another; return what went wrong."""
    content, what = damaged(original.read_bytes(), random.Random(seed))
    path, values = folder / f"damaged {seed}.nwb", folder / f"values {seed}"
    path.write_bytes(content)
    try:
        problem = forked(lambda: values.write_bytes(pickle.dumps(read_all(path))))
        if problem is None and values.exists():
            found: Values = pickle.loads(values.read_bytes())

            def compare() -> None:
                if different := differences(path, found):
                    raise AssertionError("; ".join(different[:3]))

            problem = forked(compare)
            # The library may crash, or never end.
            problem = problem if problem is not None and "AssertionError" in problem else None
    finally:
        path.unlink()
        values.unlink(missing_ok=True)
    return None if problem is None else f"{original.name}, seed {seed} ({what[:300]}): {problem}"


def forked(work: Callable[[], Any]) -> str | None:
    """Run a function in a forked process; return how it failed."""
    reader, writer = os.pipe()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = os.fork()
    if not child:
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_AS, (8 * MOST_MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        status = 0
        try:
            work()
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            if grown > MOST_MEMORY:
                raise MemoryError(f"{grown:,} bytes")
        except BaseException:
            status = 1
            os.write(writer, traceback.format_exc()[-3000:].encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        text = told.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "took too long" if number == signal.SIGALRM else f"ended by signal {number}"
    return text or None


def main() -> None:
    """Check seeds from one to another in files of a folder, and end with what went wrong."""
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    originals = undamaged(folder)
    problems = [
        problem
        for seed in range(first, last)
        if (problem := check(originals[seed % len(originals)], seed, folder)) is not None
    ]
    sys.exit("\n\n".join([f"{len(problems)} problems", *problems[:10]]) if problems else 0)


if __name__ == "__main__":
    main()

"""Measure how the package is divided: its files, what a call has to walk through, and import circles.

Run it from the root of a checkout, with the package installed::

    uv run tools/rooms.py

It writes a small session, serves it over HTTP on 127.0.0.1, and counts which of the package's files are
entered (a function in them is called) and how often control passes from one file to another.
"""

from __future__ import annotations

import ast
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "intake_nwbzarr"


def main() -> None:
    """Print all figures, one a line."""
    files = sorted(PACKAGE.rglob("*.py"))
    lines = sum(len(file.read_text().splitlines()) for file in files)
    print(f"files: {len(files)}")
    print(f"lines: {lines:,}")
    print(f"files under 100 lines: {sum(len(file.read_text().splitlines()) < 100 for file in files)}")
    imports = {function_level: import_graph(files, function_level) for function_level in (False, True)}
    one_user = [each for each in imports[True] if len(users(imports[True], each)) == 1]
    print(f"files that one other file imports: {len(one_user)}")
    for function_level, graph in imports.items():
        kind = "with imports inside functions" if function_level else "at import time"
        print(f"import circles {kind}: {[sorted(circle) for circle in circles(graph)]}")
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as url:
        walk(write_session(Path(folder)), url)


def walk(name: str, url: str) -> None:
    """Print what four calls walk through."""
    import intake
    import xarray as xr

    location = f"{url}/{name}"
    group = "acquisition/ElectricalSeries"
    open_series = partial(xr.open_dataset, location, engine="nwbzarr", group=group)
    open_series()  # imports and entry points
    fresh(name, "a")
    series = counted(
        "open one series", partial(xr.open_dataset, f"{url}/a.nwb.zarr", engine="nwbzarr", group=group)
    )
    data = (
        series["ElectricalSeries"] if "ElectricalSeries" in series else series[next(iter(series.data_vars))]
    )
    counted("read its first samples", lambda: data[:10].values)
    counted("read one more chunk (one GET)", lambda: data[1000:1010].values)
    catalog = Path(tempfile.mkdtemp()) / "catalog.yaml"
    catalog.write_text(
        f"sources:\n  s:\n    driver: nwbzarr\n    args: {{urlpath: '{location}', group: {group}}}\n"
    )
    intake.open_catalog(str(catalog)).s.read()
    counted("read a catalog entry", lambda: intake.open_catalog(str(catalog)).s.read())


_FOLDER = ""


def fresh(name: str, copy: str) -> None:
    """Give the session another name, so that nothing of it is remembered."""
    (Path(_FOLDER) / f"{copy}.nwb.zarr").symlink_to(Path(_FOLDER) / name, target_is_directory=True)


def write_session(folder: Path) -> str:
    """Write a session with electrodes and one ElectricalSeries."""
    global _FOLDER
    import numpy as np
    from hdmf_zarr import NWBZarrIO, ZarrDataIO
    from pynwb import NWBFile
    from pynwb.ecephys import ElectricalSeries

    _FOLDER = str(folder)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    file = NWBFile(session_description="rooms", identifier="rooms", session_start_time=start)
    device = file.create_device("probe")
    group = file.create_electrode_group("shank", description="-", location="CA1", device=device)
    for _ in range(4):
        file.add_electrode(location="CA1", group=group)
    electrodes = file.create_electrode_table_region([0, 1, 2, 3], "all")
    data = ZarrDataIO(np.arange(8000, dtype=np.int16).reshape(2000, 4), chunks=(500, 4))
    file.add_acquisition(ElectricalSeries("ElectricalSeries", data, electrodes, rate=1000.0))
    with NWBZarrIO(str(folder / "session.nwb.zarr"), "w") as io:
        io.write(file)
    return "session.nwb.zarr"


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def counted[T](what: str, call: Callable[[], T]) -> T:
    """Call, and print which files of the package that entered and how often it passed between them."""
    monitoring = sys.monitoring
    tool, events = monitoring.PROFILER_ID, monitoring.events.PY_START | monitoring.events.PY_RESUME
    entered: set[str] = set()
    functions: set[CodeType] = set()
    last: dict[int, str] = {}
    changes = 0

    def note(code: CodeType, _offset: int) -> object:
        nonlocal changes
        if not code.co_filename.startswith(str(PACKAGE)):
            return monitoring.DISABLE
        thread = threading.get_ident()
        entered.add(code.co_filename)
        functions.add(code)
        if last.get(thread) != code.co_filename:
            changes += 1
            last[thread] = code.co_filename
        return None

    monitoring.use_tool_id(tool, "rooms")
    for event in (monitoring.events.PY_START, monitoring.events.PY_RESUME):
        monitoring.register_callback(tool, event, note)
    monitoring.set_events(tool, events)
    try:
        result = call()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    print(f"{what}: {len(entered)} files, {len(functions)} functions, {changes:,} changes of file")
    return result


def import_graph(files: list[Path], function_level: bool) -> dict[str, set[str]]:
    """Return the modules that each module imports from the package."""
    modules = {module_name(file) for file in files}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for file in files:
        for node in imports_of(ast.parse(file.read_text()), function_level):
            if node.module is None or not node.module.startswith("intake_nwbzarr"):
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = whole if whole in modules else node.module
                if target in modules:
                    graph[module_name(file)].add(target)
    return graph


def imports_of(node: ast.AST, function_level: bool) -> Iterator[ast.ImportFrom]:
    """Yield the ``from ... import`` statements of a module that run, without those for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        elif function_level or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports_of(child, function_level)


def module_name(file: Path) -> str:
    """Return the dotted name of a module of the package."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def users(graph: dict[str, set[str]], module: str) -> set[str]:
    """Return the modules that import a module."""
    return {each for each, imported in graph.items() if module in imported}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules that import one another, by reachability."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting.extend(graph[module])
        reached[start] = seen
    groups: dict[frozenset[str], None] = defaultdict()
    for module, seen in reached.items():
        if module in seen:
            groups[frozenset(other for other in seen if module in reached[other])] = None
    return [set(group) for group in groups if len(group) > 1]


if __name__ == "__main__":
    main()

"""Pictures of a run: bars beside the peers, and how opening grows with nodes and with latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks import measure_hdf5 as hdf5
from benchmarks import measure_opening as opening
from benchmarks import measure_reading as reading
from benchmarks.measure import Result
from benchmarks.targets import Measured

OURS, THEIRS, BOUND = "#1f77b4", "#bbbbbb", "#2ca02c"
_OURS = {opening.ONE, opening.FLAT, opening.TREE, opening.RAW, reading.PLAIN, reading.DASK, reading.SCALED}


def draw(measured: Measured, folder: Path) -> list[Path]:
    """Draw what was measured into a folder; the files."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, picture in (("peers", _peers), ("growth", _growth), ("hdf5", _hdf5)):
        figure = picture(plt, measured)
        if figure is not None:
            file = folder / f"benchmark-{name}.png"
            figure.savefig(file, dpi=110)
            plt.close(figure)
            drawn.append(file)
    return drawn


def _peers(plt: Any, measured: Measured) -> Any:
    chosen = [
        ("Opening, Zarr 3, 30 ms", measured.get("open Zarr 3", {})),
        ("Opening, Zarr 2, 30 ms", measured.get("open Zarr 2", {})),
        ("Opening one of 2,000 series, or all, 30 ms", measured.get("open 8,000 nodes", {})),
        ("Reading 256 MB in 265 kB chunks, S3, 30 ms", measured.get("read 265kB, S3", {})),
    ]
    shown = [(title, results) for title, results in chosen if results]
    if not shown:
        return None
    figure, axes = plt.subplots(
        len(shown), 1, figsize=(8, 2.4 * len(shown)), layout="constrained", squeeze=False
    )
    for axis, (title, results) in zip(axes[:, 0], shown, strict=True):
        _bars(axis, title, [result for result in results.values() if result.runs])
    return figure


def _hdf5(plt: Any, measured: Measured) -> Any:
    bars = [
        ("Opening an HDF5 file of 42 MB, 30 ms", measured.get("open HDF5", {})),
        ("Reading 100 MB in 32 kB chunks, 30 ms", measured.get("read HDF5, 30 ms", {})),
    ]
    lines = [
        ("objects of an HDF5 file", "objects: ", (opening.ONE, opening.TREE, hdf5.LIST_REMFILE)),
        ("chunks of an array of which one sample is read", "chunks: ", (reading.PLAIN, hdf5.H5PY_REMFILE)),
    ]
    if not any(results for _, results in bars) and not any(_by_number(measured, each[1]) for each in lines):
        return None
    figure, axes = plt.subplots(
        2, 2, figsize=(11, 6.4), layout="constrained", gridspec_kw={"height_ratios": (3, 2)}
    )
    for axis, (title, results) in zip(axes[0], bars, strict=True):
        if found := [result for result in results.values() if result.runs]:
            _bars(axis, title, found)
    for axis, (label, prefix, names) in zip(axes[1], lines, strict=True):
        _lines(axis, _by_number(measured, prefix), label, names)
        axis.set(xscale="log", yscale="log", ylabel="seconds")
    return figure


def _bars(axis: Any, title: str, results: Sequence[Result]) -> None:
    seconds = [result.middle("seconds") for result in results]
    colors = [
        OURS if result.name in _OURS else BOUND if result.name == reading.LIMIT else THEIRS
        for result in results
    ]
    bars = axis.barh([result.name for result in results], seconds, color=colors)
    axis.bar_label(bars, [f" {value:.3g} s" for value in seconds])
    axis.set(title=title, xscale="log", xlabel="seconds")
    axis.set_xlim(min(seconds) / 2, max(seconds) * 3)
    axis.xaxis.set_minor_formatter("")
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)


def _growth(plt: Any, measured: Measured) -> Any:
    nodes = _by_number(measured, "nodes: ")
    if nodes and (many := measured.get("open 8,000 nodes")):
        nodes[8000] = many
    latency = _by_number(measured, "latency: ")
    if not nodes and not latency:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    _lines(axes[0], nodes, "groups and arrays", (opening.ONE, opening.TREE, "NWBZarrIO"))
    axes[0].set(xscale="log", yscale="log")
    _lines(axes[1], latency, "latency of each answer (ms)", (opening.ONE, opening.FLAT, "NWBZarrIO"))
    axes[1].set_yscale("log")
    return figure


def _lines(axis: Any, found: Mapping[int, Mapping[str, Result]], label: str, names: Sequence[str]) -> None:
    for name, style in zip(names, ("o-", "s-", "^-"), strict=False):
        points = [
            (x, results[name].middle("seconds")) for x, results in sorted(found.items()) if name in results
        ]
        color = THEIRS if name in {"NWBZarrIO", hdf5.LIST_REMFILE, hdf5.H5PY_REMFILE} else None
        axis.plot([x for x, _ in points], [y for _, y in points], style, label=name, color=color)
    axis.set(xlabel=label, ylabel="seconds to open")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _by_number(measured: Measured, prefix: str) -> dict[int, Mapping[str, Result]]:
    return {
        int(name.removeprefix(prefix)): results
        for name, results in measured.items()
        if name.startswith(prefix)
    }

"""What runs have measured, a file for each measurement, with when and where it was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Result

type Several = Mapping[str, Mapping[str, Result]]


class ResultsError(ValueError):
    """Results that cannot be read, or may not be published."""


@dataclass(frozen=True)
class Measurement:
    """What was measured under one name of ``--only``.

    Parameters
    ----------
    about
        The run: its start, the machine, the server and the versions.
    results
        By the heading of their table.
    """

    about: Mapping[str, str]
    results: Several

    def save(self, file: Path) -> None:
        """Write it."""
        results = {
            name: {key: result.document() for key, result in results.items()}
            for name, results in self.results.items()
        }
        file.write_text(json.dumps({"about": dict(self.about), "results": results}))

    @classmethod
    def load(cls, file: Path) -> Measurement:
        """The inverse of `save`.

        Raises
        ------
        ResultsError
            When the file holds something else.
        """
        try:
            document = json.loads(file.read_text())
            results = {
                name: {key: Result.of(result) for key, result in results.items()}
                for name, results in document["results"].items()
            }
            return cls({**document["about"]}, results)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ResultsError(
                f"{file} does not hold results as they are written now. Remove it, or measure again with "
                f"--only {file.stem}."
            ) from error


def load_all(folder: Path, names: Iterable[str]) -> dict[str, Measurement]:
    """Those that there are, by name.

    Raises
    ------
    ResultsError
        When there are none.
    """
    files = {name: folder / f"{name}.json" for name in names}
    found = {name: Measurement.load(file) for name, file in files.items() if file.exists()}
    if not found:
        raise ResultsError(f"Nothing has been measured yet that is kept in {folder}.")
    return found


def about_all(measurements: Mapping[str, Measurement]) -> dict[str, str]:
    """When and where they were measured; of several runs, everything that differs."""
    found: dict[str, list[str]] = {}
    for measurement in measurements.values():
        for name, value in measurement.about.items():
            if value not in found.setdefault(name, []):
                found[name].append(value)
    return {name: "; ".join(sorted(values)) for name, values in found.items()}


def check_one_run(measurements: Mapping[str, Measurement], names: Iterable[str]) -> None:
    """Make sure that all there is to measure was measured by one run.

    Raises
    ------
    ResultsError
        When something is missing, or was measured by another run than the rest.
    """
    runs: dict[str, list[str]] = {}
    for name, measurement in measurements.items():
        runs.setdefault(measurement.about["date"], []).append(name)
    faults = [f"{', '.join(found)} from {date}" for date, found in sorted(runs.items())]
    missing = [name for name in names if name not in measurements]
    if missing:
        faults.append(f"nothing of {', '.join(missing)}")
    if len(faults) > 1:
        raise ResultsError(
            f"Not published, because the results are not of one run: {'; '.join(faults)}. "
            "Measure everything without --only and --resume, or publish what there is with --as-is."
        )

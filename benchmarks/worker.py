"""The process that is measured: it prepares one operation, and runs it each time it is told to.

Started as a script, also in environments that have nothing but what an alternative needs: this file uses the
standard library alone. Reads and writes one JSON document a line.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Prepare, say so, and run until there are no further lines."""
    started = time.perf_counter()
    answers = os.fdopen(os.dup(1), "w")
    # What a library prints is no answer.
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    warnings.simplefilter("ignore")
    task = json.loads(sys.argv[1])
    module, _, name = task["operation"].partition(":")
    prepare = getattr(importlib.import_module(module), name)
    try:
        run = prepare(**task["arguments"])
    except Exception as error:
        _tell(answers, {"error": f"{type(error).__name__}: {error}"[:300]})
        return
    _tell(answers, {"prepared": time.perf_counter() - started})
    held = _status("VmRSS")
    for _ in sys.stdin:
        _tell(answers, _measured(run, held))


def _measured(run: Callable[[], Any], held: int) -> dict[str, Any]:
    """One run's seconds, processor seconds, memory beyond what was held before any, and what came of it."""
    _forget_peak()
    begin, clock, processor = time.time(), time.perf_counter(), time.process_time()
    try:
        result = run()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    seconds, cpu = time.perf_counter() - clock, time.process_time() - processor
    end = time.time()
    return {
        "seconds": seconds,
        "cpu": cpu,
        "memory": max(_status("VmHWM") - held, 0),
        "begin": begin,
        "end": end,
        # Functions of what was read, which are not what is measured.
        "facts": result() if callable(result) else result,
    }


def _forget_peak() -> None:
    """Have the kernel begin a new peak of memory; not everywhere possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status(name: str) -> int:
    """A number of bytes that the kernel keeps of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _tell(answers: Any, document: dict[str, Any]) -> None:
    answers.write(json.dumps(document) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()

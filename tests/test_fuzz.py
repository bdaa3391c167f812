"""Damaged sessions end in errors of this package, in bounded time and memory, however they are read."""

import random
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tests import fuzz

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[fuzz.Session]:
    return fuzz.sessions(tmp_path_factory.mktemp("fuzz"))


def _read_damaged(sessions: list[fuzz.Session], seed: int) -> None:
    """One change, chosen by a seed, and every way of reading; what comes out names the change."""
    chance = random.Random(seed)
    session = chance.choice(sessions)
    with session.damaged(chance) as what, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fuzz.read_everything(session, chance)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {session.path.name}: {what[:300]}: {error!r:.300}") from error


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_session_raises_nothing_but_errors_of_this_package(
    seed: int, sessions: list[fuzz.Session]
) -> None:
    _read_damaged(sessions, seed)


# In a process of its own, whose memory is bounded: what takes more ends in a MemoryError.
_LONG = """
import sys, random, resource, tempfile
from pathlib import Path
from tests import fuzz, test_fuzz
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)
sessions = fuzz.sessions(Path(sys.argv[1]))
for seed in range(*map(int, sys.argv[2:])):
    test_fuzz.read_in_time(sessions, seed)
"""


def read_in_time(sessions: list[fuzz.Session], seed: int) -> None:
    """The same, in so much time and memory."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _read_damaged(sessions, seed)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    taken = time.process_time() - begun
    assert taken < 60, f"seed {seed} took {taken:.0f} s"
    assert grown < 1500, f"seed {seed} took {grown:.0f} MB"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", [10_000, 10_050])
def test_many_damaged_sessions_raise_nothing_else_in_bounded_time_and_memory(
    first: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _LONG, str(tmp_path / "sessions"), str(first), str(first + 50)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]

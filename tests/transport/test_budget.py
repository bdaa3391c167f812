"""The budget of requests and bytes in flight."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from intake_nwbzarr.limits import Limits
from intake_nwbzarr.transport import loop as module
from intake_nwbzarr.transport.loop import Budget


class Changing:
    """Limits that a test changes while a budget is in use."""

    def __init__(self, **limits: int) -> None:
        self.now = Limits(**limits)

    def __call__(self) -> Limits:
        return self.now

    def change(self, **limits: int) -> None:
        self.now = replace(self.now, **limits)


def test_no_more_requests_than_allowed_are_in_flight_and_all_get_their_turn() -> None:
    budget = Budget(Changing(requests=5))
    now, most, done = 0, 0, 0

    async def one() -> None:
        nonlocal now, most, done
        async with budget.request():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
        done += 1

    async def many() -> None:
        await asyncio.gather(*(one() for _ in range(100)))

    asyncio.run(many())
    assert (now, most, done) == (0, 5, 100)


def test_an_overload_halves_it_once_and_answers_win_it_back() -> None:
    budget = Budget(Changing(requests=64))
    for _ in range(10):
        budget.slow_down()
    assert budget.limit == 32
    for _ in range(2000):
        budget.speed_up()
    assert budget.limit == 64


def test_bytes_wait_for_room_and_a_large_body_goes_alone() -> None:
    budget = Budget(Changing(bytes_in_flight=100))
    now: list[int] = []
    seen: list[list[int]] = []

    async def one(size: int) -> None:
        async with budget.body(size):
            now.append(size)
            seen.append(list(now))
            await asyncio.sleep(0.001)
            now.remove(size)

    async def many() -> None:
        await asyncio.gather(*(one(size) for size in (60, 30, 500, 40, 40, 40)))

    asyncio.run(many())
    assert seen == [[60], [60, 30], [500], [40], [40, 40], [40]] or sum(seen[-1]) <= 100
    assert all(sum(sizes) <= 100 or len(sizes) == 1 for sizes in seen)


def test_a_cancelled_request_gives_its_place_to_another() -> None:
    async def scenario() -> None:
        budget = Budget(Changing(requests=1, bytes_in_flight=10))

        async def hold(seconds: float) -> None:
            async with budget.request(), budget.body(10):
                await asyncio.sleep(seconds)

        first = asyncio.create_task(hold(0.02))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(hold(0)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        async with asyncio.timeout(1):
            await hold(0)
        # Admitted and cancelled in the same turn of the loop.
        holder = asyncio.create_task(hold(0))
        await asyncio.sleep(0)
        queued = asyncio.create_task(hold(0))
        await asyncio.sleep(0)
        await holder
        queued.cancel()
        await asyncio.gather(queued, return_exceptions=True)
        async with asyncio.timeout(1):
            await hold(0)

    asyncio.run(scenario())


def test_limits_that_are_changed_hold_for_what_waits_already() -> None:
    limits = Changing(requests=2)
    budget = Budget(limits)
    now, seen = 0, []

    async def one(number: int) -> None:
        nonlocal now
        async with budget.request():
            now += 1
            seen.append(now)
            if number in {10, 20}:
                limits.change(requests={10: 6, 20: 3}[number])
            await asyncio.sleep(0.001)
            now -= 1

    async def many() -> None:
        async with asyncio.timeout(5):
            await asyncio.gather(*(one(number) for number in range(60)))

    asyncio.run(many())
    assert len(seen) == 60
    assert max(seen[:10]) == 2
    assert max(seen[11:20]) == 6
    # Those that were in flight when it was lowered were finished.
    assert max(seen[30:]) == 3


def test_bytes_that_are_changed_hold_for_what_waits_already() -> None:
    limits = Changing(bytes_in_flight=10)
    budget = Budget(limits)
    now, seen = 0, []

    async def one(number: int) -> None:
        nonlocal now
        async with budget.body(10):
            now += 1
            seen.append(now)
            if number == 5:
                limits.change(bytes_in_flight=40)
            await asyncio.sleep(0.001)
            now -= 1

    async def many() -> None:
        async with asyncio.timeout(5):
            await asyncio.gather(*(one(number) for number in range(30)))

    asyncio.run(many())
    assert max(seen[:5]) == 1
    assert max(seen[6:]) == 4


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A clock that stands still, and a function that lets two seconds pass."""
    now = 100.0

    def pass_time() -> None:
        nonlocal now
        now += 2

    monkeypatch.setattr(module, "monotonic", lambda: now)
    return pass_time


@pytest.mark.parametrize(("requests", "fewest"), [(256, 4), (10, 4), (3, 3), (1, 1)])
def test_overloads_halve_what_was_set_and_answers_win_back_no_more(
    requests: int, fewest: int, clock: Callable[[], None]
) -> None:
    budget = Budget(Changing(requests=requests))
    assert budget.limit == requests
    seen = []
    for _ in range(10):
        budget.slow_down()
        clock()
        seen.append(budget.limit)
    assert seen[0] == max(requests // 2, fewest)
    assert seen[-1] == fewest
    answers = 0
    while budget.limit < requests:
        budget.speed_up()
        answers += 1
    # One request more for as many answers as are allowed.
    assert answers == pytest.approx((requests**2 - fewest**2) / 2, rel=0.1, abs=10)
    budget.speed_up()
    assert budget.limit == requests


def test_a_limit_that_is_lowered_and_raised_leaves_what_an_overload_has_halved() -> None:
    limits = Changing(requests=64)
    budget = Budget(limits)
    budget.slow_down()
    limits.change(requests=20)
    assert budget.limit == 10
    limits.change(requests=200)
    assert budget.limit == 100
    limits.change(requests=2)
    assert budget.limit == 2

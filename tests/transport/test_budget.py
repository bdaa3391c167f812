"""The budget of requests and bytes in flight."""

import asyncio

from intake_nwbzarr.transport.budget import Budget


def test_no_more_requests_than_allowed_are_in_flight_and_all_get_their_turn() -> None:
    budget = Budget(requests=5)
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
    budget = Budget(requests=64)
    for _ in range(10):
        budget.slow_down()
    assert budget.limit == 32
    for _ in range(2000):
        budget.speed_up()
    assert budget.limit == 64


def test_bytes_wait_for_room_and_a_large_body_goes_alone() -> None:
    budget = Budget(size=100)
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
        budget = Budget(requests=1, size=10)

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

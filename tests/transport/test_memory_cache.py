"""A memory bounded in bytes, against a plain list of what was used last."""

from hypothesis import given, settings
from hypothesis import strategies as st

from intake_nwbzarr.transport.memory_cache import Memory

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["put", "get", "forget"]), st.sampled_from("abcdef"), st.integers(0, 60)),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(OPERATIONS)
def test_it_holds_what_was_used_last_and_no_more_bytes_than_allowed(
    operations: list[tuple[str, str, int]],
) -> None:
    memory: Memory[int] = Memory(100)
    model: list[tuple[str, int]] = []  # least recently used first
    for number, (operation, key, size) in enumerate(operations):
        held = next((entry for entry in model if entry[0] == key), None)
        if operation == "get":
            assert (memory.get(key) is None) == (held is None)
            if held is not None:
                model.remove(held)
                model.append(held)
            continue
        model = [entry for entry in model if entry[0] != key]
        if operation == "forget":
            memory.forget(key)
        else:
            memory.put(key, number, size)
            assert memory.get(key) == number
            model.append((key, size))
            while sum(size for _, size in model) > 100:
                model.pop(0)
        assert memory.total == sum(size for _, size in model) <= 100
    assert {key for key in "abcdef" if memory.get(key) is not None} == {key for key, _ in model}


def test_what_is_larger_than_all_of_it_is_not_remembered_and_replaces_what_was() -> None:
    memory: Memory[str] = Memory(10)
    memory.put("a", "small", 5)
    memory.put("a", "large", 11)
    assert memory.get("a") is None
    assert memory.total == 0
    memory.put("b", "fits", 10)
    memory.clear()
    assert (memory.get("b"), memory.total) == (None, 0)

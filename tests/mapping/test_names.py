"""Names: short where that is enough, qualified where two objects share one, never two alike."""

from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr.mapping.assembly import object_names, safe_name
from intake_nwbzarr.mapping.model import free_name

paths = st.lists(
    st.lists(st.sampled_from(["a", "b", "a_b", "b_a", "c d", "+x"]), min_size=1, max_size=4).map("/".join),
    unique=True,
    max_size=12,
)


def test_an_object_has_its_own_name_where_that_is_enough() -> None:
    assert object_names(["acquisition/lick rate"]) == {"acquisition/lick rate": "lick rate"}


def test_objects_of_one_name_are_all_qualified_by_the_shortest_part_that_tells_them_apart() -> None:
    names = object_names(["p/ophys/Fluorescence/Series", "p/ophys/Neuropil/Series", "p/behavior/speed"])
    assert list(names.values()) == ["Fluorescence_Series", "Neuropil_Series", "speed"]


def test_a_series_and_a_table_of_one_name_are_told_apart() -> None:
    names = object_names(["intervals/sleep_ripples", "processing/ecephys/sleep_ripples"])
    assert list(names.values()) == ["intervals_sleep_ripples", "ecephys_sleep_ripples"]


def test_path_names_are_relative_to_the_container_that_is_viewed() -> None:
    assert object_names(["p/m/F/s"], "path", "p/m") == {"p/m/F/s": "F_s"}
    assert object_names(["p/m/F/s"], "path") == {"p/m/F/s": "p_m_F_s"}


def test_safe_names_are_identifiers() -> None:
    assert [safe_name(name) for name in ("lick rate", "-0", "2p", "", "größe")] == [
        "lick_rate",
        "_0",
        "_2p",
        "_",
        "gr__e",
    ]


@given(paths, st.sampled_from(["short", "path", "safe"]))
def test_no_two_objects_ever_share_a_name(objects: list[str], style: str) -> None:
    names = object_names(objects, style)  # type: ignore[arg-type]
    assert set(names) == set(objects)
    assert len(set(names.values())) == len(objects)


def test_a_taken_name_gets_an_underscore_more() -> None:
    assert free_name("time", {"time", "time_"}) == "time__"

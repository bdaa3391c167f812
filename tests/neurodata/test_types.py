"""Types: the generated table, inheritance, and what an unknown type is taken for."""

from intake_nwbzarr.neurodata.core_types import DIMENSIONS, PARENTS
from intake_nwbzarr.neurodata.schema import definitions
from intake_nwbzarr.neurodata.types import ancestry, series_dimensions
from tests.neurodata.core_schema import core_definitions


def test_the_generated_table_is_that_of_the_installed_pynwb() -> None:
    _, found = core_definitions()
    assert {name: definition.parent for name, definition in found.items()} == PARENTS, (
        "run: python -m tests.neurodata.core_schema && ruff format"
    )
    dimensions = {name: definition.dimensions for name, definition in found.items() if definition.dimensions}
    assert dimensions == DIMENSIONS, "run: python -m tests.neurodata.core_schema && ruff format"


def test_a_patch_clamp_series_is_a_time_series_because_the_schema_says_so() -> None:
    assert ancestry("IZeroClampSeries")[:4] == (
        "IZeroClampSeries",
        "CurrentClampSeries",
        "PatchClampSeries",
        "TimeSeries",
    )


def test_an_unknown_type_is_its_own_only_ancestor() -> None:
    assert ancestry("SomethingElse") == ("SomethingElse",)


def test_dimensions_come_from_the_nearest_ancestor_that_names_them() -> None:
    assert series_dimensions("ImageMaskSeries")[0] == (("frame", "x", "y"), ("frame", "x", "y", "z"))
    assert series_dimensions("CurrentClampSeries")[0] == (("num_times",),)


def test_nested_definitions_and_single_or_alternative_dims_are_found() -> None:
    document = {
        "groups": [
            {
                "neurodata_type_def": "Outer",
                "neurodata_type_inc": "NWBDataInterface",
                "groups": [
                    {
                        "neurodata_type_def": "Inner",
                        "neurodata_type_inc": "TimeSeries",
                        "datasets": [
                            {"name": "data", "dims": [["frames", "x,y"], ["frames", "x,y,z"]]},
                            {"name": "confidence", "dims": ["frames"]},
                            {"name": "reference_frame"},
                        ],
                    }
                ],
            }
        ]
    }
    found = dict(definitions(document))
    assert found["Outer"].parent == "NWBDataInterface"
    assert found["Inner"].dimensions == {
        "data": (("frames", "x,y"), ("frames", "x,y,z")),
        "confidence": (("frames",),),
    }

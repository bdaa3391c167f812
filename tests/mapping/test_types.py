"""Types: those of the core schema, inheritance, and what an unknown type is taken for."""

from intake_nwbzarr.mapping.schema import CORE_TYPES, ancestry, definitions, series_dimensions
from tests.mapping.core_schema import document_text


def test_the_core_types_are_those_of_the_installed_pynwb() -> None:
    assert CORE_TYPES.read_text() == document_text(), "run: python -m tests.mapping.core_schema"


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

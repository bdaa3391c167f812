"""Errors: derived from what callers catch, readable, and whole after a journey between processes."""

import inspect
import pickle

import pytest

from intake_nwbzarr import errors

ERRORS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.NWBZarrError)
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_reads_as_its_sentence_and_survives_pickling(kind: type[Exception]) -> None:
    error = kind("Nothing is stored at s3://bucket/a.nwb.zarr.")
    assert str(error) == "Nothing is stored at s3://bucket/a.nwb.zarr."
    # As distributed rebuilds the errors of its workers.
    assert isinstance(kind.__new__(kind), kind)


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_the_fields_of_an_error_survive_pickling(kind: type[errors.NWBZarrError]) -> None:
    fields = {
        "location": "s3://bucket/a.nwb.zarr",
        "path": "units",
        "found": 3,
        "expected": "a name",
        "next_step": "Pass a name.",
        "transient": True,
    }
    error = pickle.loads(pickle.dumps(kind("No name.", **fields)))
    assert {name: getattr(error, name) for name in fields} == fields
    assert str(error) == "No name. Pass a name."


def test_an_error_survives_pickling_whatever_was_passed() -> None:
    error = pickle.loads(pickle.dumps(errors.OptionError("No name.", found=lambda: None, expected={"a": 1})))
    assert "lambda" in error.found
    assert error.expected == "{'a': 1}"


def test_every_class_tells_its_causes_and_what_helps() -> None:
    """The page of the documentation is made of these docstrings."""
    kinds = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    ]
    for kind in set(kinds) - {errors.NWBZarrError, errors.NWBZarrWarning}:
        text = inspect.getdoc(kind) or ""
        assert "\n\nCause: " in text, kind
        assert "\n\nNext step: " in text, kind


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in ERRORS:
        assert kind.__name__ in errors.__doc__

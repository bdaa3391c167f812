"""The table of codes, its page, and what `explain` says of codes and errors."""

from __future__ import annotations

import re

import pytest

from intake_nwbzarr import errors
from intake_nwbzarr.checks.codes import CODES, explain, explain_all
from intake_nwbzarr.errors import NWBZarrError, NWBZarrWarning, OptionError
from tests.checks.findings_page import PAGE, page


def test_the_page_of_findings_is_that_of_the_table() -> None:
    assert PAGE.read_text() == page(), "python -m tests.checks.findings_page writes it"


def test_codes_are_words_and_say_all_that_a_finding_needs() -> None:
    for name, code in CODES.items():
        assert code.name == name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert code.meaning.endswith(".")
        assert code.why.endswith(".")
        assert code.mend


def test_a_code_and_an_error_are_explained() -> None:
    text = explain("small-chunks")
    assert text.splitlines()[0] == "small-chunks (warning)"
    assert "nwbzarr convert LOCATION DESTINATION" in text
    text = explain("LinkError")
    assert text.startswith("LinkError (NodeNotFoundError)\n")
    assert "circular" in text


def test_all_codes_errors_and_warnings_are_listed_and_explained() -> None:
    listed = explain_all()
    classes = [
        name
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, NWBZarrError | NWBZarrWarning)
    ]
    for name in (*CODES, *classes):
        assert re.search(rf"^  {name} ", listed, re.MULTILINE)
        assert explain(name)


def test_a_code_that_does_not_exist_is_an_error_with_the_closest_ones() -> None:
    with pytest.raises(OptionError) as caught:
        explain("small-chunk")
    assert caught.value.next_step == "Did you mean 'small-chunks'?"

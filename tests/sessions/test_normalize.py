"""Spellings of species, age, sex and start times that archives have, in one form."""

from __future__ import annotations

import datetime as dt

import hypothesis.strategies as st
import pytest
from hypothesis import given

from intake_nwbzarr.sessions.tables.normalize import age_days, sex_code, start_time, taxon

MICE = (
    "Mus musculus", "mus musculus", "MUS MUSCULUS", "Mus_musculus", " Mus  musculus ", "mouse", "Mouse",
    "mice", "house mouse", "Mus musculus - House mouse", "http://purl.obolibrary.org/obo/NCBITaxon_10090",
    "NCBITaxon:10090", "NCBITaxon_10090", "ncbitaxon:10090", "M. musculus", "Mus musculus (mouse)",
    "Mus musculus domesticus", "Mouse, C57BL/6", "Mus musculus C57BL/6J", "Mus musculus.",
    "C57BL/6 mouse", "C57BL/6J", "Mus musculus (taxid 99999)", "NCBITaxon:99999 Mus musculus",
)  # fmt: skip


@pytest.mark.parametrize("text", MICE)
def test_every_spelling_of_mouse_is_mus_musculus(text: str) -> None:
    assert taxon(text) == "Mus musculus"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rat", "Rattus norvegicus"),
        ("Rattus norvegicus - Norway rat", "Rattus norvegicus"),
        ("Human", "Homo sapiens"),
        ("Macaca mulatta - Rhesus monkey", "Macaca mulatta"),
        ("rhesus macaque", "Macaca mulatta"),
        ("macaque", "Macaca"),
        ("zebra fish", "Danio rerio"),
        ("Drosophila", "Drosophila melanogaster"),
        ("Drosophila suzukii", "Drosophila suzukii"),
        ("C. elegans", "Caenorhabditis elegans"),
        ("common marmoset", "Callithrix jacchus"),
        ("ferret", "Mustela putorius furo"),
        ("Mustela putorius furo", "Mustela putorius furo"),
        ("zebra finch", "Taeniopygia guttata"),
        ("http://purl.obolibrary.org/obo/NCBITaxon_9606", "Homo sapiens"),
        ("Peromyscus leucopus", "Peromyscus leucopus"),
        ("Peromyscus_leucopus", "Peromyscus leucopus"),
        ("Peromyscus Leucopus", "Peromyscus leucopus"),
        ("Peromyscus leucopus (NCBITaxon:10041)", "Peromyscus leucopus"),
        ("Peromyscus leucopus - White-footed mouse", "Peromyscus leucopus"),
        ("Peromyscus leucopus noveboracensis", "Peromyscus leucopus noveboracensis"),
        ("Long evans", "Rattus norvegicus"),
        ("Long-Evans rat", "Rattus norvegicus"),
        ("Sprague dawley", "Rattus norvegicus"),
        ("Sprague Dawley rat", "Rattus norvegicus"),
        ("Tupaia belangeri", "Tupaia belangeri"),
        ("Microtus ochrogaster", "Microtus ochrogaster"),
        ("Canis aureus niger", "Canis aureus niger"),
        ("Octodon glober", None),
        ("Acomys cahirinus", "Acomys cahirinus"),
        ("Astyanax mexicanus", "Astyanax mexicanus"),
        ("Sepia officinalis", "Sepia officinalis"),
        ("Schistocerca gregaria", "Schistocerca gregaria"),
        ("Carollia perspicillata", "Carollia perspicillata"),
        ("Naked mole-rat", "Heterocephalus glaber"),
        ("macaque (Macaca mulatta)", "Macaca mulatta"),
    ],
)
def test_other_species_have_their_scientific_name(text: str, name: str | None) -> None:
    assert taxon(text) == name


@pytest.mark.parametrize(
    "text",
    [None, "", "unknown", "Unknown species", "Wild type", "Not available", "House cat", "Field mouse", "n/a",
     "NCBITaxon:1", "monkey", "x" * 10_000, "owl", "Deer mouse", "Control group", "Head fixed",
     "Awake behaving", "Female adult", "Mouse model", "Tree shrew", "Mus spp.", "Macaca sp.", "rat, mouse",
     "rat/mouse", "Mouse and rat", "Homo sapiens and Mus musculus", "Macaca mulatta / fascicularis",
     "Macaca mulatta/fascicularis", "Mus musculus x Mus spretus", "Cotton rat", "Nucleus accumbens",
     "Motor area", "Visual cortex", "Test data", "Focus area", "Http //example"],
)  # fmt: skip
def test_what_is_no_species_is_not_made_one(text: str | None) -> None:
    assert taxon(text) is None


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("P90D", 90),
        ("p90d", 90),
        ("P12W", 84),
        ("P3M", 91.3125),
        ("P1Y2M", 365.25 + 60.875),
        ("P1DT12H", 1.5),
        ("P0.5Y", 182.625),
        ("P0D", 0),
        ("P90D/P120D", 105),
        ("90 days", 90),
        ("90 days old", 90),
        ("12-week-old", 84),
        ("12 weeks", 84),
        ("3 months", 91.3125),
        ("2 y", 730.5),
        ("P90D/", None),
        ("/P90D", None),
        ("P120D/P90D", None),
        ("P90", None),
        ("90", None),
        ("3 m", None),
        ("P", None),
        ("PT", None),
        ("adult", None),
        ("-3 days", None),
        ("1/2/3", None),
        (None, None),
        ("P" + "9" * 1000 + "D", None),
    ],
)
def test_an_age_is_in_days_if_it_is_unambiguous(text: str | None, days: float | None) -> None:
    assert age_days(text) == (None if days is None else pytest.approx(days))


def test_an_age_that_is_not_counted_from_birth_is_no_age() -> None:
    assert age_days("P18D", "gestational") is None
    assert age_days("P18D", "birth") == age_days("P18D", None) == 18


def test_the_sex_is_one_of_the_schemas_letters() -> None:
    assert [sex_code(each) for each in ("F", "female", "m", "Male", "O", "U", "unknown")] == list("FFMMOUU")
    assert sex_code("?") is None
    assert sex_code(None) is None


def test_a_start_without_a_time_zone_is_no_instant() -> None:
    assert start_time("2024-05-01T12:00:00Z") == dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
    assert start_time("2024-05-01T12:00:00") is None
    assert start_time("0001-01-01T00:00:00+14:00") is None
    assert start_time("yesterday") is None


@given(st.text(max_size=300))
def test_any_text_is_recognised_or_not(text: str) -> None:
    name, age = taxon(text), age_days(text)
    assert name is None or taxon(name) == name
    assert age is None or 0 <= age < float("inf")
    assert sex_code(text) in {"F", "M", "O", "U", None}
    start_time(text)

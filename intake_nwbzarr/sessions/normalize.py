"""Spellings of a subject's species, age and sex, and of a start time, in one form that can be compared."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final

# Scientific name: identifier in the NCBI taxonomy, and common names.
_TAXA: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "Mus musculus": (10090, ("mouse", "mice", "house mouse", "laboratory mouse", "lab mouse")),
    "Rattus norvegicus": (10116, ("rat", "rats", "norway rat", "brown rat", "laboratory rat", "lab rat")),
    "Homo sapiens": (9606, ("human", "humans", "man")),
    "Macaca mulatta": (9544, ("rhesus macaque", "rhesus monkey", "rhesus")),
    "Macaca fascicularis": (
        9541,
        (
            "cynomolgus",
            "cynomolgus macaque",
            "cynomolgus monkey",
            "long-tailed macaque",
            "crab-eating macaque",
        ),
    ),
    "Macaca nemestrina": (9545, ("pig-tailed macaque", "pigtail macaque", "southern pig-tailed macaque")),
    "Macaca": (9539, ("macaque", "macaques")),
    "Callithrix jacchus": (9483, ("marmoset", "common marmoset", "white-tufted-ear marmoset")),
    "Pan troglodytes": (9598, ("chimpanzee", "chimp")),
    "Aotus nancymaae": (37293, ("owl monkey",)),
    "Danio rerio": (7955, ("zebrafish", "zebra fish", "leopard danio")),
    "Danionella cerebrum": (2873325, ()),
    "Drosophila melanogaster": (7227, ("drosophila", "fruit fly", "fruitfly", "vinegar fly")),
    "Caenorhabditis elegans": (6239, ("c elegans", "roundworm")),
    "Mustela putorius furo": (9669, ("ferret", "domestic ferret", "european domestic ferret")),
    "Taeniopygia guttata": (59729, ("zebra finch", "zebrafinch")),
    "Gallus gallus": (9031, ("chicken", "chick")),
    "Mesocricetus auratus": (10036, ("golden hamster", "syrian hamster")),
    "Cricetulus griseus": (10029, ("chinese hamster",)),
    "Meriones unguiculatus": (10047, ("gerbil", "mongolian gerbil")),
    "Cavia porcellus": (10141, ("guinea pig", "domestic guinea pig")),
    "Oryctolagus cuniculus": (9986, ("rabbit", "european rabbit")),
    "Felis catus": (9685, ("cat", "domestic cat")),
    "Canis lupus familiaris": (9615, ("dog", "domestic dog")),
    "Sus scrofa": (9823, ("pig", "swine")),
    "Ovis aries": (9940, ("sheep",)),
    "Xenopus laevis": (8355, ("african clawed frog",)),
    "Xenopus tropicalis": (8364, ("western clawed frog",)),
    "Ambystoma mexicanum": (8296, ("axolotl",)),
    "Rousettus aegyptiacus": (9407, ("egyptian fruit bat", "egyptian rousette")),
    "Apis mellifera": (7460, ("honey bee", "honeybee", "western honey bee")),
    "Petromyzon marinus": (7757, ("sea lamprey",)),
}
_BY_IDENTIFIER: Final = {number: name for name, (number, _) in _TAXA.items()}
# The genus abbreviated, as in "M. musculus"; no two of these are the same.
_BY_NAME: Final = (
    {name.lower(): name for name in _TAXA}
    | {f"{name[0]} {name.partition(' ')[2]}".lower(): name for name in _TAXA if " " in name}
    | {common: name for name, (_, names) in _TAXA.items() for common in names}
)
_IDENTIFIER: Final = re.compile(
    r"(?:ncbi[ _]?taxon(?:omy)?|taxonomy|taxid|txid)\D{0,8}?(\d{1,9})\b", re.IGNORECASE
)
_BINOMIAL: Final = re.compile(r"([A-Z][a-z]{2,}) ([a-z][a-z-]{2,})(?: [a-z][a-z-]{2,})?")
# Words of phrases that are capitalised like a binomial: "Wild type", "Not available", "Field mouse".
_NO_GENUS: Final = frozenset(
    {
        "adult", "common", "data", "domestic", "house", "lab", "laboratory", "mixed", "new", "non",
        "none", "not", "old", "other", "see", "some", "species", "test", "the", "transgenic", "unknown",
        "unspecified", "wild",
    }
)  # fmt: skip
_NO_EPITHET: Final = frozenset(
    {
        "animal", "ape", "available", "bat", "bird", "cell", "cells", "culture", "finch", "fish", "fly",
        "frog", "hamster", "human", "known", "line", "macaque", "mice", "monkey", "mouse", "organoid",
        "owl", "patient", "phantom", "rat", "rats", "simulation", "species", "specified", "squirrel",
        "strain", "subject", "type", "vole", "worm",
    }
)  # fmt: skip
LONGEST_TEXT: Final = 200
"""Characters of a species, age, sex or time; longer texts are not recognised."""


def taxon(text: str | None) -> str | None:
    """Return the scientific name of a species in canonical spelling, None if it is not recognised.

    Common names, spellings, and terms of the NCBI taxonomy are recognised for species that are often studied;
    the scientific names of others are kept. "macaque" alone is the genus, Macaca.

    >>> taxon("http://purl.obolibrary.org/obo/NCBITaxon_10090"), taxon("Mus musculus - House mouse")
    ('Mus musculus', 'Mus musculus')
    >>> taxon("MOUSE"), taxon("m. musculus"), taxon("Peromyscus leucopus"), taxon("Wild type")
    ('Mus musculus', 'Mus musculus', 'Peromyscus leucopus', None)
    """
    if text is None or len(text) > LONGEST_TEXT:
        return None
    if term := _IDENTIFIER.search(text):
        return _BY_IDENTIFIER.get(int(term[1]))
    plain = " ".join(text.replace("_", " ").replace(".", " ").split())
    # As in "Mus musculus - House mouse" and "mouse, C57BL/6".
    parts = [plain, *re.split(r" - |[(),;/]", plain)]
    for part in parts:
        if found := _known(part.strip().lower()):
            return found
    for part in parts:
        match = _BINOMIAL.fullmatch(part.strip())
        if match and match[1].lower() not in _NO_GENUS and match[2] not in _NO_EPITHET:
            return part.strip()
    return None


def _known(name: str) -> str | None:
    if name in _BY_NAME:
        return _BY_NAME[name]
    # A subspecies or a strain after the species: "Mus musculus domesticus".
    species = " ".join(name.split()[:2])
    return _BY_NAME.get(species) if species in {each.lower() for each in _TAXA} else None


_NUMBER: Final = r"(\d{1,6}(?:[.,]\d{1,6})?)"
_DURATION: Final = re.compile(
    rf"P(?=.)(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=.)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.IGNORECASE,
)
# Days in a year, month, week, day, hour, minute and second.
_DAYS: Final = (365.25, 30.4375, 7.0, 1.0, 1 / 24, 1 / 1440, 1 / 86400)
# "90 days", "12 weeks old", "3.5 mo"; "m" alone could be minutes.
_SPOKEN: Final = re.compile(
    rf"{_NUMBER}\s*-?\s*(?:(d|days?)|(w|wks?|weeks?)|(mo|mos|months?)|(y|yrs?|years?))(?:[ -]old)?",
    re.IGNORECASE,
)
_SPOKEN_DAYS: Final = (1.0, 7.0, 30.4375, 365.25)


def age_days(text: str | None) -> float | None:
    """Return an age in days, the middle of a range; None for an open range and what is not recognised.

    >>> age_days("P12W"), age_days("P90D/P120D"), age_days("P90D/"), age_days("12 weeks")
    (84.0, 105.0, None, 84.0)
    """
    if text is None or len(text) > LONGEST_TEXT:
        return None
    ends = [_duration(end.strip()) for end in text.split("/")]
    known = [end for end in ends if end is not None]
    if not 1 <= len(ends) <= 2 or len(known) < len(ends) or sorted(known) != known:
        return None
    return math.fsum(known) / len(known)


def _duration(text: str) -> float | None:
    if match := _DURATION.fullmatch(text):
        pairs = zip(match.groups(), _DAYS, strict=True)
        return math.fsum(float(number.replace(",", ".")) * days for number, days in pairs if number)
    if match := _SPOKEN.fullmatch(text):
        number, *units = match.groups()
        days = next(days for unit, days in zip(units, _SPOKEN_DAYS, strict=True) if unit)
        return float(number.replace(",", ".")) * days
    return None


_SEXES: Final = {
    "f": "F", "female": "F", "m": "M", "male": "M", "o": "O", "other": "O", "u": "U", "unknown": "U",
}  # fmt: skip


def sex_code(text: str | None) -> str | None:
    """Return F, M, O (other) or U (unknown), as NWB has them; None if the sex is not recognised.

    >>> sex_code("Female"), sex_code("M"), sex_code("hermaphrodite")
    ('F', 'M', None)
    """
    return None if text is None else _SEXES.get(text.strip().lower())


def start_time(text: str | None) -> datetime | None:
    """Return a stored time in UTC; None if it has no time zone, or is not a time.

    >>> start_time("2024-05-01T14:00:00+02:00")
    datetime.datetime(2024, 5, 1, 12, 0, tzinfo=datetime.timezone.utc)
    """
    if text is None or len(text) > LONGEST_TEXT:
        return None
    try:
        found = datetime.fromisoformat(text.strip())
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None

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
    "Heterocephalus glaber": (10181, ("naked mole rat", "naked mole-rat")),
    "Microtus ochrogaster": (79684, ("prairie vole",)),
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
_SCIENTIFIC: Final = frozenset(name.lower() for name in _TAXA)
_IDENTIFIER: Final = re.compile(
    r"(?:ncbi[ _]?taxon(?:omy)?|taxonomy|taxid|txid)\D{0,8}?(\d{1,9})\b", re.IGNORECASE
)
# Strains that are of one species, alone or before its name.
_STRAINS: Final = {
    "Mus musculus": re.compile(r"(?:c57bl/?6\w*|balb/?c\w*)(?: mouse| mice)?"),
    "Rattus norvegicus": re.compile(r"(?:long[- ]evans|sprague[- ]dawley|wistar|lister hooded)(?: rats?)?"),
}
# Between names in one text: "Mus musculus - House mouse", "mouse, C57BL/6", "rat/mouse", "Mouse and rat".
_BETWEEN: Final = re.compile(r" - |[(),;/&+]| and | or | x ", re.IGNORECASE)
# Other names are kept if both words have Latin endings, which "Control group", "Tree shrew" and most phrases
# do not have.
_EPITHET: Final = r"[a-z-]{2,}(?:us|a|um|is|i|ae|ens|ans|ix|ax)"
_BINOMIAL: Final = re.compile(
    rf"[A-Z](?:[a-z]*(?:us|is|um|es|os|on|ys|ax|ix|yx|ps)|[a-z]+[aio]) {_EPITHET}(?: [a-z-]{{3,}})?"
)
_NO_NAME: Final = re.compile(
    r"(?:corpus|data|focus|globus|locus|nucleus|status|substantia|virus) .*|.* (?:area|data|media|retina|via)"
)
LONGEST_TEXT: Final = 200
"""Characters of a species, age, sex or time; longer texts are not recognised."""


def taxon(text: str | None) -> str | None:
    """Return the scientific name of a species in canonical spelling, None if it is not recognised.

    Common names, spellings, and terms of the NCBI taxonomy are recognised for species that are often studied;
    the scientific names of others are kept if they look like Latin. "macaque" alone is the genus, Macaca.
    Texts that name several species are not recognised.

    >>> taxon("http://purl.obolibrary.org/obo/NCBITaxon_10090"), taxon("Mus musculus - House mouse")
    ('Mus musculus', 'Mus musculus')
    >>> taxon("MOUSE"), taxon("m. musculus"), taxon("Peromyscus leucopus"), taxon("Wild type")
    ('Mus musculus', 'Mus musculus', 'Peromyscus leucopus', None)
    """
    if text is None or len(text) > LONGEST_TEXT:
        return None
    if term := _IDENTIFIER.search(text):
        if found := _BY_IDENTIFIER.get(int(term[1])):
            return found
        # The name beside an identifier that is not in the list.
        text = text.replace(term[0], " ")
    plain = " ".join(text.replace("_", " ").replace(".", " ").split())
    parts = [plain, *map(str.strip, _BETWEEN.split(plain))]
    names = {name for part in parts if (name := _name(part))}
    # "Macaca (rhesus macaque)" is the species.
    names -= {name for name in names for other in names if other.startswith(f"{name} ")}
    # Not recognised: texts with two species, also if only the epithet of one is there, as in
    # "Macaca mulatta / fascicularis".
    another = any(re.fullmatch(_EPITHET, part) and not _known(part) for part in parts)
    return names.pop() if len(names) == 1 and not another else None


def common_names(taxon: str) -> tuple[str, ...]:
    """Return the common names of a species by its scientific name, none for one that is not in the list.

    >>> common_names("Danio rerio")
    ('zebrafish', 'zebra fish', 'leopard danio')
    """
    return _TAXA[taxon][1] if taxon in _TAXA else ()


def _name(part: str) -> str | None:
    """Return the species with a name, None if it is not one of a species."""
    if found := _known(part.lower()):
        return found
    name = part.capitalize()
    is_name = part[:1].isupper() and _BINOMIAL.fullmatch(name) and not _NO_NAME.fullmatch(name.lower())
    return name if is_name else None


def _known(name: str) -> str | None:
    if name in _BY_NAME:
        return _BY_NAME[name]
    for found, strain in _STRAINS.items():
        if strain.fullmatch(name):
            return found
    # A subspecies or a strain after the species: "Mus musculus domesticus".
    species = " ".join(name.split()[:2])
    return _BY_NAME.get(species) if species in _SCIENTIFIC else None


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


def age_days(text: str | None, reference: str | None = None) -> float | None:
    """Return an age in days, the middle of a range; None for an open range and what is not recognised.

    It is also None if it is not counted from birth, which is the `reference` of NWB: gestational ages.

    >>> age_days("P12W"), age_days("P90D/P120D"), age_days("P90D/"), age_days("12 weeks")
    (84.0, 105.0, None, 84.0)
    """
    if text is None or len(text) > LONGEST_TEXT or (reference or "birth").lower() != "birth":
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

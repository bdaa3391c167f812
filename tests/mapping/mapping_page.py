"""The reference page of the mapping, made of what the engine shows of a session with every type.

``python -m tests.mapping.mapping_page`` rewrites ``docs/mapping.md`` from ``mapping_page.md``, its prose.
There, a line ``:: ElectricalSeries acquisition/electrical | acquisition/single`` stands for the section on a
type, made of the objects at these paths, and ``:: VectorIndex in units`` for a type that is part of objects.
"""

import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from intake_nwbzarr.errors import MappingWarning
from tests.mapping.core_schema import PARENTS
from tests.mapping.event_waveform import event_waveform
from tests.mapping.every_type import every_type
from tests.mapping.mapping_objects import Example, Row, Session, find_example
from tests.mapping.schema_words import Words, schema_words
from tests.mapping.unplaced_types import unplaced_types

PAGE = Path(__file__).parents[2] / "docs" / "mapping.md"
PROSE = Path(__file__).with_suffix(".md")
COMMAND = "uv run python -m tests.mapping.mapping_page"

_MARK = re.compile(r"^:: (?P<type>\w+)(?P<part> in)?(?: (?P<paths>.+))?$", re.MULTILINE)
_INDEX = ":: index"

# The page's names of the sessions beside `session`, by their files.
_VARIABLES = {"event_waveform.nwb.zarr": "waveform_session", "unplaced_types.nwb.zarr": "unplaced_session"}

# Characters of names that one cell of a table holds, for pages are narrow.
_WIDEST = 60


@dataclass(frozen=True)
class Entry:
    """What the page says of one type.

    Parameters
    ----------
    neurodata_type
        The type.
    words
        What the schema says of it.
    examples
        Objects of the type, or objects that hold some; none for types that others only extend.
    is_part
        Whether the type's objects are parts of what the examples show.
    """

    neurodata_type: str
    words: Words
    examples: tuple[Example, ...]
    is_part: bool

    @property
    def shown_as(self) -> str:
        """What becomes of objects of the type, in few words."""
        if not self.examples:
            return "only extended"
        holder = self.examples[0].shown_as()
        if not self.is_part:
            return holder
        kinds = {row.kind for row in self.examples[0].rows(self.neurodata_type)}
        labels = {"labels", "coordinate"}
        part = (
            "labels" if kinds == {"labels"} else "coordinates" if kinds and kinds <= labels else "variables"
        )
        return f"{part} of {holder if holder in {'images', 'arrays'} else f'a {holder}'}"

    def rows(self, example: Example) -> list[Row]:
        """What an example shows of the type."""
        return example.rows(self.neurodata_type if self.is_part else None)

    @property
    def dims(self) -> tuple[str, ...]:
        """Those of the first example's data, of a table's rows, or of its first or largest variable."""
        if not self.examples or self.shown_as == "container":
            return ()
        rows = self.rows(self.examples[0])
        data = [row for row in rows if "data" in row.names]
        labels = [row for row in rows if row.kind == "labels"] if self.shown_as == "table" else []
        arrays = sorted(rows, key=lambda row: -len(row.dims)) if self.shown_as == "arrays" else rows
        return next((row.dims for row in (*data, *labels, *arrays)), ())


def mapping_page(prose: str, sessions: Sequence[Session]) -> str:
    """The text of the page.

    Parameters
    ----------
    prose
        With a mark for each type, and one for the index.
    sessions
        What the examples are in.

    Raises
    ------
    LookupError
        As `read_entries`, and when an example shows nothing of its type, or nothing that the first does not.
    """
    # Some of the objects depart from the schema on purpose.
    with warnings.catch_warnings(action="ignore", category=MappingWarning):
        entries = read_entries(prose, sessions)
        text = _MARK.sub(lambda mark: _section(entries[mark["type"]]), prose.replace(_INDEX, _index(entries)))
    return text.rstrip() + "\n"


def example_sessions(every_type_path: Path, folder: Path) -> list[Session]:
    """The session that `every_type` wrote, and two more of the types that have no place in it."""
    return [Session(path) for path in (every_type_path, event_waveform(folder), unplaced_types(folder))]


def read_entries(prose: str, sessions: Sequence[Session]) -> dict[str, Entry]:
    """The types that the page has sections on, in its order.

    Parameters
    ----------
    prose
        With a mark for each type.
    sessions
        What the examples are in.

    Raises
    ------
    LookupError
        When an example is in none of the sessions, or the mark of a type that has objects names none.
    """
    words = schema_words()
    entries: dict[str, Entry] = {}
    for mark in _MARK.finditer(prose.replace(_INDEX, "")):
        name, paths = mark["type"], (mark["paths"] or "").split(" | ")
        examples = [find_example(sessions, path.strip("/"), words) for path in paths if path]
        if not examples and any(session.paths_of(name) for session in sessions):
            raise LookupError(f"The sessions have objects of the type {name}; its mark is to name one.")
        entries[name] = Entry(name, words[name], tuple(examples), mark["part"] is not None)
    return entries


def _index(entries: Mapping[str, Entry]) -> str:
    lines = ["| type | shown as | dims |", "|---|---|---|"]
    for name in sorted(entries, key=str.lower):
        entry = entries[name]
        shown = f"{entry.shown_as} (deprecated)" if entry.words.deprecated else entry.shown_as
        lines.append(f"| {_link(name)} | {shown} | {_code(entry.dims)} |")
    return "\n".join(lines)


def _section(entry: Entry) -> str:
    parent = PARENTS[entry.neurodata_type]
    facts = [f"**{entry.shown_as}**", *(["extends " + _link(parent)] if parent else [])]
    if entry.shown_as == "container":
        facts.append(f"here of {', '.join(map(_link, entry.examples[0].holds()))}")
    blocks = [
        f"### {entry.neurodata_type}",
        (f"*Deprecated.* {entry.words.sentence}" if entry.words.deprecated else entry.words.sentence),
        " · ".join(facts),
    ]
    kinds = [name for name, extended in PARENTS.items() if extended == entry.neurodata_type]
    if not entry.examples:
        blocks.append(f"No object is of this type itself. Extended by {', '.join(map(_link, kinds))}.")
    for number, example in enumerate(entry.examples):
        blocks += _another(entry, example) if number else _first(entry, example)
    return "\n\n".join(blocks)


def _first(entry: Entry, example: Example) -> Iterator[str]:
    """All that the first example shows."""
    group = f', group="{example.path}"' if example.path else ""
    session = _VARIABLES.get(example.session.path.name, "session")
    yield f'```python\nxr.open_dataset({session}, engine="nwbzarr"{group})\n```'
    rows = entry.rows(example)
    if rows:
        yield _table(rows)
    elif entry.is_part:
        raise LookupError(f"{example.path!r} shows nothing of the type {entry.neurodata_type}.")
    if not entry.is_part:
        lines = [*_attributes(example.data_attributes(), example.attributes()), *_flat(entry, example)]
        if not (rows or lines):
            lines.append("It only has the attributes of every Dataset.")
        yield from ["\n".join(f"- {line}" for line in lines)] if lines else []


def _another(entry: Entry, example: Example) -> Iterator[str]:
    """What another example shows that the first does not."""
    first = entry.examples[0]
    known = entry.rows(first)
    rows = [row for row in entry.rows(example) if row not in known]
    lines: list[str] = []
    if not entry.is_part:
        data = [name for name in example.data_attributes() if name not in first.data_attributes()]
        lines += _attributes(data, [name for name in example.attributes() if name not in first.attributes()])
    if not (rows or lines):
        raise LookupError(f"{example.path!r} shows nothing that {first.path!r} does not.")
    yield f'Another, `group="{example.path}"`, differs in:'
    yield from [_table(rows)] if rows else []
    yield from ["\n".join(f"- {line}" for line in lines)] if lines else []


def _attributes(of_data: Sequence[str], others: Sequence[str]) -> Iterator[str]:
    if of_data:
        yield f"Attributes of `data`: {_listed(of_data)}."
    if others:
        yield f"Attributes: {_listed(others)}."


def _flat(entry: Entry, example: Example) -> Iterator[str]:
    name = example.flat() if example.path and entry.shown_as != "container" else None
    if name is None:
        return
    flat = example.session.flat
    if name not in flat:
        yield f"In the whole session: the attribute `{name}`."
    elif dims := _code([str(dim) for dim in flat[name].dims]):
        yield f"In the whole session: `{name}` on {dims}."
    else:
        yield f"In the whole session: `{name}`."


def _table(rows: Sequence[Row]) -> str:
    units = any(row.units for row in rows)
    lines = ["| | names | dims | dtype |" + (" units |" if units else ""), "|---|---|---|---|"]
    lines[1] += "---|" if units else ""
    for row in rows:
        cells = [_code(row.dims) or "scalar", row.dtype, *([row.units] if units else [])]
        for number, names in enumerate(_in_lines(_folded(row.names))):
            lines.append(f"| {'' if number else row.kind} | {names} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _folded(names: Sequence[str]) -> list[str]:
    """Names as code, where `a_start` and `a_count` take the place of one."""
    folded: list[str] = []
    for name in names:
        stem = name.removesuffix("_count")
        if stem != name and folded and folded[-1] == f"`{stem}_start`":
            folded[-1] += "/`_count`"
        else:
            folded.append(f"`{name}`")
    return folded


def _in_lines(names: Sequence[str]) -> list[str]:
    """Names in cells that are not too wide; a name is never broken."""
    # Names may hold spaces, at which they are not to be wrapped.
    spaceless = ", ".join(name.replace(" ", "\0") for name in names)
    lines = wrap(spaceless, _WIDEST, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ").removesuffix(",") for line in lines]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(dims: Sequence[str]) -> str:
    joined = ", ".join(dims)
    return f"`{joined}`" if joined else ""


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PAGE.write_text(mapping_page(PROSE.read_text(), example_sessions(every_type(Path(made)), Path(made))))

"""The codes of findings and warnings: their meaning, severity, reason, and what mends them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from intake_nwbzarr import errors
from intake_nwbzarr.errors import NWBZarrError, NWBZarrWarning, OptionError, did_you_mean

type Severity = Literal["error", "warning", "hint"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "hint")
"""From the most serious one. Errors and warnings give ``nwbzarr check`` the exit status 1, hints do not."""


@dataclass(frozen=True)
class Code:
    """A kind of finding, or of warning.

    Parameters
    ----------
    name
        Words and hyphens, such as ``small-chunks``.
    severity
        ``error``: readers get wrong data, or none. ``warning``: some readers fail, or reading is slow or
        expensive. ``hint``: it could be better, and may be intended.
    meaning
        What is found, in one sentence.
    why
        Why it matters.
    mend
        A command, with ``{location}`` for the session's and ``DESTINATION`` for a new one, or an instruction.
    area
        Which heading of the reference page it belongs to.
    """

    name: str
    severity: Severity
    meaning: str
    why: str
    mend: str
    area: str

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.name} ({self.severity})",
                self.meaning,
                "",
                f"Why    {self.why}",
                f"Mend   {self.mend.replace('{location}', 'LOCATION')}",
            ]
        )


_STORAGE = "Storage"
_CHUNKS = "Chunks and compression"
_LINKS = "Links, references and regions"
_TIMES = "Times"
_VALUES = "Values and schemas"
_TABLES = "Objects and tables"
_OPENING = "Of opening and copying only"

_CONVERT = "nwbzarr convert {location} DESTINATION"
CONSOLIDATE: Final = "nwbzarr consolidate {location}"
_ORIGINAL = "Compare the object with the original file, and write or upload it again."

_TABLE: Final = (
    # Storage
    Code("not-public", "hint", "The session cannot be read without credentials.",
         "Whoever is given its URL needs an account and permissions, and web pages cannot show it. That may "
         "be intended.",
         "Allow everybody s3:GetObject and s3:ListBucket in the policy of the bucket.", _STORAGE),
    Code("denied-chunks", "error", "The server denies chunks of an array.",
         "A bucket that denies listing answers 403 for what is not stored, too: chunks that the writer left "
         "out, because they hold fill values, cannot be told from secret ones, and the array cannot be read.",
         "Allow s3:ListBucket to those who may read, in the policy of the bucket.", _STORAGE),
    Code("not-consolidated", "warning", "The store has no consolidated metadata.",
         "Opening it takes a request for every group and array instead of two, and is not possible at all "
         "where the storage cannot be listed.",
         CONSOLIDATE, _STORAGE),
    Code("stale-metadata", "error", "The consolidated metadata differ from the stored ones.",
         "Readers see the session as it was before it was edited: objects that were added are missing, and "
         "those that have another shape or are gone give wrong values or errors.",
         CONSOLIDATE, _STORAGE),
    Code("schemas-not-consolidated", "hint", "The consolidated metadata do not list the cached schemas.",
         "Types of extensions are then found by listing the store, which takes more requests and is not "
         "possible everywhere. hdmf-zarr before 0.14 wrote schemas last.",
         CONSOLIDATE, _STORAGE),
    Code("zarr-2", "warning", "The store is of Zarr 2.",
         "NWBZarrIO of hdmf-zarr 0.14 and later refuses it, and others need an older release. Arrays cannot "
         "be sharded.",
         _CONVERT, _STORAGE),
    Code("pickled-objects", "warning", "Arrays of texts or references are stored as Python pickles.",
         "Other readers run whatever a pickle says (allow_pickle=True), so that they refuse it or trust the "
         "bucket with their machine. intake-nwbzarr decodes such arrays without running anything.",
         _CONVERT, _STORAGE),
    Code("hdf5-file", "hint", "The session is an HDF5 file.",
         "Its metadata and the indexes of its chunks are in many places of the file: other readers ask for "
         "them one after the other, and intake-nwbzarr needs more requests than for Zarr.",
         _CONVERT, _STORAGE),
    Code("scattered-metadata", "warning", "The metadata of the HDF5 file are scattered over it.",
         "Opening it takes many requests, and readers without the tricks of intake-nwbzarr need one round "
         "trip for each.",
         _CONVERT, _STORAGE),
    Code("filter-plugin", "warning", "Datasets are compressed with HDF5 filters that are plugins.",
         "HDF5 itself cannot read them: every reader must install the plugin first.",
         _CONVERT, _STORAGE),
    Code("unknown-codec", "error", "An array is stored with a codec that is not known.",
         "Its values cannot be read.",
         "Install the package that defines the codec, or write the array with blosc, zstd or gzip.",
         _STORAGE),
    Code("unreadable-part", "warning", "The HDF5 file has parts that cannot be read.",
         "Objects or attributes of these kinds are left out.",
         "Write them as kinds that NWB defines.", _STORAGE),
    Code("damaged-object", "error", "The metadata or values of an object are damaged.",
         "It is skipped when the session is opened, or reading it is an error.",
         _ORIGINAL, _STORAGE),
    # Chunks
    Code("small-chunks", "warning", "An array has many chunks that are smaller than 256 KiB.",
         "Each chunk is a request, whose latency takes longer than its bytes. Chunks of 1 to 16 MiB stream "
         "best.",
         _CONVERT, _CHUNKS),
    Code("large-chunks", "warning", "An array has chunks of more than 64 MiB.",
         "Reading a few samples fetches and decodes at least one whole chunk.",
         _CONVERT, _CHUNKS),
    Code("uncompressed", "hint", "A large array is stored without compression.",
         "Most recordings are halved by compression, and with them the time and money to read them.",
         _CONVERT + " --compressor zstd", _CHUNKS),
    Code("missing-chunks", "warning", "Chunks of an array in a Zarr 2 store are missing.",
         "They are read as fill values. Writers of Zarr 2 stored every chunk by default: an upload may be "
         "incomplete.",
         _ORIGINAL, _CHUNKS),
    Code("absent-chunks", "hint", "Chunks of an array are not stored.",
         "They are read as fill values, which is right where they hold nothing else: writers may leave out "
         "such chunks. An incomplete upload looks the same.",
         "Compare the array with the original file.", _CHUNKS),
    # Links
    Code("dangling-link", "error", "A link leads to nothing that can be read.",
         "The object is missing for every reader, and NWBZarrIO may fail on the whole session.",
         "Upload what the link leads to, or remove the link.", _LINKS),
    Code("external-link", "warning", "A link leads out of the folder or bucket of the session.",
         "It is not followed by default, because a file must not choose what else is read. Copies and "
         "downloads lack its target.",
         "Store the target in the session, or beside it and link to it by a relative path.", _LINKS),
    Code("dangling-reference", "error", "A reference names an object that is not in the file.",
         "Whatever is labelled or grouped by it has no label, and NWBZarrIO may fail on the whole session.",
         _ORIGINAL, _LINKS),
    Code("region-out-of-range", "error", "A region refers to rows or samples that do not exist.",
         "The series or rows that it labels have no electrodes, ROIs, samples or the like, or wrong ones.",
         "Write the region with row numbers from 0, and not with ids; parts of a series with numbers of its "
         "samples.",
         _LINKS),
    Code("region-without-table", "error", "A region, or a column of row numbers, has no table.",
         "Row numbers are all that is known.",
         "Write the table, or the region's reference to it.", _LINKS),
    Code("invalid-region", "error", "A region or column of row numbers holds something else.",
         "It labels nothing.",
         "Write it as one dimension of integers.", _LINKS),
    Code("region-length", "warning", "A region has another length than any axis of its data.",
         "Its rows cannot be joined to the data.",
         "Write one row number for each channel or ROI of the data.", _LINKS),
    Code("damaged-index", "error", "The index of a ragged column does not fit what it divides.",
         "Rows have the values of other rows, or none: readers give wrong values, or fail.",
         _ORIGINAL, _LINKS),
    # Times
    Code("unsorted-times", "warning", "Timestamps do not increase.",
         "Selecting by time needs sorted times: sel() and ds.nwb.align() fail or read everything.",
         "Sort the timestamps and the data, or split the series where the clock was reset.", _TIMES),
    Code("nan-times", "warning", "Timestamps are NaN.",
         "Samples without a time cannot be selected, and times are not sorted by any measure.",
         "Remove the samples, or interpolate their times.", _TIMES),
    Code("regular-timestamps", "hint", "Timestamps are so regular that a rate says the same.",
         "They are stored and read for nothing: with starting_time and rate, times are known without a "
         "request.",
         "Write starting_time and rate instead of timestamps.", _TIMES),
    Code("float32-times", "warning", "Times are stored as float32, which is too coarse for them.",
         "float32 has 24 bits: half a millisecond after two hours. Samples and spikes share times then.",
         "Write times as float64.", _TIMES),
    Code("unix-times", "warning", "Times look like seconds since 1970.",
         "NWB counts seconds from the session's reference time. Such times do not fit those of others.",
         "Subtract the reference time, and write the session's start as session_start_time.", _TIMES),
    Code("no-time-zone", "warning", "The session's start, or the zero of its times, has no time zone.",
         "It is taken as local time of each reader's machine: two readers read two instants.",
         "Write session_start_time and timestamps_reference_time with a time zone.", _TIMES),
    Code("invalid-date", "warning", "The session's start is not a date.",
         "Times cannot be decoded, and those of tables that count from another zero are not shifted.",
         "Write session_start_time in ISO 8601.", _TIMES),
    Code("times-in-samples", "warning", "Spike times look like numbers of samples.",
         "NWB counts seconds. Such spikes do not fit the times of anything else.",
         "Divide them by the sampling rate.", _TIMES),
    Code("stop-before-start", "warning", "Intervals stop before they start.",
         "They select nothing, and durations are negative.",
         "Write the time at which each interval ends as stop_time, NaN where it is not known.", _TIMES),
    Code("invalid-times", "error", "A series has a starting time, rate or timestamps that are none.",
         "Its samples have no times.",
         "Write starting_time and a positive rate, or one timestamp for each sample.", _TIMES),
    Code("timestamps-length", "error", "A series has another number of timestamps than of samples.",
         "Its samples have no times.",
         "Write one timestamp for each sample.", _TIMES),
    # Values
    Code("implausible-values", "warning", "Values in their unit are far outside of what is measured so.",
         "The conversion is probably wrong by a power of ten: amplitudes, thresholds and comparisons with "
         "other sessions are too.",
         "Write the factor from stored values to the unit as conversion, such as 1e-6 for stored microvolts.",
         _VALUES),
    Code("channel-conversion-shape", "warning", "channel_conversion fits no axis of the data.",
         "It is not applied, so that values are not in their unit.",
         "Write one factor for each channel.", _VALUES),
    Code("attribute-not-a-number", "warning", "A conversion, offset or resolution is not a number.",
         "It is not applied, so that values are not in their unit.",
         "Write it as a number.", _VALUES),
    Code("axis-order", "warning", "The axes of data are in another order than in the schema.",
         "Readers that trust the schema take channels or ROIs for samples. intake-nwbzarr labels them by "
         "their lengths.",
         "Transpose the data: time is the first axis.", _VALUES),
    Code("unknown-unit", "hint", "The grid of an imaging plane has an unknown unit.",
         "Pixels have no positions.",
         "Write the unit as metres, millimeters or micrometers.", _VALUES),
    Code("implausible-waveform-rate", "warning", "A column of waveforms declares too many samples.",
         "Its samples have no times.",
         "Write the sampling rate, and waveforms of a few milliseconds.", _VALUES),
    Code("no-schema", "warning", "Types of an extension are used, but its schema is not in the file.",
         "Readers without the extension cannot know what its types extend: pynwb fails or skips them, and "
         "intake-nwbzarr maps them by their contents.",
         "Write with cache_spec=True (the default), and the extension's package imported.", _VALUES),
    Code("damaged-schema", "warning", "A cached schema is damaged.",
         "Objects of its types are mapped by their contents.",
         "Write the session again with the extension's package imported.", _VALUES),
    # Tables
    Code("missing-column", "error", "A table lists a column or category that is not in the file.",
         "The column is missing for every reader, and NWBZarrIO may fail on the whole session.",
         _ORIGINAL, _TABLES),
    Code("column-length", "error", "A column has another length than its table.",
         "Its values cannot be assigned to rows.",
         _ORIGINAL, _TABLES),
    Code("repeated-ids", "hint", "Rows of a table have the same id.",
         "Selecting by id finds several rows.",
         "Give each row an id of its own.", _TABLES),
    Code("invalid-external-files", "warning", "First frames or timestamps do not fit the external files.",
         "The files of a movie have no times.",
         "Write the first frame of each file.", _TABLES),
    Code("many-times", "hint", "The session has more distinct times than xarray indexes at once.",
         "The flat Dataset has no time coordinates; single objects and containers have.",
         "Open groups of the session with group=, or the tree.", _TABLES),
    Code("cannot-open", "error", "The session, or a view of it, cannot be opened.",
         "xarray cannot show it until that is mended.",
         "Follow the message; compare the session with the original file.", _TABLES),
    # Others
    Code("times-not-decoded", "hint", "Times are too many, or too far away, to be decoded as datetimes.",
         "They stay in seconds, or become NaT.",
         "Open the session with decode_times=False, which is the default.", _OPENING),
    Code("empty-group", "hint", "A group holds nothing.",
         "Its Dataset has no variables.",
         "Nothing, if that is so; otherwise upload the rest of the session.", _OPENING),
    Code("incomplete-sweeps", "hint", "Recordings cannot be told apart, or lack a side, as sweeps.",
         "ds.nwb.sweeps() leaves them out, or pairs them by their order.",
         "Write an intracellular_recordings table.", _OPENING),
    Code("cache-not-written", "hint", "The chunk cache cannot be written.",
         "What is read is fetched again next time.",
         "Free some space, or pass another folder as chunk_cache.", _OPENING),
    Code("unverified-snapshot", "hint", "A snapshot cannot be compared with its session.",
         "If the session has changed since, wrong data are opened.",
         CONSOLIDATE + ", and make the snapshot again", _OPENING),
    Code("incomplete-download", "hint", "A download may lack parts of the session.",
         "What is not listed cannot be found.",
         CONSOLIDATE, _OPENING),
)  # fmt: skip

CODES: Final[Mapping[str, Code]] = {code.name: code for code in _TABLE}
"""All codes by name, in the order of the reference page docs/findings.md."""


def explain(name: str) -> str:
    """Return what a finding's code, or an error or warning class of `intake_nwbzarr.errors`, means.

    Raises
    ------
    OptionError
        When there is neither a code nor a class of that name.
    """
    if name in CODES:
        return str(CODES[name])
    classes = _classes()
    if name in classes:
        found = classes[name]
        bases = ", ".join(base.__name__ for base in found.__bases__)
        return f"{name} ({bases})\n{inspect.getdoc(found)}"
    known = explained()
    raise OptionError(
        f"There is no code and no error {name!r}.",
        found=name,
        expected=known,
        next_step=did_you_mean(name, known, most=3) or "nwbzarr explain lists all of them.",
    )


def explained() -> list[str]:
    """Return all codes, and the names of all errors and warnings."""
    return [*CODES, *_classes()]


def explain_all() -> str:
    """Return all codes, errors and warnings, a line each."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    width = max(map(len, CODES))
    for area in dict.fromkeys(code.area for code in _TABLE):
        yield area
        for code in _TABLE:
            if code.area == area:
                yield f"  {code.name:{width}}  {code.severity:7}  {code.meaning}"
        yield ""
    yield "Errors and warnings"
    classes = _classes()
    width = max(map(len, classes))
    for name, found in classes.items():
        yield f"  {name:{width}}  {(inspect.getdoc(found) or '').partition(chr(10))[0]}"


def _classes() -> dict[str, type[Exception]]:
    """Return the errors and warnings of the package by name, in the order in which they are defined."""
    return {
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, NWBZarrError | NWBZarrWarning)
    }

"""A session that holds an object of every type of the NWB core schema, and every field of its metadata."""

import datetime as dt
import warnings
from pathlib import Path

from pynwb import NWBFile
from pynwb.file import LabMetaData, Subject
from pynwb.resources import HERD

from tests.mapping.every_series import add_every_series, lengthen_timestamps
from tests.mapping.every_type_ecephys import add_ecephys
from tests.mapping.every_type_icephys import add_icephys
from tests.mapping.every_type_images import add_images
from tests.mapping.every_type_ophys import add_ophys
from tests.mapping.every_type_tables import add_tables
from tests.session_files import write

_PACIFIC = dt.timezone(dt.timedelta(hours=-8))


def every_type(folder: Path) -> Path:
    """Write the session."""
    nwbfile = described_session()
    # Deprecated types and fields are what half of this file is about.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        add_every_series(nwbfile)
        add_ecephys(nwbfile)
        add_ophys(nwbfile)
        add_images(nwbfile)
        add_icephys(nwbfile)
        add_tables(nwbfile)
        nwbfile.add_lab_meta_data(LabMetaData(name="lab_meta_data"))
        nwbfile.external_resources = _resources(nwbfile)
    path = write(folder, nwbfile, "every_type.nwb.zarr")
    lengthen_timestamps(path)
    return path


def described_session() -> NWBFile:
    """A session with every field of metadata, and its subject."""
    return NWBFile(
        session_description="one of everything",
        identifier="every-type",
        session_start_time=dt.datetime(2024, 5, 1, 12, 30, 15, 250000, _PACIFIC),
        timestamps_reference_time=dt.datetime(2024, 5, 1, 12, 0, tzinfo=_PACIFIC),
        file_create_date=[dt.datetime(2024, 5, 2, tzinfo=dt.UTC), dt.datetime(2024, 5, 3, tzinfo=_PACIFIC)],
        experimenter=["Hopper, Grace", "Curie, Marie"],
        experiment_description="all types",
        session_id="S1",
        institution="Institute",
        keywords=["types", "all", "ß"],
        notes="two\nlines",
        pharmacology="isoflurane",
        protocol="P-1",
        related_publications=["doi:10.1000/1", "doi:10.1000/2"],
        slices="300 um",
        source_script="make.py",
        source_script_file_name="make.py",
        was_generated_by=[["pynwb", "4"], ["numpy", "2"]],
        data_collection="by hand",
        surgery="craniotomy",
        virus="AAV",
        stimulus_notes="tones",
        lab="Lab",
        subject=Subject(
            subject_id="M1",
            age="P90D/P95D",
            age__reference="birth",
            description="a mouse",
            genotype="wt/wt",
            sex="F",
            species="Mus musculus",
            strain="C57BL/6J",
            weight="0.025 kg",
            date_of_birth=dt.datetime(2024, 2, 1, tzinfo=dt.UTC),
        ),
    )


def _resources(nwbfile: NWBFile) -> HERD:
    resources = HERD()
    resources.add_ref(
        container=nwbfile.subject,
        attribute="species",
        key="Mus musculus",
        entity_id="NCBITaxon:10090",
        entity_uri="http://purl.obolibrary.org/obo/NCBITaxon_10090",
    )
    resources.add_ref(
        container=nwbfile.electrodes,
        attribute="location",
        key="CA1",
        entity_id="UBERON:0003881",
        entity_uri="http://purl.obolibrary.org/obo/UBERON_0003881",
    )
    return resources

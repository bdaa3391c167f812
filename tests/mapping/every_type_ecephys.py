"""Of every type: extracellular electrophysiology, with the interfaces that newer schemas deprecate."""

import numpy as np
from hdmf.common import DynamicTableRegion
from pynwb import NWBFile, ProcessingModule
from pynwb.ecephys import (
    LFP,
    Clustering,
    ClusterWaveforms,
    ElectricalSeries,
    EventDetection,
    FeatureExtraction,
    FilteredEphys,
)

from tests.mapping.construct_mode import constructed

_random = np.random.default_rng(1)


def add_ecephys(nwbfile: NWBFile) -> None:
    """Add the rest of the electrodes' columns, a second probe, units, and what is made of recordings."""
    _second_probe(nwbfile)
    _electrode_columns(nwbfile)
    module = nwbfile.create_processing_module(name="ecephys", description="of recordings")
    _filtered(nwbfile, module)
    _events(nwbfile, module)
    _clusters(module)
    _units(nwbfile)


def _second_probe(nwbfile: NWBFile) -> None:
    model = nwbfile.create_device_model(
        name="Neuropixels 1.0", manufacturer="imec", model_number="PRB_1_4_0480_1", description="a probe"
    )
    probe = nwbfile.create_device(
        name="probe2", description="second probe", serial_number="18194809741", model=model
    )
    nwbfile.create_electrode_group(
        name="shank2",
        description="of the second probe",
        location="CA3",
        device=probe,
        position=(1.5, 2.5, -3.5),
    )


def _electrode_columns(nwbfile: NWBFile) -> None:
    table = nwbfile.electrodes
    numbers = {"imp": "impedance", "rel_x": "x in the group", "rel_y": "y in the group", "rel_z": "z"}
    for name, description in numbers.items():
        table.add_column(name=name, description=description, data=_random.random(4))
    table.add_column(name="filtering", description="hardware filters", data=["none"] * 3 + ["1 Hz high-pass"])
    table.add_column(name="reference", description="what it is measured against", data=["screw"] * 4)
    table.add_column(name="bad", description="whether it is to be left out", data=[True, False, False, True])


def _region(nwbfile: NWBFile, *rows: int) -> DynamicTableRegion:
    return nwbfile.create_electrode_table_region(list(rows), "some")


def _filtered(nwbfile: NWBFile, module: ProcessingModule) -> None:
    def series(name: str, rate: float) -> ElectricalSeries:
        return ElectricalSeries(
            name=name,
            data=_random.integers(-9, 9, (12, 2)).astype("int16"),
            electrodes=_region(nwbfile, 1, 2),
            filtering="4th order",
            conversion=2e-6,
            channel_conversion=[1.5, 0.5],
            rate=rate,
            starting_time=0.25,
            comments="filtered",
            description=f"{name} band",
        )

    nwbfile.add_acquisition(
        ElectricalSeries(
            name="snippets by channel",
            data=_random.integers(-9, 9, (2, 2, 3)).astype("int16"),
            electrodes=_region(nwbfile, 1, 2),
            channel_conversion=[3.0, 0.25],
            conversion=1e-3,
            rate=10.0,
        )
    )
    module.add(LFP(electrical_series=series("low", 1250.0)))
    module.add(FilteredEphys(electrical_series=[series("theta", 1250.0), series("gamma", 625.0)]))


def _events(nwbfile: NWBFile, module: ProcessingModule) -> None:
    recording = nwbfile.acquisition["electrical"]
    module.add(
        EventDetection(
            name="crossings",
            detection_method="-50 uV",
            source_electricalseries=recording,
            source_idx=np.array([1, 4, 5], "int32"),
            times=[0.01, 0.04, 0.05],
        )
    )
    module.add(
        EventDetection(
            name="crossings by channel",
            detection_method="-50 uV",
            source_electricalseries=recording,
            source_idx=np.array([[1, 0], [4, 3]], "int32"),
        )
    )
    module.add(
        FeatureExtraction(
            electrodes=_region(nwbfile, 0, 3),
            description=["PC1", "PC2", "energy"],
            times=[0.1, 0.2, 0.3, 0.4],
            features=_random.random((4, 2, 3)).astype("float32"),
        )
    )


def _clusters(module: ProcessingModule) -> None:
    clustering = constructed(
        Clustering,
        description="cluster 0 is noise",
        num=np.array([0, 2, 1, 2], "int32"),
        peak_over_rms=np.array([1.5, 4.0, 6.0], "float32"),
        times=[0.1, 0.2, 0.3, 0.4],
    )
    module.add(clustering)
    module.add(
        constructed(
            ClusterWaveforms,
            clustering_interface=clustering,
            waveform_filtering="300 Hz high-pass",
            waveform_mean=_random.random((3, 8)).astype("float32"),
            waveform_sd=_random.random((3, 8)).astype("float32"),
        )
    )


def _units(nwbfile: NWBFile) -> None:
    nwbfile.add_unit_column(name="quality", description="by hand")
    nwbfile.add_unit_column(name="labels", description="any number of texts", index=True)
    nwbfile.add_unit_column(name="isolated", description="true or false")
    groups = [nwbfile.electrode_groups["shank"], nwbfile.electrode_groups["shank2"]]
    spike_counts, electrode_counts = (4, 0, 2), (2, 1, 2)
    for number, (spikes, electrodes) in enumerate(zip(spike_counts, electrode_counts, strict=True)):
        nwbfile.add_unit(
            id=10 * number + 1,
            spike_times=np.sort(_random.random(spikes) * 3),
            obs_intervals=[[0.0, 1.0], [2.0, 3.0]][: number + 1] if number < 2 else np.empty((0, 2)),
            electrodes=list(range(electrodes)),
            electrode_group=groups[number % 2],
            waveform_mean=_random.random((8, 2)),
            waveform_sd=_random.random((8, 2)),
            # For each spike, one waveform for each electrode.
            waveforms=_random.random((spikes * electrodes, 8))
            if spikes == 0
            else [_random.random((electrodes, 8)) for _ in range(spikes)],
            quality=["good", "noise", "mua"][number],
            labels=[["a", "b"], [], ["c"]][number],
            isolated=number != 1,
        )
    nwbfile.units.waveform_rate = 30000.0
    nwbfile.units.waveform_time_before_peak_in_ms = 0.1
    nwbfile.units.resolution = 1 / 30000.0

"""A file with an EventWaveform, which pynwb neither writes nor reads: every other library has to."""

from pathlib import Path
from typing import Any

import numpy as np
from pynwb.ecephys import LFP, SpikeEventSeries

from intake_nwbzarr.demo.sessions import add_electrodes
from tests.session_files import edit, empty_session, write

NAME = "processing/ecephys/EventWaveform"
TIMES = (0.5, 0.75, 2.0)


def event_waveform(folder: Path) -> Path:
    """Write snippets of spikes on two channels, `(3, 2, 6)`, in an EventWaveform.

    The constructor of pynwb 4.2's class takes nothing and initialises nothing, so that a file that holds one
    cannot be read by it at all. It is written as an LFP, which has the same form, and renamed.
    """
    nwbfile = empty_session()
    spikes = SpikeEventSeries(
        name="snippets",
        data=np.arange(36).reshape(3, 2, 6),
        electrodes=add_electrodes(nwbfile, 2),
        timestamps=TIMES,
    )
    module = nwbfile.create_processing_module(name="ecephys", description="d")
    module.add(LFP(name="EventWaveform", electrical_series=spikes))
    path = write(folder, nwbfile, "event_waveform.nwb.zarr")
    edit(path, NAME, _rename)
    return path


def _rename(document: dict[str, Any]) -> None:
    document["attributes"]["neurodata_type"] = "EventWaveform"

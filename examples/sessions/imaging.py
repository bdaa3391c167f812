"""A made-up imaging session: the one of ``nwbzarr demo``, smaller."""

from __future__ import annotations

from pynwb import NWBFile

from intake_nwbzarr.demo import sessions as imaging


def imaging_session() -> NWBFile:
    """A mouse that licks in bouts while its cells are imaged.

    Returns
    -------
    pynwb.NWBFile
        Fluorescence and neuropil of 24 ROIs, (time, roi) at 15.46 Hz for two minutes; ``lick``, 1 at every
        lick, at 50 Hz. Every call gives the same.
    """
    return imaging.imaging_session(frames=1855, rois=24, pixels=8)

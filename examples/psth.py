"""Spikes around the cue of each trial: raster and PSTH of the unit in which types of trials differ most."""

import matplotlib.pyplot as plt
import xarray as xr
from sessions import chosen_session, save_picture, trials_session

location = chosen_session(trials_session)
window, width = (-1.0, 1.2), 0.04

units = xr.open_dataset(location, engine="nwbzarr", group="units")
trials = xr.open_dataset(location, engine="nwbzarr", group="intervals/trials")
counts = units.nwb.align(trials, window, on="cue_start_time", bin=width).spike_counts
rate = (counts / width).groupby("type").mean().dropna("type", how="all")
unit = int(rate.std("type").mean("lag").idxmax())

plt.rc("axes.spines", top=False, right=False)
figure, axes = plt.subplots(len(rate.type) + 1, sharex=True, figsize=(6, 6), layout="constrained")
for number, kind in enumerate(rate.type.values):
    cued = trials.isel(trial=(trials.type == kind) & trials.cue_start_time.notnull())
    raster = units.nwb.plot.raster(unit, events=cued, on="cue_start_time", window=window, ax=axes[number])
    raster.set(xlabel="", ylabel=f"{cued.sizes['trial']} trials", yticks=[], title=f"Unit {unit}, {kind}")
    plt.setp(raster.collections, color=f"C{number}")
    axes[-1].plot(rate.lag + width / 2, rate.sel(unit=unit, type=kind), color=f"C{number}", label=kind)
axes[-1].set(xlabel="time from cue (s)", ylabel="spikes / s")
axes[-1].legend(frameon=False)
save_picture(figure)

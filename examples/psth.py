# %% [markdown]
"""
# Spikes around an event

Units aligned to the cue of each trial: counts on (`unit`, `trial`, `lag`), with the trials' columns as
coordinates, so that `groupby("type")` works. Of the unit in which the types of trials differ most, a raster
of each type and the firing rates.

In every eighth trial the animal licked too early and was never cued: `cue_start_time` is NaN, and so are
the counts of these trials, as are those of trials in which a unit was not observed (`obs_intervals`). No
mean takes them for silence. Rasters leave trials without a time out, with a warning; here they are left out
beforehand. Without `obs_intervals` nothing tells a unit that was lost from one that is silent: look at the
raster.
"""

# %%
import matplotlib.pyplot as plt
import xarray as xr
from sessions import chosen_session, save_picture, trials_session

# %%
location = chosen_session(trials_session)
units = xr.open_dataset(location, engine="nwbzarr", group="units")
trials = xr.open_dataset(location, engine="nwbzarr", group="intervals/trials")
trials

# %%
window, width = (-1.0, 1.2), 0.04
counts = units.nwb.align(trials, window, on="cue_start_time", bin=width).spike_counts
rate = (counts / width).groupby("type").mean().dropna("type", how="all")
unit = int(rate.std("type").mean("lag").idxmax())
counts

# %%
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

# %% [markdown]
"""
# Fluorescence minus neuropil around licks

Series of one container share their dimensions, so arithmetic between them is plain. Events need no table:
any array of times will do, here the licks that follow a pause of more than a second. They were recorded at
50 Hz, the imaging at 15.46 Hz: each cell's nearest frame to the lick is at lag 0, and `lag_offset` says how
far it is from it.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from sessions import chosen_session, imaging_session, save_picture

# %%
location = chosen_session(imaging_session)
cells = xr.open_dataset(location, engine="nwbzarr", group="processing/ophys/Fluorescence")
lick = xr.open_dataset(location, engine="nwbzarr", group="processing/behavior/BehavioralTimeSeries/lick")
cells

# %%
cells["corrected"] = cells.RoiResponseSeries - 0.7 * cells.Neuropil
licks = lick.time.values[lick.data.values > 0]
bouts = licks[np.diff(licks, prepend=-np.inf) > 1]
around = cells[["corrected"]].nwb.align(bouts, window=(-1.5, 3.0)).corrected
change = 100 * (around / around.sel(lag=slice(-1.5, 0)).mean(["event", "lag"]) - 1)
change

# %%
plt.rc("axes.spines", top=False, right=False)
figure, (by_cell, of_all) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
mean = change.mean("event").drop_vars("roi")
ordered = mean.isel(roi=mean.sel(lag=slice(0, 2)).mean("lag").argsort().values)
ordered.plot(x="lag", cmap="PuOr_r", ax=by_cell, cbar_kwargs={"label": "%"})
by_cell.set(
    xlabel="time from first lick (s)", ylabel="cell, sorted", title=f"ΔF/F, mean over {len(bouts)} bouts"
)
each = change.mean("roi")
mean, error = each.mean("event"), each.std("event", ddof=1) / each.count("event") ** 0.5
of_all.fill_between(mean.lag, mean - error, mean + error, alpha=0.3)
of_all.plot(mean.lag, mean)
of_all.set(xlabel="time from first lick (s)", ylabel="ΔF/F (%)", title="Mean over cells ± s.e.m. over bouts")
save_picture(figure)

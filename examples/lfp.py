# %% [markdown]
"""
# LFP around trials

A series keeps its own sampling rate when it is aligned: (`trial`, `lag`, `channel`), the nearest sample to
the trial's start at lag 0, and only the chunks that windows touch are read. The electrodes' columns are
coordinates of `channel`: `rel_y` is the depth on the picture. Trials begin with a grating.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from sessions import chosen_session, save_picture, trials_session

# %%
location = chosen_session(trials_session)
lfp = xr.open_dataset(location, engine="nwbzarr", group="processing/ecephys/LFP/ElectricalSeries")
trials = xr.open_dataset(location, engine="nwbzarr", group="intervals/trials")
lfp

# %%
around = 1e6 * lfp.nwb.align(trials, window=(-0.1, 0.4)).data
evoked = (around - around.sel(lag=slice(-0.1, 0)).mean("lag")).groupby("contrast").mean()
channel = int(abs(evoked).max(["contrast", "lag"]).idxmax())
evoked

# %%
plt.rc("axes.spines", top=False, right=False)
figure, (depths, traces) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
highest = evoked.isel(contrast=-1)
highest.plot(x="lag", y="rel_y", cmap="PuOr", yincrease=False, ax=depths, cbar_kwargs={"label": "µV"})
depths.set(xlabel="time from grating (s)", ylabel="depth (µm)", title=f"Contrast {highest.contrast:.0%}")
traces.set_prop_cycle(color=plt.get_cmap("viridis_r")(np.linspace(0.2, 1, len(evoked.contrast))))
evoked.sel(channel=channel).plot.line(x="lag", hue="contrast", ax=traces)
traces.set(xlabel="time from grating (s)", ylabel="LFP (µV)", title=f"Channel {channel}")
save_picture(figure)

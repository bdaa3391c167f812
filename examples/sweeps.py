# %% [markdown]
"""
# Patch-clamp sweeps

`ds.nwb.sweeps()` follows the tables of intracellular recordings to every stimulus and response, and stacks
those of equal rate and length to (`recording`, `time`): one child of a tree for each. Here there is one.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from sessions import chosen_session, patch_clamp_session, save_picture

# %%
location = chosen_session(patch_clamp_session)
session = xr.open_dataset(location, engine="nwbzarr")
session.nwb

# %%
sweeps = session.nwb.sweeps().leaves[0].to_dataset().load()
current = (1e12 * sweeps.stimulus.sel(time=0.3, method="nearest", drop=True)).round()
sweeps = sweeps.assign_coords(current=current).swap_dims(recording="current").sortby("current")
# A spike is an upward crossing of 20 mV.
spikes = ((sweeps.response > 0.02).astype(int).diff("time") == 1).sum("time")
sweeps

# %%
plt.rc("axes.spines", top=False, right=False)
figure, axes = plt.subplot_mosaic(
    [["response", "spikes"], ["stimulus", "spikes"]],
    height_ratios=(3, 1),
    width_ratios=(2, 1),
    figsize=(9, 4.5),
    layout="constrained",
)
colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(spikes)))
for name, factor in (("response", 1e3), ("stimulus", 1e12)):
    axes[name].set_prop_cycle(color=colors)
    (factor * sweeps[name]).plot.line(x="time", add_legend=False, linewidth=0.8, ax=axes[name])
axes["response"].set(xlabel="", ylabel="membrane potential (mV)", xticklabels=[])
axes["stimulus"].set(xlabel="time (s)", ylabel="current (pA)")
axes["spikes"].scatter(spikes.current, spikes, color=colors)
axes["spikes"].set(xlabel="current (pA)", ylabel="spikes in the sweep")
save_picture(figure)

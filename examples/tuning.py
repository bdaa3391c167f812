# %% [markdown]
"""
# Firing rate by running speed, of many sessions

"For every mouse with units and a running speed": sessions are scanned into tables, searched, and worked
through on a cluster of two processes. Labs spell the species in six ways here, and put the speed in four
places, in two units; the search finds all of them. What a session yields is stored in its own file, so that
the same command goes on where it was stopped, and a session that is broken is a row of `done.failures`.
"""

# %%
import intake
import matplotlib.pyplot as plt
import numpy as np
from distributed import Client
from sessions import chosen_sessions, save_picture

from intake_nwbzarr import Find, scan


# %%
def tuning(units, speed):
    """Return the firing rate of each unit by running speed: (unit, speed)."""
    counts = units.nwb.bin(0.1, stop=speed.nwb.stop).spike_counts
    running = speed.nwb.resample_like(counts, "mean").data * {"cm/s": 1, "m/s": 100}[speed.data.units]
    return (counts / 0.1).groupby_bins(running.rename("speed"), np.arange(0, 31, 5)).mean("time")


# %%
if __name__ == "__main__":
    prefixes, folder, storage_options = chosen_sessions()
    print(scan(*prefixes, output=folder / "tables"))
    lab = intake.open_nwbzarr_sessions(str(folder / "tables"), storage_options)
    speed = Find("TimeSeries", name="*speed*", unit=["cm/s", "m/s"])
    mice = lab.search(species="mouse", units=Find("Units"), speed=speed)
    with Client(n_workers=2, threads_per_worker=8, dashboard_address=":0") as client:
        done = mice.map(tuning, client=client, name="tuning-1", folder=folder / "tuning", timeout=60)
    print(done)

# %%
if __name__ == "__main__":
    rates = done.frame["spike_counts"].unstack("speed_bins")
    best = rates.idxmax(axis="columns").map(lambda speeds: speeds.mid)
    relative = rates.div(rates.max(axis="columns"), axis="index").loc[best.sort_values().index]

    plt.rc("axes.spines", top=False, right=False)
    figure, (each, mean) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    image = each.imshow(relative, aspect="auto", extent=(0, 30, len(relative), 0), cmap="magma")
    each.set(xlabel="running speed (cm/s)", ylabel="unit, by its best speed")
    each.set_title(f"{len(relative)} units, {len(mice)} sessions of mice")
    figure.colorbar(image, ax=each, label="rate / highest rate")
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(rates.columns)))
    for color, (speed, group) in zip(colors, rates.groupby(best), strict=False):
        label = f"{speed:g} cm/s, {len(group)} units"
        mean.plot(rates.columns.mid, group.mean(), color=color, label=label)
    mean.set(xlabel="running speed (cm/s)", ylabel="spikes / s", ylim=(0, None))
    figure.legend(*mean.get_legend_handles_labels(), title="best speed", loc="outside right", frameon=False)
    save_picture(figure)

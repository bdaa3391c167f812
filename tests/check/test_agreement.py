"""The join finds what the rules for each type found, file by file and alteration by alteration."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.check import old_verify
from tests.check.test_verify import (
    Opened,
    open_both,
    path_of,
    with_another_attribute,
    with_another_attribute_of_a_variable,
    with_another_value,
    without_a_variable,
)
from tests.conftest import KINDS, RELEASES
from tests.neurodata.every_series import every_series
from tests.neurodata.every_type import every_type
from tests.neurodata.extension_files import extension_files

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.NWBZarrWarning"),
]


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, corpus_dir: Callable[[str, str], Path]
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    views = tmp_path_factory.mktemp("views")
    command = [sys.executable, "-W", "ignore", "-m", "tests.neurodata.test_extensions", str(views)]
    subprocess.run(command, check=True, timeout=120)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "every_type": every_type(folder),
            "every_series": every_series(folder),
            "views": views / "small.nwb.zarr",
            **extension_files(folder),
            **{f"{kind}-{release}": corpus_dir(kind, release) for kind in KINDS for release in RELEASES},
        }


NAMES = [
    *("every_type", "every_series", "views", "pose", "events", "holder"),
    *(f"{kind}-{release}" for kind in KINDS for release in RELEASES),
]


def altered_tree(opened: Opened, alter: Callable[..., xr.Dataset], seed: int) -> xr.DataTree:
    choose = np.random.default_rng(seed)
    trees = {}
    for node in opened.tree.subtree:
        dataset = node.to_dataset(inherit=False)
        plain = dataset.drop_indexes(list(dataset.xindexes)).copy()
        plain.attrs = dict(plain.attrs)
        trees[node.path] = alter(plain, choose)
    return xr.DataTree.from_dict(trees)


@pytest.mark.parametrize("name", NAMES)
def test_both_agree_on_a_file_and_on_what_is_altered_in_it(name: str, files: dict[str, Path]) -> None:
    opened = open_both(files[name])
    sides = (opened.nwbfile, opened.tree, opened.hierarchy)
    old, new = old_verify.compare(*sides, as_stored=opened.as_stored), opened.compare()
    assert old.different == new.different == ()
    assert old.unshown == new.unshown == ()
    alterations = (
        with_another_value,
        without_a_variable,
        with_another_attribute,
        with_another_attribute_of_a_variable,
    )
    objects = sorted(map(path_of, opened.tree.subtree), key=len, reverse=True)
    for seed, alter in enumerate(alterations):
        tree = altered_tree(opened, alter, seed)
        # The old one could not compare another kind of text.
        tree.attrs["timestamps_reference_time"] = opened.tree.attrs["timestamps_reference_time"]
        old = old_verify.compare(opened.nwbfile, tree, opened.hierarchy, as_stored=opened.as_stored)
        new = opened.compare(tree)
        found = [
            {
                next(each for each in objects if f"{finding.path}/".startswith(f"{each}/".lstrip("/")))
                for finding in (*report.different, *report.unshown)
            }
            for report in (old, new)
        ]
        assert found[0] <= found[1], alter.__name__

"""Where pixels are: the grid of an imaging plane as coordinates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pynwb.ophys import ImageSegmentation, TwoPhotonSeries

from intake_nwbzarr.demo.sessions import add_imaging_plane
from intake_nwbzarr.errors import MappingWarning
from tests.session_files import edit, empty_session, opened, write

PLANE = "general/optophysiology/plane"


def written(folder: Path, **grid: Any) -> Path:
    nwbfile = empty_session()
    plane = add_imaging_plane(nwbfile, **grid)
    nwbfile.add_acquisition(
        TwoPhotonSeries(name="movie", imaging_plane=plane, data=np.zeros((2, 3, 4)), unit="n.a.", rate=1.0)
    )
    segmentation = ImageSegmentation()
    nwbfile.create_processing_module("ophys", "d").add(segmentation)
    cells = segmentation.create_plane_segmentation(name="cells", description="d", imaging_plane=plane)
    cells.add_roi(image_mask=np.ones((3, 4)))
    return write(folder, nwbfile)


def test_pixels_lie_where_spacing_and_origin_say(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        grid_spacing=[2.0, 0.5],
        grid_spacing_unit="micrometers",
        origin_coords=[1.0, -2.0],
        origin_coords_unit="millimeters",
    )
    movie = opened(path, group="acquisition/movie")
    np.testing.assert_allclose(movie["x"].values, 1000.0 + 2.0 * np.arange(3))
    np.testing.assert_allclose(movie["y"].values, -2000.0 + 0.5 * np.arange(4))
    assert movie["x"].attrs["units"] == "micrometers"
    masks = opened(path, group="processing/ophys/ImageSegmentation/cells")
    np.testing.assert_array_equal(masks["x"].values, movie["x"].values)
    assert masks["image_mask"].sel(x=1002.2, y=-1999, method="nearest").dims == ("roi",)


def test_without_an_origin_they_count_from_zero(tmp_path: Path) -> None:
    movie = opened(written(tmp_path, grid_spacing=[2.0, 0.5]), group="acquisition/movie")
    np.testing.assert_array_equal(movie["y"].values, [0.0, 0.5, 1.0, 1.5])
    assert movie["y"].attrs["units"] == "meters"


def test_without_spacing_pixels_have_no_labels(tmp_path: Path) -> None:
    movie = opened(written(tmp_path), group="acquisition/movie")
    assert "x" not in movie.coords


def test_rows_first_exchanges_their_positions_too(tmp_path: Path) -> None:
    path = written(tmp_path, grid_spacing=[2.0, 0.5])
    movie = opened(path, group="acquisition/movie", image_axes="yx")
    assert movie["data"].dims == ("time", "y", "x")
    np.testing.assert_array_equal(movie["x"].values, 2.0 * np.arange(4))


def test_units_that_do_not_go_together_are_said(tmp_path: Path) -> None:
    path = written(tmp_path, grid_spacing=[2.0, 0.5], origin_coords=[0.0, 0.0])
    edit(
        path,
        f"{PLANE}/origin_coords",
        lambda document: document["attributes"].update(unit="steps"),
    )
    with pytest.warns(MappingWarning, match="its spacing in 'meters' and its origin in 'steps'"):
        assert "x" not in opened(path, group="acquisition/movie").coords

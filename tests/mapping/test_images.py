"""Images: pictures as variables, datasets that are objects by themselves, files of frames, indexed images."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pynwb.base import ExternalImage, ImageReferences, Images
from pynwb.core import ScratchData
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, RGBAImage, RGBImage

from intake_nwbzarr.errors import ChunkError, MappingWarning
from tests.session_files import consolidate, edit, empty_session, opened, write

GREY = np.arange(12.0).reshape(3, 4)
RED = np.arange(36, dtype="uint8").reshape(3, 4, 3)


def pictures(*, small: bool = True) -> Images:
    grey = GrayscaleImage(name="grey", data=GREY, resolution=70.0, description="a gradient")
    red = RGBImage(name="red", data=RED)
    clear = RGBAImage(name="clear", data=np.ones((2, 2, 4) if small else (3, 4, 4), "uint8"))
    ordered = ImageReferences(name="order_of_images", data=[red, grey, clear])
    return Images(name="pictures", images=[grey, red, clear], order_of_images=ordered, description="d")


def written(folder: Path, *, small: bool = True, **series: Any) -> Path:
    nwbfile = empty_session()
    images = pictures(small=small)
    nwbfile.add_acquisition(images)
    if series:
        nwbfile.add_stimulus(IndexSeries(name="shown", indexed_images=images, unit="N/A", **series))
    return write(folder, nwbfile)


def test_images_of_one_size_share_their_pixels(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path, small=False), group="acquisition/pictures")
    assert dataset["grey"].dims == ("x", "y")
    assert dataset["red"].dims[:2] == ("x", "y")
    np.testing.assert_array_equal(dataset["grey"].values, GREY)
    np.testing.assert_array_equal(dataset["red"].sel({dataset["red"].dims[2]: "g"}).values, RED[..., 1])
    assert dataset["grey"].attrs["resolution"] == 70.0
    assert dataset["grey"].attrs["description"] == "a gradient"
    assert dataset["grey"].attrs["neurodata_type"] == "GrayscaleImage"


def test_images_of_unequal_size_have_dimensions_of_their_own(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path), group="acquisition/pictures")
    assert dataset["grey"].dims == ("grey_x", "grey_y")
    assert dataset["clear"].dims == ("clear_x", "clear_y", "clear_color")
    assert list(dataset["clear_color"].values) == ["r", "g", "b", "a"]


def test_colours_of_three_and_of_four_are_not_mixed_up(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path, small=False), group="acquisition/pictures")
    assert dataset["red"].dims == ("x", "y", "red_color")
    assert list(dataset["red_color"].values) == ["r", "g", "b"]
    assert list(dataset["clear_color"].values) == ["r", "g", "b", "a"]


def test_the_order_of_images_is_kept(tmp_path: Path) -> None:
    order = opened(written(tmp_path), group="acquisition/pictures")["order_of_images"]
    assert order.dims == ("image",)
    assert list(order.values) == [f"acquisition/pictures/{name}" for name in ("red", "grey", "clear")]


def test_in_the_whole_session_images_are_named_for_their_container(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path))
    assert dataset["pictures_grey"].dims == ("pictures_grey_x", "pictures_grey_y")


def test_rows_first_on_request(tmp_path: Path) -> None:
    dataset = opened(written(tmp_path, small=False), group="acquisition/pictures", image_axes="yx")
    assert dataset["grey"].dims == ("y", "x")


def test_an_external_image_is_its_path(tmp_path: Path) -> None:
    nwbfile = empty_session()
    image = ExternalImage(name="outside", data="pictures/a.png", image_format="PNG", image_mode="RGB")
    nwbfile.add_acquisition(Images(name="pictures", images=[image]))
    dataset = opened(write(tmp_path, nwbfile), group="acquisition/pictures")
    assert dataset["outside"].item() == "pictures/a.png"
    assert dataset["outside"].attrs["image_format"] == "PNG"


def test_an_index_series_names_the_images_it_points_to(tmp_path: Path) -> None:
    path = written(tmp_path, data=np.array([2, 0, 0], "uint32"), timestamps=[0.0, 1.0, 2.0])
    dataset = opened(path, group="stimulus/presentation/shown")
    assert dataset["image"].dims == ("time",)
    assert list(dataset["image"].values) == ["clear", "red", "red"]
    np.testing.assert_array_equal(dataset["data"].values, [2, 0, 0])
    assert dataset["data"].attrs["indexed_images"] == "acquisition/pictures"


def test_an_index_beyond_the_images_is_an_error_of_their_names_only(tmp_path: Path) -> None:
    path = written(tmp_path, data=np.array([2, 9], "uint32"), timestamps=[0.0, 1.0])
    dataset = opened(path, group="stimulus/presentation/shown")
    np.testing.assert_array_equal(dataset["data"].values, [2, 9])
    with pytest.raises(ChunkError, match="contains 9") as caught:
        dataset["image"].load()
    assert caught.value.path == "stimulus/presentation/shown/data"
    assert (caught.value.found, caught.value.expected) == (9, range(3))


def test_scratch_is_shown_as_it_is(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_scratch(np.arange(6).reshape(2, 3), name="numbers", description="of no kind")
    nwbfile.add_scratch(ScratchData(name="word", data="text", description="one"))
    path = write(tmp_path, nwbfile)
    flat = opened(path)
    np.testing.assert_array_equal(flat["numbers"].values, np.arange(6).reshape(2, 3))
    assert flat["word"].item() == "text"
    alone = opened(path, group="scratch/numbers")
    assert alone["data"].dims == ("dim_0", "dim_1")
    assert alone.attrs["notes"] == "of no kind"


def external_movie(folder: Path, **times: Any) -> Path:
    nwbfile = empty_session()
    nwbfile.add_acquisition(
        ImageSeries(
            name="movie",
            external_file=["a.avi", "b.avi"],
            starting_frame=[0, 2],
            format="external",
            unit="n.a.",
            **times,
        )
    )
    return write(folder, nwbfile)


@pytest.mark.parametrize(
    "times",
    [{"rate": 2.0, "starting_time": 1.0, "num_samples": 4}, {"timestamps": [1.0, 1.5, 2.25, 3.0]}],
)
def test_external_files_are_a_table(tmp_path: Path, times: dict[str, Any]) -> None:
    path = external_movie(tmp_path, **times)
    expected = 1.0 + np.arange(4) / 2.0 if "rate" in times else np.array(times["timestamps"])
    dataset = opened(path, group="acquisition/movie")
    assert list(dataset["external_file"].values) == ["a.avi", "b.avi"]
    np.testing.assert_array_equal(dataset["starting_frame"].values, [0, 2])
    np.testing.assert_array_equal(dataset["external_file_time"].values, expected[[0, 2]])
    np.testing.assert_array_equal(dataset["time"].values, expected)
    assert dataset["data"].dims == ("frame", "x", "y")
    assert opened(path)["movie_external_file"].dims == ("movie_file",)


def test_first_frames_that_do_not_fit_are_said(tmp_path: Path) -> None:
    path = external_movie(tmp_path, timestamps=[0.0, 1.0, 2.0])
    file = "acquisition/movie/external_file"
    edit(path, file, lambda document: document["attributes"].update(starting_frame=[0, 7]))
    with pytest.warns(MappingWarning, match=r"begin at frames \[0, 7\], but only 3 timestamps"):
        assert "external_file_time" not in opened(path, group="acquisition/movie")
    edit(path, file, lambda document: document["attributes"].update(starting_frame=[0]))
    with pytest.warns(MappingWarning, match=r"2 external files but the first frames \[0\]"):
        assert "starting_frame" not in opened(path, group="acquisition/movie")


def test_pictures_of_every_release_are_as_stored(corpus_dir: Callable[[str, str], Path]) -> None:
    dataset = opened(corpus_dir("ophys", "0.8.0"), group="acquisition/snapshots")
    assert dataset["overlay"].dims == ("x", "y", "color")
    assert dataset["mean"].dtype == np.float64


def test_an_image_that_is_not_there_is_no_name(tmp_path: Path) -> None:
    path = written(tmp_path, data=np.array([0, 1, 2], "uint32"), rate=1.0)
    shutil.rmtree(path / "acquisition/pictures/red")
    consolidate(path)
    with pytest.warns(
        MappingWarning, match="refers to 1 images that are not in the file, such as 'acqu.*red'"
    ):
        shown = opened(path, group="stimulus/presentation/shown")
    assert shown["image"].values.tolist() == ["", "grey", "clear"]


def test_first_frames_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    nwbfile = empty_session()
    nwbfile.add_acquisition(
        ImageSeries(
            name="movie",
            external_file=["a.avi", "b.avi"],
            starting_frame=[0, 5],
            format="external",
            rate=10.0,
            num_samples=9,
            unit="n.a.",
        )
    )
    path = write(tmp_path, nwbfile)
    edit(
        path,
        "acquisition/movie/external_file",
        lambda node: node["attributes"].update(starting_frame=[[0], [1, 2]]),
    )
    with pytest.warns(MappingWarning, match=r"the first frames \[\[0\], \[1, 2\]\], which are ignored"):
        movie = opened(path, group="acquisition/movie")
    assert movie["external_file"].values.tolist() == ["a.avi", "b.avi"]

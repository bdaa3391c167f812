"""Of every type: images, ordered and external, masks, and retinotopy."""

from typing import Any

import numpy as np
from pynwb import NWBFile, get_class
from pynwb.base import ExternalImage, Image, ImageReferences, Images
from pynwb.image import (
    GrayscaleImage,
    ImageMaskSeries,
    ImageSeries,
    IndexSeries,
    RGBAImage,
    RGBImage,
)

from tests.mapping.construct_mode import constructed

_random = np.random.default_rng(3)


def add_images(nwbfile: NWBFile) -> None:
    """Add images of every kind, a series that shows them, a masked movie, and maps of the cortex."""
    ordered = _ordered()
    nwbfile.add_stimulus_template(ordered)
    nwbfile.add_stimulus(
        IndexSeries(
            name="presented",
            data=np.array([2, 0, 1], "uint32"),
            unit="N/A",
            indexed_images=ordered,
            timestamps=[1.0, 2.0, 4.0],
        )
    )
    nwbfile.add_acquisition(_pictures())
    _films(nwbfile)
    nwbfile.processing["ophys"].add(_retinotopy())


def _ordered() -> Images:
    images = [
        GrayscaleImage(name="circle", data=_random.integers(0, 255, (4, 6)).astype("uint8"), resolution=1.5),
        GrayscaleImage(name="square", data=_random.integers(0, 255, (4, 6)).astype("uint8")),
        GrayscaleImage(name="star", data=_random.integers(0, 255, (4, 6)).astype("uint8")),
    ]
    return Images(
        name="shapes",
        description="shown",
        images=images,
        order_of_images=ImageReferences(name="order_of_images", data=[images[2], images[0], images[1]]),
    )


def _pictures() -> Images:
    return Images(
        name="pictures",
        description="of every kind and unequal size",
        images=[
            Image(name="plain", data=_random.random((3, 5)), description="of no declared kind"),
            GrayscaleImage(name="gray", data=_random.random((2, 7)), description="brain", resolution=70.0),
            RGBImage(name="rgb", data=_random.integers(0, 255, (3, 4, 3)).astype("uint8"), resolution=2.0),
            RGBAImage(name="rgba", data=_random.integers(0, 255, (5, 2, 4)).astype("uint8")),
            ExternalImage(
                name="elsewhere",
                data="pictures/brain.png",
                image_format="PNG",
                image_mode="RGB",
                description="not in the file",
            ),
        ],
    )


def _films(nwbfile: NWBFile) -> None:
    film = ImageSeries(
        name="film",
        external_file=["film.avi"],
        format="external",
        starting_frame=[0],
        num_samples=40,
        rate=25.0,
        unit="n.a.",
        device=nwbfile.create_device(name="camera"),
    )
    nwbfile.add_acquisition(film)
    nwbfile.add_stimulus_template(
        ImageSeries(name="drifting", data=_random.random((3, 4, 5, 2)), unit="n.a.", rate=60.0)
    )
    nwbfile.add_acquisition(
        constructed(
            ImageMaskSeries,
            name="masked",
            masked_imageseries=nwbfile.acquisition["movie"],
            data=_random.integers(0, 2, (2, 4, 6)).astype("uint8"),
            unit="n.a.",
            timestamps=[0.0, 0.1],
        )
    )
    nwbfile.add_stimulus(
        constructed(
            IndexSeries,
            name="frames shown",
            data=np.array([1, 0], "uint32"),
            unit="N/A",
            indexed_timeseries=nwbfile.stimulus_template["drifting"],
            timestamps=[3.0, 5.0],
        )
    )


def _retinotopy() -> Any:
    """Maps, each with the attributes that the schema gives them; pynwb has no class but makes one."""
    rows_and_columns: dict[str, Any] = {"dimension": np.array([3, 4], "int32"), "field_of_view": [0.1, 0.2]}
    maps = {
        "axis_1_phase_map": {**rows_and_columns, "unit": "degrees"},
        "axis_1_power_map": {**rows_and_columns, "unit": "degrees"},
        "axis_2_phase_map": {**rows_and_columns, "unit": "degrees"},
        "axis_2_power_map": {**rows_and_columns, "unit": "degrees"},
        "sign_map": rows_and_columns,
    }
    pictures = {
        "focal_depth_image": {
            **rows_and_columns,
            "bits_per_pixel": 12,
            "focal_depth": 1e-4,
            "format": "raw",
        },
        "vasculature_image": {**rows_and_columns, "bits_per_pixel": 8, "format": "raw"},
    }
    arguments: dict[str, Any] = {}
    for name, attributes in (maps | pictures).items():
        values = _random.random((3, 4)) * 99
        arguments[name] = values.astype("float32" if name in maps else "uint16")
        arguments |= {f"{name}__{key}": value for key, value in attributes.items()}
    return get_class("ImagingRetinotopy", "core")(
        name="retinotopy", axis_descriptions=["altitude", "azimuth"], **arguments
    )

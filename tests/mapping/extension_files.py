"""Files with the types of extensions, written in a process of their own: `python -m … FOLDER`.

Loading an extension changes what pynwb knows for the rest of a process.
"""

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from hdmf.common import CSRMatrix, DynamicTable, SimpleMultiContainer, VectorData
from pynwb import TimeSeries, get_class, load_namespaces
from pynwb.image import ImageSeries
from pynwb.spec import (
    NWBAttributeSpec,
    NWBDatasetSpec,
    NWBGroupSpec,
    NWBNamespaceBuilder,
)

from tests.session_files import edit, empty_session, write


def extension_files(folder: Path, *names: str) -> dict[str, Path]:
    """Write some of the files `pose`, `events` and `holder`, by default all, in another process."""
    names = names or ("pose", "events", "holder")
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(folder), *names]
    subprocess.run(command, check=True, timeout=120)
    return {name: folder / f"{name}.nwb.zarr" for name in names}


def without_schemas(path: Path) -> Path:
    """A copy of a file without the schemas that are cached in it, as older software wrote them."""
    copy = path.with_name(f"uncached_{path.name}")
    shutil.copytree(path, copy)
    shutil.rmtree(copy / "specifications")
    edit(copy, "", lambda document: document["attributes"].pop(".specloc", None))
    return copy


def _pose(folder: Path) -> None:
    """ndx-pose: two body parts with confidence, a skeleton, a camera, and a frame labelled by hand.

    Without the attributes that its schema has as uint8: hdmf-zarr stores attributes as JSON, and pynwb then
    refuses the int that it reads.
    """
    import ndx_pose

    nwbfile = empty_session()
    camera = ndx_pose.CalibratedCamera(
        name="camera1",
        description="from above",
        intrinsic_matrix=np.eye(3, dtype="float32"),
        rotation_matrix=np.eye(3, dtype="float32") * 2,
        translation_vector=np.array([1.0, 2.0, 3.0], "float32"),
        distortion_coefficients=np.array([0.1, 0.2, 0.3, 0.4], "float32"),
    )
    nwbfile.add_device(camera)
    video = ImageSeries(
        name="video",
        external_file=["above.avi"],
        format="external",
        starting_frame=[0],
        dimension=[640, 480],
        rate=30.0,
        num_samples=90,
        unit="n.a.",
        device=camera,
    )
    nwbfile.add_acquisition(video)
    skeleton = ndx_pose.Skeleton(
        name="mouse", nodes=["nose", "tail"], edges=np.array([[0, 1]], "uint8"), subject=None
    )
    times = np.array([0.0, 0.1, 0.25])
    parts = [_body_part(ndx_pose, name, times) for name in ("nose", "tail")]
    behavior = nwbfile.create_processing_module(name="behavior", description="poses")
    behavior.add(ndx_pose.Skeletons(skeletons=[skeleton]))
    behavior.add(
        ndx_pose.PoseEstimation(
            name="PoseEstimation",
            pose_estimation_series=parts,
            description="from one camera",
            original_videos=["above.avi"],
            dimensions=np.array([[640, 480]], "uint16"),
            device=camera,
            scorer="DLC_resnet50",
            source_software="DeepLabCut",
            source_software_version="2.2b8",
            skeleton=skeleton,
            source_video=video,
        )
    )
    behavior.add(_training(ndx_pose, skeleton, video))
    write(folder, nwbfile, "pose.nwb.zarr")


def _body_part(ndx_pose: Any, name: str, times: np.ndarray[Any, Any]) -> Any:
    return ndx_pose.PoseEstimationSeries(
        name=name,
        description=f"where the {name} was",
        data=np.arange(6.0).reshape(3, 2) * len(name),
        unit="pixels",
        reference_frame="(0, 0) is the top left corner",
        timestamps=times,
        confidence=np.array([0.9, 0.5, 1.0]),
        confidence_definition="softmax",
        conversion=0.5,
    )


def _training(ndx_pose: Any, skeleton: Any, video: ImageSeries) -> Any:
    instance = ndx_pose.SkeletonInstance(
        node_locations=np.array([[1.0, 2.0], [3.0, 4.0]]),
        node_visibility=[True, False],
        skeleton=skeleton,
    )
    frame = ndx_pose.TrainingFrame(
        name="frame_10",
        annotator="somebody",
        skeleton_instances=ndx_pose.SkeletonInstances(skeleton_instances=[instance]),
        source_video=video,
    )
    return ndx_pose.PoseTraining(training_frames=ndx_pose.TrainingFrames(training_frames=[frame]))


def _events(folder: Path) -> None:
    """ndx-events: a table of events with a column of the extension's own type.

    Its other types became those of the core schema, and so do they here; its session type cannot be made
    any more, for it defines `events`, which the NWBFile of pynwb 4.2 has itself.
    """
    import ndx_events

    nwbfile = empty_session()
    number = VectorData(name="number", description="which, as a number", data=[0, 1, 0])
    meanings = ndx_events.MeaningsTable(target=number, description="what cues mean")
    meanings.add_row(value=0, meaning="lick left")
    meanings.add_row(value=1, meaning="lick right")
    cue = ndx_events.CategoricalVectorData(
        name="cue",
        description="which",
        data=["left", "right", "left"],
        meanings=meanings,
        filter_values=["none"],
    )
    table = ndx_events.EventsTable(
        name="cues",
        description="when cues were",
        columns=[
            ndx_events.TimestampVectorData(
                name="timestamp", description="when", data=[3.0, 1.0, 2.0], resolution=0.001
            ),
            ndx_events.DurationVectorData(name="duration", description="how long", data=[0.5, np.nan, 0.25]),
            number,
            cue,
        ],
        meanings_tables=[meanings],
    )
    nwbfile.add_analysis(table)
    write(folder, nwbfile, "events.nwb.zarr")


def _holder(folder: Path) -> None:
    """An extension with what no place of the core schema holds, and datasets of every form."""
    _load_holder(folder)
    nwbfile = empty_session()
    kinds = {name: get_class(name, "ndx-holder") for name in ("Laboratory", "Colour")}
    nwbfile.add_lab_meta_data(
        kinds["Laboratory"](
            name="laboratory",
            room="B12",
            temperatures=[20.5, 21.0],
            approved=True,
            protocol="long text",
            counts=np.arange(6, dtype="int16").reshape(2, 3),
            sparse=CSRMatrix(
                name="sparse",
                data=np.array([1.5, 2.5, 3.5]),
                indices=np.array([0, 2, 1], "uint8"),
                indptr=np.array([0, 2, 3], "uint8"),
                shape=(2, 3),
            ),
            several=SimpleMultiContainer(
                name="several",
                containers=[
                    DynamicTable(
                        name="inner",
                        description="a table",
                        columns=[VectorData(name="a", description="numbers", data=[1, 2])],
                    )
                ],
            ),
        )
    )
    nwbfile.add_acquisition(_light(kinds["Colour"]))
    write(folder, nwbfile, "holder.nwb.zarr")


def _light(kind: Any) -> TimeSeries:
    light: TimeSeries = kind(
        name="light",
        data=np.arange(10.0).reshape(5, 2),
        unit="cd",
        rate=10.0,
        colour="green",
        quality=np.linspace(0, 1, 5),
        palette=["green", "red"],
    )
    return light


def _load_holder(folder: Path) -> None:
    namespace = NWBNamespaceBuilder("types for tests", "ndx-holder", version="0.1.0", author="test")
    for name in ("LabMetaData", "TimeSeries"):
        namespace.include_type(name, namespace="core")
    for name in ("CSRMatrix", "SimpleMultiContainer"):
        namespace.include_type(name, namespace="hdmf-common")
    laboratory = NWBGroupSpec(
        "where it was done",
        neurodata_type_def="Laboratory",
        neurodata_type_inc="LabMetaData",
        attributes=[
            NWBAttributeSpec("room", "the room", "text"),
            NWBAttributeSpec("temperatures", "in degrees", "float", shape=(None,), dims=("readings",)),
            NWBAttributeSpec("approved", "by the committee", "bool"),
        ],
        datasets=[
            NWBDatasetSpec("a text", name="protocol", dtype="text"),
            NWBDatasetSpec(
                "a matrix", name="counts", dtype="int", shape=(None, None), dims=("days", "animals")
            ),
        ],
        groups=[
            NWBGroupSpec("sparse", name="sparse", neurodata_type_inc="CSRMatrix"),
            NWBGroupSpec("several", name="several", neurodata_type_inc="SimpleMultiContainer"),
        ],
    )
    colour = NWBGroupSpec(
        "a series with a colour",
        neurodata_type_def="Colour",
        neurodata_type_inc="TimeSeries",
        attributes=[NWBAttributeSpec("colour", "its colour", "text")],
        datasets=[
            NWBDatasetSpec(
                "of each sample", name="quality", dtype="float", shape=(None,), dims=("num_times",)
            ),
            NWBDatasetSpec("names", name="palette", dtype="text", shape=(None,), dims=("colours",)),
        ],
    )
    for spec in (laboratory, colour):
        namespace.add_spec("ndx-holder.extensions.yaml", spec)
    namespace.export("ndx-holder.namespace.yaml", outdir=str(folder))
    load_namespaces(str(folder / "ndx-holder.namespace.yaml"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in sys.argv[2:]:
        {"pose": _pose, "events": _events, "holder": _holder}[name](Path(sys.argv[1]))

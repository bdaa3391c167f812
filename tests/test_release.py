"""The built package installs alone, with the lowest and the newest releases that it allows, and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Making environments takes a minute where packages have to be downloaded.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def uv(*arguments: object) -> None:
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        pytest.skip("uv builds the package: run the tests with `uv run pytest`")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"\n## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text())


def test_the_conda_recipe_has_the_same_dependencies() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    names = {"dask-core": "dask[array]", "python-zlib-ng": "zlib-ng", "matplotlib-base": "matplotlib"}

    def of_conda(lines: list[str]) -> set[str]:
        split = (line.split() for line in lines if not line.startswith("python "))
        return {f"{names.get(name, name)}{bound}" for name, bound in split}

    project = PROJECT["project"]
    assert recipe["context"]["version"] == project["version"]
    assert of_conda(recipe["requirements"]["run"]) == set(project["dependencies"])
    optional = {
        each for extra in ("cluster", "plot", "s3") for each in project["optional-dependencies"][extra]
    }
    assert of_conda(recipe["requirements"]["run_constraints"]) == optional


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", folder, ROOT)
    return folder


def test_the_wheel_has_the_package_and_its_data_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"intake_nwbzarr", f"intake_nwbzarr-{PROJECT['project']['version']}.dist-info"}
    package = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "intake_nwbzarr").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert names >= package
    assert "intake_nwbzarr/py.typed" in names


def test_the_source_distribution_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert (unpacked / "tests" / "smoke.py").exists()
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", unpacked)
    (again,), (wheel,) = (tmp_path / "dist").glob("*.whl"), built.glob("*.whl")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@pytest.mark.parametrize("extras", ["", "[cluster,demo]"])
def test_the_wheel_works_in_an_environment_of_its_own(
    built: Path, extras: str, resolution: str, tmp_path: Path
) -> None:
    """What needs an extra says so without it, and works with it."""
    (wheel,) = built.glob("*.whl")
    python = tmp_path / "environment" / "bin" / "python"
    uv("venv", "--quiet", "--python", sys.executable, python.parents[1])
    newest = PROJECT["tool"]["uv"]["exclude-newer"]
    uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "--resolution",
        resolution,
        "--exclude-newer",
        newest,
        f"{wheel}{extras}",
    )
    smoke = shutil.copy(ROOT / "tests" / "smoke.py", tmp_path)
    (tmp_path / "sessions").mkdir()
    # Outside of the repository, so that only what was installed can be imported.
    done = subprocess.run(
        [python, "-W", "ignore", smoke, tmp_path / "sessions"],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *sessions, plot, profile, client, s3_chain = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in sessions] == ["Zarr 3", "Zarr 2", "HDF5"]
    assert len({line.partition(", ")[2] for line in sessions}) == 1, done.stdout
    if extras:
        assert [plot, profile, client] == ["Axes", "No AWS profile 'lab' for s3://lab/a.nwb.zarr.", "1.0"]
        assert "is not installed" not in s3_chain
        demo = ("demo", 0, "nwbzarr-demo.png")
    else:
        for line, extra in ((plot, "plot"), (profile, "s3"), (client, "cluster")):
            assert f'pip install "intake-nwbzarr[{extra}]"' in line
        assert "s3fs" in s3_chain
        demo = ("demo", 2, 'pip install "intake-nwbzarr[demo]"')
    command, status, words = demo
    ran = subprocess.run(
        [python.with_name("nwbzarr"), command],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    assert ran.returncode == status, ran.stderr
    assert words in " ".join((ran.stdout + ran.stderr).split())

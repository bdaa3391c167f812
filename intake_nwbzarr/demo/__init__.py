"""A demonstration on synthetic sessions, with an S3 server of its own."""

from importlib.util import find_spec

from intake_nwbzarr.errors import DemoUnavailableError


def check_packages() -> None:
    """Raise DemoUnavailableError if a package is missing that only the demonstration needs."""
    for package in ("moto", "flask", "botocore", "matplotlib"):
        if find_spec(package) is None:
            raise DemoUnavailableError(
                f"The demo runs its own S3 server and draws a figure, which needs the package {package}.",
                found=package,
                next_step='Install it with pip install "intake-nwbzarr[demo]".',
            )

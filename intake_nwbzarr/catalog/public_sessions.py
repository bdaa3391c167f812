"""The catalog of public sessions that comes with the package: `intake.cat.nwbzarr`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from intake.catalog.local import YAMLFileCatalog

PUBLIC: Final = Path(__file__).with_name("public")
"""The folder of the catalog and its table."""

catalog: Final = YAMLFileCatalog(str(PUBLIC / "public.yaml"), name="nwbzarr")

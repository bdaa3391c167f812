"""`ds.nwb.plot`: quick-look plots."""

from intake_nwbzarr.errors import import_optional

import_optional("matplotlib", "plot", "Drawing")

"""The documentation site: ``uv run sphinx-build -W -c docs . build/site``."""

from importlib import metadata
from pathlib import Path
from typing import Any

project = "intake-nwbzarr"
author = "the intake-nwbzarr developers"
release = metadata.version("intake-nwbzarr")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# The pages are those that are read in the repository, with links to files beside them.
include_patterns = ["docs/**", "examples/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md"]
exclude_patterns = ["docs/conf.py"]
root_doc = "docs/index"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
copybutton_exclude = ".linenos, .gp, .go"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
# NumPy docstrings name parameters together: `location, storage_options`.
napoleon_use_param = False
napoleon_use_rtype = False
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = "intake-nwbzarr"
html_theme_options = {"navigation_with_keys": False, "navbar_center": [], "footer_end": []}
# All pages are few enough to be listed beside each.
html_sidebars = {"**": ["globaltoc.html"], "docs/index": []}

# With ``-t online``, names of other projects are links to their documentation, whose inventories are fetched.
if tags.has("online"):  # type: ignore[name-defined]  # noqa: F821 - of Sphinx
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
        "zarr": ("https://zarr.readthedocs.io/en/stable", None),
        "pynwb": ("https://pynwb.readthedocs.io/en/stable", None),
        "hdmf": ("https://hdmf.readthedocs.io/en/stable", None),
        "intake": ("https://intake.readthedocs.io/en/latest", None),
        "dask": ("https://docs.dask.org/en/stable", None),
    }


def setup(app: Any) -> None:
    """Make the site's address lead to its first page."""

    def redirect(app: Any, error: Exception | None) -> None:
        if error is None and app.builder.name == "html":
            page = '<meta http-equiv="refresh" content="0; url=docs/index.html">\n'
            Path(app.outdir, "index.html").write_text(page)

    app.connect("build-finished", redirect)

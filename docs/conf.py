"""The documentation site: ``uv run sphinx-build -W -c docs . build/site``."""

import os
import re
import sys
import tempfile
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

project = "intake-nwbzarr"
author = "the intake-nwbzarr developers"
release = metadata.version("intake-nwbzarr")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# The pages are those that are read in the repository, with links to files beside them.
include_patterns = [
    "docs/**",
    "examples/*.py",
    "examples/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
]
root_doc = "docs/index"
# docs/conf.py is Python too.
exclude_patterns = ["docs/conf.py"]

# The examples are notebooks in the percent format, and run whenever they have changed.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_merge_streams = True

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
copybutton_exclude = ".linenos, .gp, .go"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
# NumPy docstrings name parameters together: `location, storage_options`.
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = "intake-nwbzarr"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
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


servers = ExitStack()


def serve_examples(app: Any, _: Any, docnames: list[str]) -> None:
    """Upload the sessions of the examples that are about to run to an S3 server on this machine."""
    if not any(name.startswith("examples/") and not name.endswith("README") for name in docnames):
        return
    sys.path.insert(0, str(Path(app.srcdir, "examples")))
    from sessions import imaging_session, patch_clamp_session, trials_session

    from intake_nwbzarr.demo.running import write_running_sessions
    from intake_nwbzarr.demo.server import PUBLIC_BUCKET, s3_server
    from intake_nwbzarr.demo.sessions import write_zarr3

    start = servers.enter_context(s3_server())
    folder = Path(servers.enter_context(tempfile.TemporaryDirectory()))
    for make in (imaging_session, patch_clamp_session, trials_session):
        write_zarr3(make(), folder / f"{make.__name__}.nwb.zarr")
    write_running_sessions(folder / "running", 24)
    server = start()
    server.upload(folder, PUBLIC_BUCKET, "examples")
    # Whoever builds the site may have settings of their own; kernels warn of connections on this machine.
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    without_values = "import xarray; xarray.set_options(display_expand_data=False)"
    (profile / "ipython_kernel_config.py").write_text(
        f"c.IPKernelApp.log_level = 'ERROR'\nc.IPKernelApp.exec_lines = [{without_values!r}]\n"
    )
    os.environ["IPYTHONDIR"] = str(profile.parent)
    os.environ["EXAMPLE_SESSIONS"] = f"s3://{PUBLIC_BUCKET}/examples"
    os.environ["AWS_ENDPOINT_URL_S3"] = server.endpoint_url


def without_files(_: Any, docname: str, source: list[str]) -> None:
    """Keep only the text of links to Python files, which lead somewhere in the repository only."""
    if not docname.startswith("examples/"):
        source[0] = re.sub(r"\[([^]]+)\]\((?!\.\./examples/|https?:)[^)]+\.py\)", r"\1", source[0])


def without_signature(*described: Any) -> tuple[str, None] | None:
    """Leave out the parameters of errors, which all have the same and none of which users create."""
    _, kind, _, _, _, parameters, _ = described
    return ("", None) if kind == "exception" and parameters else None


def finish(app: Any, error: Exception | None) -> None:
    """Stop the server, and make the site's address lead to its first page."""
    servers.close()
    if error is None and app.builder.name == "html":
        page = '<meta http-equiv="refresh" content="0; url=docs/index.html">\n'
        Path(app.outdir, "index.html").write_text(page)


def setup(app: Any) -> None:
    """Connect the functions above to the build."""
    app.connect("env-before-read-docs", serve_examples)
    app.connect("source-read", without_files)
    app.connect("autodoc-process-signature", without_signature)
    app.connect("build-finished", finish)

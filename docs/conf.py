"""The documentation as a site; the network is not used.

pip install -e ".[docs]" && sphinx-build -W -b html docs build/docs
"""

project = "pix2seqd"
author = "the authors of pix2seqd"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images/*.py"]
html_theme = "furo"
html_title = "pix2seqd"
myst_heading_anchors = 3
# Pages link to files of the repository that are not part of the site (README, examples, sources).
suppress_warnings = ["myst.xref_missing"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
add_module_names = False

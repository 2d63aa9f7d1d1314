"""What a page that needs nothing else carries along: templates, the plotting library, data for its scripts.

In: names of templates, texts. Out: a jinja2 environment; texts packed so that no character of theirs means
anything to HTML (gzip, base64; charts.js inflates them).
"""

import base64
import gzip
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def templates() -> Environment:
    """Return the environment of this package's pages; text from outside is escaped."""
    return Environment(
        loader=PackageLoader("autotune.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def packed_library() -> Markup:
    """Return plotly.js's basic bundle; its file is that of npm's plotly.js-basic-dist-min."""
    return packed(files("autotune.report").joinpath("page/plotly-basic.min.js").read_text(encoding="utf-8"))


def packed(text: str) -> Markup:
    """Return a text compressed, in characters that mean nothing to HTML."""
    content = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return Markup(content)  # noqa: S704 - base64 has no character of HTML's

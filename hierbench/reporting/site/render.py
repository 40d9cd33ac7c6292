"""The templates' environment: every text is escaped, and hidden or reordering characters are shown as such."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from hierbench.reporting.site import charts
from hierbench.reporting.site.figures import SCORING_WORDS, amount, duration, percent
from hierbench.reporting.site.models import settings_of
from hierbench.reporting.site.names import safe_link, slug
from hierbench.reporting.site.protocols import budget_of
from hierbench.reporting.site.row import ground_id

if TYPE_CHECKING:
    from jinja2 import Environment


def visible(text: str) -> str:
    r"""Return a text without characters that hide or reorder what stands around them.

    >>> visible("a\u202eb") == "a\N{REPLACEMENT CHARACTER}b"
    True
    """
    if text.isprintable():  # nearly every text
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in text)


def environment() -> Environment:
    """Return the environment of the bundled templates; an unknown name in one is an error, never an empty text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        # what is markup already came out of a template; every other text may be a stranger's
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=PackageLoader("hierbench.reporting.site"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        percent=percent,
        duration=duration,
        amount=amount,
        thousands=lambda count: f"{count:,}",
        digest=lambda text: text.removeprefix("sha256:")[:12],
        slug=slug,
        words=lambda scoring: SCORING_WORDS[scoring],
        ground_id=ground_id,
        settings=settings_of,
        budget=budget_of,
    )
    made.tests["safe_link"] = lambda address: safe_link(address) is not None
    made.globals.update(chart_box=(charts.WIDTH, charts.HEIGHT))
    return made

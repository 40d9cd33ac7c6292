"""The board as static pages: they work from a file and on GitHub Pages, and ask the network for nothing."""

from __future__ import annotations

from hierbench.reporting.site.build import build_site

__all__ = ["build_site"]

"""The synthetic board, its site, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from requiring import require_or_skip
from synthetic_board import varied_board

from hierbench.paths import data_dir
from hierbench.reporting.site import build_site

PROTOCOLS = ("tiny-v1.toml", "digits-v1.toml")


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board in which everything occurs that a page can show."""
    folder = varied_board(tmp_path_factory.mktemp("board"))
    (folder / "protocols").mkdir()
    shipped = data_dir() / "leaderboard"
    for name in PROTOCOLS:
        shutil.copy(shipped / "protocols" / name, folder / "protocols" / name)
    (folder / "reported_results.csv").write_text(
        "method,protocol,backbone,trained_on,dataset,metric,eps,value,source,note\n"
        "clip,a-paper,ViT-B/32,none,CIFAR10,clean,,88.1,arXiv:0000.00001,\n"
        "clip,a-paper,ViT-B/32,none,CIFAR10,pgd-20,1/255,9.5,arXiv:0000.00001,\n"
        'tecoa,a-paper,ViT-B/32,ImageNet,CIFAR10,pgd-20,1/255,60.3,arXiv:0000.00001,"a note, <b>bold</b>"\n'
        "fare,b-paper,ViT-L/14,ImageNet,CIFAR10,clean,,77.7,arXiv:0000.00002,\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="session")
def site(board: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of that board."""
    out = tmp_path_factory.mktemp("built") / "site"
    build_site(board, out)
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A running Chromium, Debian's own."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        require_or_skip("browser", "no chromium on the PATH: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require_or_skip("browser", "Playwright is not installed: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """What a browser did besides showing pages."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@dataclass
class Visitor:
    """Opens pages of the site and remembers what the browser said and asked for."""

    browser: Any
    site: Path
    watched: Watched = field(default_factory=Watched)
    contexts: list[Any] = field(default_factory=list)

    def open(self, page: str, *, width: int = 1280, height: int = 900, dark: bool = False, **context: Any) -> Any:
        """Return a fresh browser page showing ``page``, which may carry a fragment."""
        made = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **context
        )
        self.contexts.append(made)
        tab = made.new_page()
        tab.set_default_timeout(10_000)
        tab.on("console", lambda message: self.watched.console.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: self.watched.console.append(f"error: {error}"))
        tab.on("request", lambda request: self.watched.requests.append(request.url))
        tab.on("dialog", lambda dialog: self.watched.console.append(f"dialog: {dialog.message}"))
        name, hash_sign, fragment = page.partition("#")
        tab.goto((self.site / name).as_uri() + hash_sign + fragment)
        return tab


@pytest.fixture
def visitor(chromium: Any, site: Path) -> Iterator[Visitor]:
    """Opens pages; afterwards nothing may stand in the console, and nothing outside the site was asked for."""
    made = Visitor(chromium, site)
    yield made
    for context in made.contexts:
        context.close()
    assert made.watched.console == []
    assert made.watched.requests
    outside = [u for u in made.watched.requests if not u.startswith((site.as_uri() + "/", "data:"))]
    assert outside == []

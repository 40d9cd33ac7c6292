"""The documentation's figures come from records, its commands exist, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_no_generated_block_is_stale() -> None:
    done = subprocess.run([sys.executable, "docs/fill.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    import shutil

    for name in ("README.md", "docs", "weights", "leaderboard", "hierarchies", "hierbench", "benchmarks"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    page = tmp_path / "README.md"
    text = page.read_text()
    block = re.search(r"<!-- fill: table.*?<!-- end fill -->", text, re.DOTALL)
    assert block is not None
    figure = re.search(r"\d\d\.\d", block.group())
    assert figure is not None
    place = block.start() + figure.start()
    page.write_text(text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :])
    command = [sys.executable, "docs/fill.py", "--check", "README.md"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "README.md: stale" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_exist(page: Path) -> None:
    from typer.main import get_command

    from hierbench.cli.app import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    for line in re.findall(r"^hierbench .*$", blocks, re.MULTILINE):
        words = line.split("#")[0].split()
        assert words[1] in known, line
        if words[1] == "hierarchy":
            assert words[2] in known["hierarchy"].commands, line
        options = {o for p in known[words[1]].params for o in p.opts} if words[1] != "hierarchy" else set()
        for word in words[2:]:
            if word.startswith("--") and options:
                assert word in options | {"--debug"}, line


def commands_on_our_records() -> list[str]:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", pages, re.DOTALL))
    shown = re.findall(r"`(hierbench [^`]*)`", pages) + re.findall(r"^hierbench .*$", blocks, re.MULTILINE)
    return sorted({line.split(" #")[0].strip() for line in shown if "--records leaderboard/" in line})


def test_the_commands_on_our_own_records_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hierbench.cli.app import run

    monkeypatch.chdir(ROOT)
    commands = commands_on_our_records()
    assert {line.split()[1] for line in commands} >= {"table", "plot", "compare", "claims"}
    refused = {}
    for line in commands:
        words = shlex.split(line)[1:]
        if "--out" in words:
            where = words.index("--out") + 1
            words[where] = str(tmp_path / Path(words[where]).name)
        code, said = run(words), capsys.readouterr()
        if code:
            refused[line] = said.err
    assert refused == {}

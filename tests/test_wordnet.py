"""WordNet in a folder of its files: copied once into the cache, and what was installed later is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hierbench import wordnet
from hierbench.errors import InputError


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIERBENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for kind in ("data", "index"):
        for part in ("noun", "verb", "adj", "adv"):
            (folder / f"{kind}.{part}").write_text(f"{kind} {part}", encoding="utf-8")
    return folder


def test_sense_counts_that_were_installed_later_are_noticed(source: Path) -> None:
    copy = wordnet._prepared(source)
    assert (copy / "index.sense").read_text() == ""
    (source / "index.sense").write_text("bat%1:05:00:: 02139199 1 0\n", encoding="utf-8")
    assert wordnet._prepared(source) == copy
    assert (copy / "index.sense").read_text().startswith("bat%1")
    (source / "index.sense").unlink()
    assert (wordnet._prepared(source) / "index.sense").read_text().startswith("bat%1"), "what is there stays"


def test_a_folder_without_a_file_is_named(source: Path) -> None:
    (source / "index.adv").unlink()
    with pytest.raises(InputError, match=r"HIERBENCH_WORDNET: .*wordnet has no index\.adv"):
        wordnet._prepared(source)


def test_without_sense_counts_the_package_is_named(source: Path) -> None:
    from hierbench.attacks.text import generate

    class Reader:
        def open(self, name: str) -> object:
            return (wordnet._prepared(source) / name).open(encoding="utf-8")

    with pytest.raises(InputError, match=r"index.sense, which says .* install Debian's wordnet-sense-index") as caught:
        generate.make_table([], [], reader=Reader())
    assert "\n" not in str(caught.value)

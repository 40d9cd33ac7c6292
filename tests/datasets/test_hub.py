"""Splits from the Hub: its listing, its cache, its stream. Only the transport is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.load import load_images
from hierbench.datasets.spec import DatasetSpec, SplitSource
from hierbench.errors import InputError


class Hub:
    """A repository: names as the Hub lists them, files where they lie; remembers what was asked for."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root = root
        self.names = names
        self.asked: list[tuple[str, str | None]] = []
        self.error: Exception | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        hub = self

        class Api:
            def list_repo_files(self, repo: str, *, repo_type: str, revision: str | None) -> list[str]:
                hub.asked.append((f"{repo} {repo_type}", revision))
                if hub.error is not None:
                    raise hub.error
                return hub.names

        def download(repo: str, name: str, *, repo_type: str, revision: str | None) -> str:
            hub.asked.append((name, revision))
            return str(hub.root / name)

        def snapshot(repo: str, *, repo_type: str, revision: str | None, local_files_only: bool) -> str:
            assert local_files_only
            if not hub.root.is_dir():
                raise FileNotFoundError("nothing was fetched before")
            return str(hub.root)

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's entries with splits of six samples, so that small copies of the Hub are complete."""
    from dataclasses import replace

    from hierbench.datasets import load

    def small(name: str) -> DatasetSpec:
        spec = get_spec(name)
        splits = {s: replace(source, rows=6) for s, source in spec.splits.items()}
        return replace(spec, splits=splits)

    monkeypatch.setattr(load, "get_spec", small)


def in_repository(copies: Any, root: Path, name: str, place: str) -> Path:
    return Path(copies.parquet(root, name, folder=".", file=place))


def test_a_splits_own_files_are_fetched_at_the_pinned_revision(
    tmp_path: Path, copies: Any, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_repository(copies, tmp_path, "cifar100", "cifar100/test-00000-of-00001.parquet")
    names = ["README.md", "cifar100/train-00000-of-00001.parquet", "cifar100/test-00000-of-00001.parquet"]
    hub = Hub(tmp_path, names)
    hub.install(monkeypatch)
    images = load_images("cifar100")
    pinned = get_spec("cifar100").hub_revision
    assert len(images) == 6 and images.notes == ()
    assert hub.asked == [("uoft-cs/cifar100 dataset", pinned), ("cifar100/test-00000-of-00001.parquet", pinned)]
    local = load_images("cifar100", root=copy_as_root(tmp_path, "cifar100"))
    assert local.revision == images.revision and local.sample_hash == images.sample_hash


def copy_as_root(repository: Path, folder: str) -> Path:
    import shutil

    root = repository.parent / "root"
    shutil.copytree(repository, root / folder)
    return root


def test_hub_tars_come_with_their_lists(
    tmp_path: Path, copies: Any, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies.tars(tmp_path, "pcam", labels=[0, 1, 0, 1, 0, 1])
    names = ["classnames.txt", "test/0.tar", "test/1.tar", "test/nshards.txt", "train/0.tar", "train/nshards.txt"]
    hub = Hub(tmp_path / "pcam", names)
    hub.install(monkeypatch)
    images = load_images("pcam")
    assert len(images) == 6 and images.revision.startswith("wds:sha256:")
    assert [name for name, _ in hub.asked[1:]] == ["test/0.tar", "test/1.tar", "classnames.txt", "test/nshards.txt"]


def test_a_named_configuration_keeps_to_its_folder(tmp_path: Path, copies: Any) -> None:
    from dataclasses import replace

    from hierbench.datasets.hub import _files_of

    spec = replace(get_spec("cifar10"), hub_config="b")
    listed = ["a/test-00000-of-00001.parquet", "b/test-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"]
    assert _files_of(spec, SplitSource("cifar10", "test"), listed)[1] == ["b/test-00000-of-00001.parquet"]


def test_another_count_on_the_hub_is_refused(tmp_path: Path, copies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_repository(copies, tmp_path, "cifar100", "cifar100/test-00000-of-00001.parquet")
    Hub(tmp_path, ["cifar100/test-00000-of-00001.parquet"]).install(monkeypatch)
    with pytest.raises(InputError, match="6 samples; cifar100 test has 10000, so this is another version"):
        load_images("cifar100")


def test_what_was_fetched_is_read_without_a_network(
    tmp_path: Path, copies: Any, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_repository(copies, tmp_path, "cifar100", "cifar100/test-00000-of-00001.parquet")
    hub = Hub(tmp_path, [])
    hub.error = ConnectionError("no route to host")
    hub.install(monkeypatch)
    assert len(load_images("cifar100")) == 6
    with pytest.raises(InputError, match="cannot be fetched"):  # that split was not
        load_images("cifar100", split="train")


@pytest.mark.parametrize("kind", ["OSError", "httpx", "httpx2"])
def test_an_unreachable_hub_says_what_to_do(
    tmp_path: Path, copies: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    error: Exception = ConnectionError("no route to host")
    if kind != "OSError":
        error = pytest.importorskip(kind).ConnectError("no route to host")
    hub = Hub(tmp_path / "nowhere", [])
    hub.error = error
    hub.install(monkeypatch)
    with pytest.raises(InputError, match=r"cannot be fetched from the Hub .* --data-root"):
        load_images("cifar100")


def test_a_gated_set_says_where_its_terms_are(tmp_path: Path, copies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import GatedRepoError

    hub = Hub(tmp_path / "nowhere", [])
    hub.error = GatedRepoError.__new__(GatedRepoError)  # its own constructor wants a response of the transport
    hub.install(monkeypatch)
    with pytest.raises(
        InputError, match=r"gated; accept its terms at https://huggingface.co/datasets/ILSVRC/imagenet-1k"
    ):
        load_images("imagenet")


def test_what_is_on_no_hub_is_said(tmp_path: Path, copies: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nips2017: it is on no hub; name the folder"):
        load_images("nips2017")
    with pytest.raises(InputError, match="split pretrain of dataset tiny_imagenet@32: it is on no hub"):
        load_images("tiny_imagenet@32", split="pretrain")
    Hub(tmp_path, ["README.md"]).install(monkeypatch)
    with pytest.raises(InputError, match=r"holds no test-\*\.parquet and no test/\*\.tar"):
        load_images("cifar10")


def test_the_hub_is_named_where_a_data_root_is_set(
    tmp_path: Path, copies: Any, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_repository(copies, tmp_path, "cifar100", "cifar100/test-00000-of-00001.parquet")
    Hub(tmp_path, ["cifar100/test-00000-of-00001.parquet"]).install(monkeypatch)
    monkeypatch.setenv("HIERBENCH_DATA_ROOT", str(tmp_path / "elsewhere"))
    assert len(load_images("cifar100", root=Path("hub:"))) == 6
    with pytest.raises(InputError, match="HIERBENCH_DATA_ROOT"):
        load_images("cifar100")


@pytest.fixture
def streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The real ``datasets`` library streaming local Parquet; returns what it was asked for."""
    import datasets

    real = datasets.load_dataset
    asked: list[dict[str, Any]] = []

    def load_dataset(path: str, name: str | None = None, **how: Any) -> Any:
        asked.append({"path": path, "name": name, **how})
        split, revision = how.pop("split"), how.pop("revision")
        assert how.pop("streaming") and revision
        files = {split: sorted(str(p) for p in tmp_path.rglob(f"{split}-*.parquet"))}
        return real("parquet", data_files=files, split=split, streaming=True, **how)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_stream_gives_what_the_files_give(
    tmp_path: Path, copies: Any, tiny: None, streamed: list[dict[str, Any]]
) -> None:
    copies.parquet(tmp_path, "cifar100")
    fetched, live = (load_images("cifar100", root=root) for root in (tmp_path, "hub:stream"))
    assert live.ids == fetched.ids and (live.labels == fetched.labels).all()
    assert (np.asarray(live.array) == np.asarray(fetched.array)).all()
    pinned = get_spec("cifar100").hub_revision
    assert live.revision == f"hub:uoft-cs/cifar100@{pinned}"
    assert {(a["path"], a["split"], a["revision"]) for a in streamed} == {("uoft-cs/cifar100", "test", pinned)}
    assert [a.get("columns") for a in streamed] == [None, ["fine_label"], ["img"]]
    few = load_images("cifar100", root="hub:stream", limit=2)
    assert few.ids == fetched.ids[:2]


def test_a_stream_keeps_only_the_rows_that_are_wanted(
    tmp_path: Path, copies: Any, streamed: list[dict[str, Any]]
) -> None:
    from hierbench.datasets.hub import StreamBlobs

    blobs = copies.pictures(6)
    copies.parquet(tmp_path, "cifar100", blobs=blobs)
    spec = get_spec("cifar100")
    stream = StreamBlobs(spec, "uoft-cs/cifar100", spec.splits["test"], "a" * 40, None)
    stream.prepare(np.array([4, 1]))
    assert sorted(stream.spool.places) == [1, 4] and stream.read(4) == blobs[4]


def test_what_is_wrong_with_a_stream_is_named(
    tmp_path: Path, copies: Any, tiny: None, streamed: list[dict[str, Any]]
) -> None:
    copies.parquet(tmp_path, "cifar100", label_column="label")
    with pytest.raises(InputError, match="no column 'fine_label'; it has img, label"):
        load_images("cifar100", root="hub:stream")
    names = copies.hub_names(get_spec("cifar100"))[::-1]
    copies.parquet(tmp_path, "cifar100", names=names)
    with pytest.raises(InputError, match="label 0 is 'worm' there"):
        load_images("cifar100", root="hub:stream")
    copies.parquet(tmp_path, "cifar100", blobs=copies.pictures(7))
    with pytest.raises(InputError, match="7 samples; cifar100 test has 6"):
        load_images("cifar100", root="hub:stream")

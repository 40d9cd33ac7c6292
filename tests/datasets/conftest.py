"""Small copies of data sets, made in exactly the layouts that loaders meet."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli import chat_server
from cli.chat_server import ChatServer
from PIL import Image

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.describing.run import DescribeRequest
from hierbench.datasets.spec import DatasetSpec


class Copies:
    """Writes small copies; every method returns the folder or file it wrote."""

    @staticmethod
    def picture(value: int, size: tuple[int, int] = (40, 32), kind: str = "PNG") -> bytes:
        """One colour, different for each value, so that a row can be told by its pixels."""
        stream = io.BytesIO()
        Image.new("RGB", size, (value, 255 - value, 7)).save(stream, kind)
        return stream.getvalue()

    def pictures(self, count: int, kind: str = "PNG") -> list[bytes]:
        return [self.picture(10 * i % 256, kind=kind) for i in range(count)]

    @staticmethod
    def spec(name: str) -> DatasetSpec:
        return get_spec(name)

    def labels(self, spec: DatasetSpec, count: int) -> list[int]:
        last = len(spec.class_ids) - 1
        return [min(i, last) for i in range(count - 1)] + [last]

    def parquet(self, root: Path, name: str, split: str | None = None, **change: Any) -> Path:
        """A Parquet file with the Hub's columns and the features that the ``datasets`` library stores in it."""
        spec = get_spec(name)
        source = spec.splits[split or spec.evaluation_split]
        blobs = change.get("blobs", self.pictures(6))
        labels: Sequence[Any] = change.get("labels", self.labels(spec, len(blobs)))
        if spec.label_column == "wnid" and "labels" not in change:
            labels = [spec.class_ids[label] for label in labels]
        image, label = change.get("image_column", spec.image_column), change.get("label_column", spec.label_column)
        feature: dict[str, Any] = {"dtype": "string", "_type": "Value"}
        if not isinstance(labels[0], str):
            feature = {"names": change.get("names", self.hub_names(spec)), "_type": "ClassLabel"}
        metadata = {"info": {"features": {image: {"_type": "Image"}, label: feature}}}
        columns: dict[str, Any] = {image: [{"bytes": b, "path": None} for b in blobs], label: labels}
        columns |= change.get("columns", {})
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(metadata)})
        folder = root / change.get("folder", source.folder)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / change.get("file", f"{source.prefix}-00000-of-00001.parquet")
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, row_group_size=change.get("row_group_size", 2))
        return target

    @staticmethod
    def hub_names(spec: DatasetSpec) -> list[str]:
        """The label names of the Hub copy: the class ids, or what ``labels/`` has."""
        from importlib.resources import files

        own = files("hierbench.datasets") / "labels" / f"{spec.class_table or spec.base_name}.txt"
        if not own.is_file():
            return list(spec.class_ids)
        return [line.split("\t")[0] for line in own.read_text(encoding="utf-8").splitlines()]

    def tars(self, root: Path, name: str, split: str | None = None, **change: Any) -> Path:
        """WebDataset tars of the CLIP benchmark: two of them, with its two lists beside them."""
        spec = get_spec(name)
        source = spec.splits[split or spec.evaluation_split]
        blobs = change.get("blobs", self.pictures(6, "WEBP"))
        labels = change.get("labels", self.labels(spec, len(blobs)))
        folder = root / source.folder / source.prefix
        folder.mkdir(parents=True, exist_ok=True)
        half = (len(blobs) + 1) // 2
        suffix = change.get("suffix", "webp")
        for number, part in enumerate((range(half), range(half, len(blobs)))):
            with tarfile.open(folder / f"{number}.tar", "w") as tar:
                for row in part:
                    members = [(f"s{row:07d}.cls", str(labels[row]).encode()), (f"s{row:07d}.{suffix}", blobs[row])]
                    for member, data in members:
                        if member in change.get("without", ()):
                            continue
                        info = tarfile.TarInfo(change.get("prefix", "") + member)
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
        (folder / "nshards.txt").write_text(change.get("nshards", "2"))
        names = change.get("names", [c.name for c in spec.classes])
        (folder.parent / "classnames.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        return folder

    def folders(self, root: Path, name: str, classes: dict[str, int], *, place: str) -> Path:
        """Image folders: so many pictures for each folder name, below ``place``."""
        value = 0
        for folder, count in classes.items():
            home = root / place / folder
            home.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (home / f"{number:04d}.png").write_bytes(self.picture(value))
                value += 10
        return root / place

    def cifar(self, root: Path, name: str, rows: int = 5, **change: Any) -> Path:
        """The authors' binary test file, with its list of names."""
        random = np.random.default_rng(0)
        spec = get_spec(name)
        ten = name == "cifar10"
        folder = root / change.get("folder", "cifar-10-batches-bin" if ten else "cifar-100-binary")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (rows, 3072), dtype=np.uint8)
        labels = np.arange(rows, dtype=np.uint8)[:, None]
        head = labels if ten else np.concatenate([np.zeros_like(labels), labels], axis=1)
        content = np.concatenate([head, pixels], axis=1).tobytes()
        (folder / ("test_batch.bin" if ten else "test.bin")).write_bytes(content[: len(content) - change.get("cut", 0)])
        names = change.get("names", list(spec.class_ids))
        (folder / ("batches.meta.txt" if ten else "fine_label_names.txt")).write_text("\n".join(names) + "\n\n")
        np.save(root / "expected.npy", pixels.reshape(rows, 3, 32, 32))
        return folder


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """Writers of small copies, and a cache of their own."""
    monkeypatch.setenv("HIERBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("HIERBENCH_DATA_ROOT", raising=False)
    return Copies()


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """An endpoint on this machine that answers as it is told, with its key in the environment."""
    chat_server.key_in_environment(monkeypatch)
    with chat_server.serving() as server:
        yield server


@pytest.fixture
def request_(chat: ChatServer, tmp_path: Path) -> DescribeRequest:
    return DescribeRequest(
        dataset="digits", model="toy-1", base_url=chat.url, out=tmp_path / "digits.json", count=2, concurrency=1
    )

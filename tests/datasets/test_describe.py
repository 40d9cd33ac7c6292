"""What a description run asks for, sends and writes, against a real endpoint on this machine."""

from __future__ import annotations

import base64
import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.chat_server import KEY, Asked, ChatServer, Reply, completion, good
from cli.describing import NAMES, failure, read
from PIL import Image

from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.describing.run import Describer, DescribeRequest
from hierbench.datasets.load import load_images
from hierbench.errors import InputError

pytest.importorskip("openai", reason="the extra 'describe' is not installed")


def test_the_file_holds_what_was_answered_and_says_from_where(chat: ChatServer, request_: DescribeRequest) -> None:
    seen: list[tuple[int, int, int]] = []
    done = Describer(replace(request_, seed=7, temperature=0.5, licence="CC0-1.0")).run(lambda *a: seen.append(a))
    assert done.file == request_.out and (done.complete, done.classes) == (10, 10)
    found = read(done.file)
    assert found.sentences[3] == ("A view of three, number 0-0.", "A view of three, number 0-1.")
    assert (found.dataset, found.language, found.licence) == ("digits", "en", "CC0-1.0")
    for words in ("toy-1", chat.host, "describe-v1", "class names only", "seed 7", "temperature 0.5"):
        assert words in found.source
    assert re.search(r"\d{4}-\d\d-\d\d$", found.source)
    assert seen[0] == (0, 10, 0) and seen[-1] == (10, 10, 20)
    assert sorted(p.name for p in done.file.parent.iterdir()) == ["digits.json"], "no journal, no lock"
    assert chat.names == NAMES
    asked = chat.asked[4]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert {k: v for k, v in asked.content.items() if k != "messages"} == {
        "model": "toy-1", "seed": 7, "temperature": 0.5
    }  # fmt: skip
    assert [m["role"] for m in asked.content["messages"]] == ["system", "user"]
    for words in ("the digit four", "Write 2 ", "zero, one, two, three, five", "tag en", '{"sentences":'):
        assert words in asked.text


def test_what_is_not_said_is_not_sent(chat: ChatServer, request_: DescribeRequest) -> None:
    Describer(request_).run()
    assert set(chat.asked[0].content) == {"model", "messages"}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_so_many_requests_are_under_way_at_a_time(
    chat: ChatServer, request_: DescribeRequest, concurrency: int
) -> None:
    under_way: set[str] = set()
    most = 0

    def slow(asked: Asked) -> Reply:
        nonlocal most
        under_way.add(asked.name)
        most = max(most, len(under_way))
        time.sleep(0.2)
        under_way.discard(asked.name)
        return good(asked)

    chat.script = slow
    Describer(replace(request_, concurrency=concurrency)).run()
    assert most == concurrency
    assert sorted(chat.names) == sorted(NAMES)


def test_file_and_journal_never_hold_the_key(chat: ChatServer, request_: DescribeRequest) -> None:
    def echo(asked: Asked) -> Reply:
        if asked.name == "two":
            return completion([f"The key is {KEY}.", "A two."])
        return good(asked)

    chat.script = echo
    assert "quotes OPENAI_API_KEY" in failure(request_)
    assert request_.out is not None
    for path in request_.out.parent.iterdir():
        assert KEY.encode() not in path.read_bytes(), path


def pictures(asked: Asked) -> list[np.ndarray[Any, Any]]:
    """The images of a request, decoded here: uint8 [height, width(, 3)]."""
    found = []
    for part in asked.parts[1:]:
        assert part["type"] == "image_url"
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        assert image.format == "PNG"
        found.append(np.asarray(image))
    return found


def test_images_are_the_classes_own_pixels_enlarged(chat: ChatServer, request_: DescribeRequest) -> None:
    done = Describer(replace(request_, images=3)).run()
    train = load_images("digits", split="train")
    for label, asked in enumerate(chat.asked):
        own = np.asarray(train.array)[train.labels == label][:, 0]
        assert "The 3 pictures are examples" in asked.text and "8 x 8" in asked.text
        found = pictures(asked)
        assert len(found) == 3
        places = []
        for picture in found:
            assert picture.shape == (64, 64) and picture.dtype == np.uint8
            blocks = picture.reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(8, 8, 64)
            assert (blocks == blocks[..., :1]).all(), "every pixel is a block"
            (place,) = np.flatnonzero((own == blocks[..., 0]).all(axis=(1, 2)))
            places.append(place)
        assert len(set(places)) == 3
    assert done.file is not None
    assert "images (3 a class from train of digits, 8 x 8 pixels, enlarged 8 times" in read(done.file).source


def test_the_seed_chooses_the_images_and_a_second_question_has_the_same(
    chat: ChatServer, request_: DescribeRequest, tmp_path: Path
) -> None:
    chat.script = lambda asked: completion("no") if asked.attempt == 0 else good(asked)
    shown: dict[int | None, list[bytes]] = {}
    for seed in (None, 0, 1):
        chat.asked.clear()
        out = tmp_path / f"{seed}.json"
        Describer(replace(request_, images=2, seed=seed, classes=("zero",), out=out)).run()
        first, second = chat.asked
        shown[seed] = [p.tobytes() for p in pictures(first)]
        assert shown[seed] == [p.tobytes() for p in pictures(second)]
        assert [a.content.get("seed") for a in chat.asked] == ([None, None] if seed is None else [seed, seed + 1])
    assert shown[None] == shown[0] != shown[1]


def test_images_of_other_data_go_at_their_own_grid_in_colour(
    chat: ChatServer, request_: DescribeRequest, copies: Any, tmp_path: Path
) -> None:
    copies.cifar(tmp_path / "data", "cifar10", rows=5)
    ids = get_spec("cifar10").class_ids
    job = replace(
        request_, dataset="cifar10", images=1, split="test", data_root=tmp_path / "data", classes=ids[:5]
    )  # fmt: skip
    done = Describer(job).run()
    assert (done.file, done.complete) == (None, 5)
    expected = np.load(tmp_path / "data" / "expected.npy")
    for label, asked in enumerate(chat.asked):
        (picture,) = pictures(asked)
        assert np.array_equal(picture, expected[label].transpose(1, 2, 0))
        assert "block" not in asked.text
    with pytest.raises(InputError, match="--images: class 'airplane' has 1 images in test of cifar10, and 2 are asked"):
        Describer(replace(job, images=2))

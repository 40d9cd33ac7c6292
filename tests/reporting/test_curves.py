"""Learning curves: the numbers drawn are the record's, and a file that is none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hierbench.errors import InputError
from hierbench.reporting.curves import draw_curves, read_curve


def record(tmp_path: Path, name: str = "mine", **change: Any) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    run = {
        "curve": [{"step": 2, "loss": 4.0}, {"step": 4, "loss": 2.5}],
        "validation": [
            {"step": 2, "clean/leaf": 0.5, "robust/leaf": 0.1, "robust/t/1": 0.2, "robust/t/2": 0.4},
            {"step": 4, "clean/leaf": 0.75, "robust/leaf": 0.25, "robust/t/1": 0.3, "robust/t/2": 0.5},
        ],
    }
    (folder / "training.json").write_text(json.dumps({"run": {**run, **change}}))
    return folder


def test_a_curve_is_the_records(tmp_path: Path) -> None:
    curve = read_curve(record(tmp_path))
    assert (curve.name, curve.steps, curve.loss, curve.watched) == ("mine", (2, 4), (4.0, 2.5), (2, 4))
    assert curve.accuracy["clean/leaf"] == (0.5, 0.75) and curve.coarsest == "t/2"


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_pictures_are_written_and_the_same_each_time(tmp_path: Path, kind: str) -> None:
    curves = [read_curve(record(tmp_path, "a$b")), read_curve(record(tmp_path, "unwatched", validation=[]))]
    first = draw_curves(curves, tmp_path / f"one.{kind}").read_bytes()
    assert first == draw_curves(curves, tmp_path / f"two.{kind}").read_bytes() and len(first) > 1000
    assert not list(tmp_path.glob("*.part"))


def test_lines_of_a_picture_hold_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[tuple[tuple[float, ...], tuple[float, ...]]] = []
    plot = Axes.plot

    def spy(self: Axes, x: Any, y: Any, **look: Any) -> Any:
        drawn.append((tuple(x), tuple(y)))
        return plot(self, x, y, **look)

    monkeypatch.setattr(Axes, "plot", spy)
    draw_curves([read_curve(record(tmp_path))], tmp_path / "x.svg")
    for values in ((4.0, 2.5), (0.5, 0.75), (0.1, 0.25), (0.4, 0.5)):
        assert ((2.0, 4.0), values) in drawn


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not a training record"),
        ("[]", "not a training record"),
        ('{"run": {"curve": [{"step": 1}]}}', "KeyError"),
    ],
)
def test_a_file_that_is_none_gets_one_line(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "training.json"
    file.write_text(content)
    with pytest.raises(InputError, match=complaint) as caught:
        read_curve(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_other_pictures_and_missing_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"should end in \.svg"):
        draw_curves([], tmp_path / "x.gif")
    with pytest.raises(InputError, match="no such training record"):
        read_curve(tmp_path / "nothing")

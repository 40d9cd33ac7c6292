"""Learning curves: what training records say of a run's loss and of its accuracy on images it did not train on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hierbench.errors import InputError
from hierbench.reporting.plots.style import COLOURS, kind_of, plain, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECORD_FILE = "training.json"
MAX_BYTES = 64 << 20

STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Curve:
    """One run: its name, the loss over its steps, and shares of right answers by kind and level over its steps."""

    name: str
    steps: tuple[float, ...]
    loss: tuple[float, ...]
    watched: tuple[float, ...]
    accuracy: dict[str, tuple[float, ...]]

    @property
    def coarsest(self) -> str | None:
        """The coarsest level of the first tree that was watched, as ``<tree>/<steps above the leaf>``."""
        levels = [name.removeprefix("robust/") for name in self.accuracy if name.startswith("robust/")]
        trees = [name for name in levels if name != "leaf"]
        own = [name for name in trees if name.rpartition("/")[0] == trees[0].rpartition("/")[0]]
        return max(own, key=lambda name: int(name.rpartition("/")[2]), default=None)


def read_curve(path: Path) -> Curve:
    """Read the training record of a model folder, or the record itself; what is wrong raises ``InputError``."""
    file = path / RECORD_FILE if path.is_dir() else path
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{file}: larger than 64 MiB, which no training record is")
        run = json.loads(file.read_text(encoding="utf-8"))["run"]
        points, watched = run["curve"], run.get("validation", [])
        names = [name for name in (watched[0] if watched else {}) if name != "step"]
        return Curve(
            name=(path if path.is_dir() else path.parent).resolve().name,
            steps=_column(points, "step"),
            loss=_column(points, "loss"),
            watched=_column(watched, "step"),
            accuracy={name: _column(watched, name) for name in names},
        )
    except FileNotFoundError:
        raise InputError(f"{file}: no such training record; name a folder that hierbench train wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: not a training record ({type(error).__name__}: {error})") from None


def draw_curves(curves: Sequence[Curve], path: Path) -> Path:
    """Write the curves as a ``.svg``, ``.pdf`` or ``.png`` picture and return its path.

    Left the training loss (its scale is each method's own), right accuracy on the watched images, clean and under
    attack, at the leaves and, thinner, at the coarsest level. The file is written whole or not at all.
    """
    kind_of(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "hierbench", "font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained")
        loss, accuracy = figure.subplots(1, 2)
        for number, curve in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            style = STYLES[number // len(COLOURS) % len(STYLES)]
            loss.plot(curve.steps, curve.loss, color=colour, linestyle=style, linewidth=1.3, label=plain(curve.name))
            _accuracy(accuracy, curve, colour)
        loss.set(xlabel="step", ylabel="training loss", yscale="log")
        loss.yaxis.set_major_formatter("{x:g}")
        loss.yaxis.set_minor_formatter("{x:g}")
        accuracy.set(xlabel="step", ylabel="accuracy on watched images", ylim=(0, 1))
        accuracy.plot([], [], color="0.3", linestyle="-", marker="o", markersize=3, label="clean, leaves")
        accuracy.plot([], [], color="0.3", linestyle="--", marker="s", markersize=3, label="attacked, leaves")
        if any(curve.coarsest for curve in curves):
            accuracy.plot([], [], color="0.3", linestyle=":", linewidth=1, label="attacked, coarsest level")
        for axes in (loss, accuracy):
            axes.grid(True, color="0.9", linewidth=0.6)
            axes.legend(frameon=False, fontsize=7.5)
        save(figure, path)
    return path


def _accuracy(axes: Axes, curve: Curve, colour: str) -> None:
    kinds = [("clean/leaf", "-", "o", 1.3), ("robust/leaf", "--", "s", 1.3), (f"robust/{curve.coarsest}", ":", "", 1.0)]
    for name, style, marker, width in kinds:
        if name in curve.accuracy:
            values = curve.accuracy[name]
            axes.plot(
                curve.watched, values, color=colour, linestyle=style, marker=marker, markersize=3, linewidth=width
            )


def _column(points: Sequence[dict[str, Any]], name: str) -> tuple[float, ...]:
    return tuple(float(point[name]) for point in points)

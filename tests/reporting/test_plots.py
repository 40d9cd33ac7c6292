"""Pictures hold the records' numbers, are the same each time, and are read without colour."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from typer.testing import CliRunner

from hierbench.cli.app import app
from hierbench.errors import InputError
from hierbench.evaluation.scores import proportion
from hierbench.evaluation.stored import read_record
from hierbench.reporting.collect import Selection
from hierbench.reporting.plots.lines import at_one_place, depth_lines, draw_depths, draw_eps, eps_lines
from hierbench.reporting.plots.plane import Point, draw_plane, place_names, plane_points
from hierbench.reporting.plots.style import COLOURS, Look
from hierbench.reporting.plots.transfer import MAP, draw_transfer, luminance, matrix
from hierbench.reporting.standings import Shown, gather
from reporting.toy_records import HOSTILE, broken, toy_record

KINDS = ("depths", "eps", "transfer", "plane")
Paths = dict[tuple[str, str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def paths(folder: Path) -> Paths:
    return {
        (model, eps): toy_record(folder, model, eps=eps, strength=strength)
        for model, eps, strength in (
            ("alpha", "8/255", 8), ("alpha", "30/255", 30), (HOSTILE, "8/255", 4), (HOSTILE, "30/255", 12),
        )
    }  # fmt: skip


def draw(kind: str, folder: Path, out: Path, **options: Any) -> Any:
    words = [f for name, value in options.items() for f in (f"--{name}", value)]
    eps = [] if kind == "eps" else ["--eps", "30/255"]
    return CliRunner().invoke(app, ["plot", kind, "--records", str(folder), *eps, *words, "--out", str(out)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["pdf", "svg", "png"])
def test_pictures_are_written_and_the_same_each_time(
    folder: Path, paths: Paths, tmp_path: Path, kind: str, form: str
) -> None:
    made = [draw(kind, folder, tmp_path / f"{number}.{form}") for number in range(2)]
    assert [m.exit_code for m in made] == [0, 0], made[0].output
    assert "\x1b" not in made[0].output
    one, two = ((tmp_path / f"{number}.{form}").read_bytes() for number in range(2))
    assert one == two and len(one) > 3000
    start = {"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[form]
    assert one.startswith(start)
    if form == "pdf":
        assert b"/Type3" not in one, "publishers refuse Type 3 fonts"


def test_lines_over_depth_are_the_verdicts(folder: Path, paths: Paths) -> None:
    lines = depth_lines(gather(folder, Selection(eps="30/255")), Shown())
    assert len(lines) == 2
    (line,) = (line for line in lines if line.name == "alpha")
    for depth, robust, clean in zip(line.x, line.robust, line.clean, strict=True):
        masks = broken(paths["alpha", "30/255"], "rollup", int(depth))
        assert (clean, robust) == tuple(proportion(~mask) for mask in masks)


def test_lines_over_eps_begin_at_the_clean_accuracy(folder: Path, paths: Paths) -> None:
    lines = eps_lines(at_one_place(gather(folder, Selection()), Shown(), depth=1), Shown())
    (line,) = (line for line in lines if line.name == "alpha")
    assert line.x == pytest.approx((0.0, 8.0, 30.0))
    masks = [broken(paths["alpha", eps], "rollup", 1) for eps in ("8/255", "30/255")]
    assert [p.value for p in line.robust] == [np.mean(~masks[0][0]), *(np.mean(~worst) for _, worst in masks)]


def test_what_is_drawn_is_what_was_measured(
    folder: Path, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    plotted: list[tuple[float, ...]] = []
    bands: list[tuple[float, ...]] = []
    plot, fill = Axes.plot, Axes.fill_between
    monkeypatch.setattr(Axes, "plot", lambda s, x, y, **k: (plotted.append(tuple(y)), plot(s, x, y, **k))[1])
    monkeypatch.setattr(
        Axes, "fill_between", lambda s, x, a, b, **k: (bands.append((*a, *b)), fill(s, x, a, b, **k))[1]
    )
    placed = gather(folder, Selection(eps="30/255", model="alpha"))
    draw_depths(placed, Shown(), tmp_path / "x.svg")
    (line,) = depth_lines(placed, Shown())
    assert tuple(100 * p.value for p in line.robust) in plotted and tuple(100 * p.value for p in line.clean) in plotted
    assert (*(100 * p.low for p in line.robust), *(100 * p.high for p in line.robust)) in bands


def test_the_heat_map_shows_the_records_cells(folder: Path, paths: Paths) -> None:
    path = paths["alpha", "30/255"]
    for scoring in ("rollup", "direct"):
        names, rows = matrix(read_record(path), scoring)  # type: ignore[arg-type]
        assert names == ["clean", "1", "2"]
        for aimed, row in zip((None, 1, 2), rows, strict=True):
            for depth, (value, mark) in enumerate(row, start=1):
                clean, worst = broken(path, scoring, depth, () if aimed is None else (aimed,))
                assert value == np.mean(~worst) and (aimed is not None or value == np.mean(~clean))
                assert mark == ("≤" if scoring == "rollup" and (aimed, depth) == (1, 2) else "")


def test_points_of_the_plane_are_the_verdicts(folder: Path, paths: Paths) -> None:
    points = plane_points(gather(folder, Selection(eps="30/255")), Shown(), depth=1)
    (point,) = (p for p in points if p.name == "alpha")
    clean, worst = broken(paths["alpha", "30/255"], "rollup", 1)
    assert (point.clean, point.robust) == (proportion(~clean), proportion(~worst))


@pytest.mark.parametrize("seed", range(4))
def test_names_in_the_plane_lie_on_no_name_and_no_mark(seed: int) -> None:
    from matplotlib.figure import Figure

    rng = np.random.default_rng(seed)
    counts = rng.integers(380, 430, (10, 2))
    points = [
        Point(f"defence_{i}.variant", *(proportion(np.arange(1000) < c) for c in pair)) for i, pair in enumerate(counts)
    ]
    drawn = Figure(figsize=(3.3, 2.8), layout="constrained")
    axes = drawn.subplots()
    axes.set(xlim=(30, 52), ylim=(30, 52))
    boxes = place_names(drawn, axes, points)
    for one, two in combinations(boxes, 2):
        assert not one.overlaps(two)
    marks = [axes.transData.transform((100 * p.clean.value, 100 * p.robust.value)) for p in points]
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    frame = axes.get_window_extent()
    assert all(frame.contains(b.x0, b.y0) and frame.contains(b.x1, b.y1) for b in boxes)


def test_nothing_is_told_by_colour_alone() -> None:
    looks = [Look.of(number) for number in range(12)]
    assert len({(look.marker, str(look.dash)) for look in looks}) == 12, "marks and dashes alone tell models apart"
    assert len({look for number in range(84) for look in [Look.of(number)]}) == 84
    for colour in COLOURS:  # in grey print each line still stands out from white paper
        assert 1.05 / (luminance(to_rgb(colour)) + 0.05) > 2.0


def test_the_heat_map_is_read_in_grey_print() -> None:
    colours = mpl.colormaps[MAP](np.linspace(0, 1, 101))
    light = [luminance(c) for c in colours]
    assert all(b > a for a, b in pairwise(light)), "more is lighter, without exception"
    for value in light:  # the number on each cell
        ink = 1.05 / (value + 0.05) if value < 0.18 else (value + 0.05) / 0.05
        assert ink >= 4.5


@pytest.mark.parametrize("kind", KINDS)
def test_grounds_are_not_mixed(tmp_path: Path, kind: str) -> None:
    toy_record(tmp_path, "alpha")
    toy_record(tmp_path, "beta", identity={"dataset": {"revision": "file:new"}})
    made = draw(kind, tmp_path, tmp_path / "x.svg")
    assert isinstance(made.exception, InputError)
    assert "cannot share a picture: they differ in dataset revision (file:toy and file:new)" in str(made.exception)
    assert not (tmp_path / "x.svg").exists()


def test_radii_share_the_picture_over_eps_alone(folder: Path, paths: Paths, tmp_path: Path) -> None:
    placed = gather(folder, Selection())
    draw_eps(at_one_place(placed, Shown()), Shown(), tmp_path / "x.svg")
    for make in (draw_depths, draw_plane):
        with pytest.raises(InputError, match="threat model"):
            make(placed, Shown(), tmp_path / "x.svg")
    with pytest.raises(InputError, match="threat model"):
        draw_transfer(placed, "rollup", tmp_path / "x.svg")


def test_captions_are_printed_and_bad_options_refused(folder: Path, paths: Paths, tmp_path: Path) -> None:
    said = draw("depths", folder, tmp_path / "x.svg", model="alpha").output
    assert "robust: per sample the worst over every attack" in said and "attacks: first" in said
    for options, words in (({"width": "0.5"}, "--width"), ({"scoring": "up"}, "--scoring")):
        assert words in str(draw("depths", folder, tmp_path / "y.svg", **options).exception)
    assert "--out" in str(draw("plane", folder, tmp_path / "y.gif").exception)
    assert "--depth" in str(draw("plane", folder, tmp_path / "y.svg", depth="9").exception)

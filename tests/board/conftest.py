"""One small real submission for all tests of the board."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from board import toy
from hierbench.cli.app import run


@dataclass(frozen=True)
class Submitted:
    """A board with one submission in it, and the weights it is of."""

    board: Path
    folder: Path
    weights: Path
    results: Path

    def verify(self, capsys: pytest.CaptureFixture[str], *options: str, folder: Path | None = None) -> tuple[int, str]:
        """Return exit code and output of ``board verify`` on the submission."""
        capsys.readouterr()
        code = run(["board", "verify", str(folder or self.folder), "--board", str(self.board), *options])
        said = capsys.readouterr()
        return code, said.out + said.err


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """The submission, evaluated and packed by the command."""
    root = tmp_path_factory.mktemp("board")
    toy.add_protocol(root)
    weights = toy.make_model(root / "nudged.digits")
    board, results = root / "leaderboard", root / "results"
    words = ["--author", "A. Author", "--licence", "MIT", "--weights-url", "https://example.org/nudged"]
    places = ["--records", str(results), "--out", str(board), "--board", str(board), "--device", "cpu"]
    code = run(
        ["submit", "--model", str(weights), "--protocol", toy.NAME, "--samples", "16", "--quiet", *words, *places],
        debug=True,
    )
    assert code == 0
    return Submitted(board, board / "submissions" / toy.NAME / "nudged.digits", weights, results)


@pytest.fixture
def submitted(made: Submitted, tmp_path: Path) -> Submitted:
    """A copy to do harm to."""
    board = tmp_path / "leaderboard"
    shutil.copytree(made.board, board)
    return Submitted(board, board / "submissions" / toy.NAME / "nudged.digits", made.weights, made.results)

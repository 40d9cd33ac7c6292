from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli import fake_model
from hierbench.cli.app import run
from hierbench.evaluation.stored import read_record

FAST = ["--limit", "60", "--steps", "3", "--batch-size", "30", "--device", "cpu"]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_model.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hierbench-results"


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed on stderr, which must be one line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("hierbench: error: ")
    return lines[0]


def test_eval_prints_the_tables_and_keeps_the_record(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--model", "hier_aft", "--attack", "superclass_pgd", *FAST]) == 0
    shown = capsys.readouterr().out
    for words in ("hier_aft.digits under superclass_pgd", "depth", "chance", "worst", "AHD", "transfer", "custom"):
        assert words in shown
    (path,) = out.rglob("*.json")
    assert path.parent == out / "digits-v1" / "hier_aft.digits"
    record = read_record(path)
    assert record.depths[-1].rollup.clean.value == pytest.approx(fake_model.accuracy(60))
    assert record.identity.protocol.deviations == ("steps: 20 -> 3", "limit: all -> 60", "batch_size: 128 -> 30")
    assert record.arguments.given == {
        "model": "hier_aft", "attack": "superclass_pgd", "limit": 60, "batch_size": 30, "device": "cpu",
        "settings.steps": 3,
    }  # fmt: skip
    assert record.arguments.resolved["settings.alpha"] == "auto"
    assert not list(out.rglob("*.journal"))

    assert run(["table", "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(record.depths)
    assert run(["table", "--layout", "models", "--format", "latex", "--out", "t.tex"]) == 0
    assert "\\toprule" in Path("t.tex").read_text(encoding="utf-8")


def test_wildcards_run_several_and_bare_names_mean_the_variant(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--model", "*.digits", "--attack", "[ls]*_pgd", "--depth", "1", "--quiet", *FAST]) == 0
    cells = {(r.identity.model.name, r.identity.attack.name) for r in map(read_record, out.rglob("*.json"))}
    attacks = ("leaf_pgd", "superclass_pgd")
    assert cells == {(m, a) for m in ("hier_aft.digits", "tecoa.digits") for a in attacks}
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_an_untrusted_run_ends_with_3(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hierbench.evaluation import trust

    monkeypatch.setattr(trust, "MOVED_OR_RAISED", 1.01)
    assert run(["eval", "--quiet", *FAST]) == 3
    (path,) = out.rglob("*.json")
    assert read_record(path).checks.failed


def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hierbench.evaluation.victim import EngineVictim

    real = EngineVictim.attack

    def interrupted(self, chunk, clean, depth, report):  # type: ignore[no-untyped-def]
        if depth == 2:
            raise KeyboardInterrupt
        return real(self, chunk, clean, depth, report)

    with monkeypatch.context() as patched:
        patched.setattr(EngineVictim, "attack", interrupted)
        assert run(["eval", "--quiet", *FAST]) == 130
    assert "goes on where it stopped" in error(capsys)
    assert not list(out.rglob("*.json"))
    assert run(["eval", "--quiet", *FAST]) == 0
    (path,) = out.rglob("*.json")
    assert read_record(path).cost.units_resumed == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "--model", "hier_aff"], "did you mean"),
        (["eval", "--model", "x*"], "no model matches 'x*'"),
        (["eval", "--model", "no/such/folder"], "model.json"),
        (["eval", "--attack", "superclas_pgd"], "did you mean 'superclass_pgd'"),
        (["eval", "--dataset", "digit"], "did you mean 'digits'"),
        (["eval", "--tree", "paritty"], "did you mean 'parity'"),
        (["eval", "--eps", "4"], "did you mean 4/255"),
        (["eval", "--eps", "a/b"], "--eps"),
        (["eval", "--depth", "9"], "--depth: 9 does not exist"),
        (["eval", "--depth", "one"], "--depth: 'one'"),
        (["eval", "--limit", "0"], "--limit"),
        (["eval", "--limit", "many"], "--limit"),
        (["eval", "--device", "tpu9"], "--device"),
        (["eval", "--protocol", "digits"], "did you mean 'digits-v1'"),
        (["eval", "--set", "steps"], "--set"),
        (["eval", "--set", "step=3"], "did you mean 'steps'"),
        (["eval", "--data-root", "/no/such/folder", "--dataset", "cifar100"], "--data-root"),
        (["eval", "--modle", "clip"], "--model"),
        (["evil"], "evil"),
        (["list", "atacks"], "did you mean 'attacks'"),
        (["show", "superclas"], "or 'superclass_pgd'"),
        (["table", "--records", "nowhere"], "--records: nowhere does not exist"),
        (["table", "--format", "pdf"], "pdf"),
        (["hierarchy", "show", "digits/none"], "none"),
        (["hierarchy", "validate", "missing.json"], "missing.json"),
        (["train", "--defence", "none"], "nothing to train"),
        (["train", "--defence", "tecao"], "did you mean 'tecoa'"),
        (["train", "--defence", "tecoa", "--set", "learning_rat=1"], "did you mean 'learning_rate'"),
        (["train", "--defence", "tecoa", "--eps", "16"], "16/255"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    out: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(arguments) == 2
    assert words in error(capsys)
    assert not out.exists(), "nothing may be written"


def test_an_out_folder_that_is_a_file_is_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("a file")
    assert run(["eval", "--quiet", "--out", "taken", *FAST]) == 2
    assert "--out: cannot write" in error(capsys)


def test_an_unforeseen_error_is_one_line_with_a_way_to_see_more(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hierbench.evaluation import prepare

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("deep\ninside")

    monkeypatch.setattr(prepare, "load_images", broken)
    assert run(["eval"]) == 1
    assert "RuntimeError: deep inside" in error(capsys)
    with pytest.raises(RuntimeError):
        run(["eval"], debug=True)


def test_a_damaged_result_is_one_warning(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--quiet", *FAST]) == 0
    (path,) = out.rglob("*.json")
    path.write_text("{}")
    capsys.readouterr()
    assert run(["eval", "--quiet", *FAST]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hierbench: warning: record ")


def test_hostile_names_in_records_stay_text(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--quiet", *FAST]) == 0
    (path,) = out.rglob("*.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["identity"]["model"]["name"] = "[link=http://x]\x1b[2J[/link]"
    path.write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    assert run(["table"]) == 0
    shown = capsys.readouterr().out
    assert "[link=http://x]" in shown
    assert "\x1b[2J" not in shown


def test_list_and_show_know_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    shown = capsys.readouterr().out
    for words in ("attacks: leaf_pgd", "datasets: digits", "protocols: digits-v1", "defences: none", "digits/strokes"):
        assert words in shown
    for kind in ("models", "backbones", "attacks", "datasets", "hierarchies", "defences", "protocols", "attack"):
        assert run(["list", kind]) == 0
    for name in ("superclass_pgd", "digits", "digits/parity", "tecoa", "tiny-v1", "clip"):
        capsys.readouterr()
        assert run(["show", name]) == 0
        assert name.rpartition("/")[2] in capsys.readouterr().out


def test_trees_are_drawn_checked_and_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["hierarchy", "show", "digits/strokes", "--depth", "1"]) == 0
    shown = capsys.readouterr().out
    assert "[bold]" not in shown
    assert run(["hierarchy", "validate"]) == 0
    assert "digits/strokes" in capsys.readouterr().out
    from hierbench.paths import data_dir

    outline = data_dir() / "hierarchies" / "digits" / "strokes.outline"
    made = tmp_path / "strokes.json"
    assert run(["hierarchy", "build", "--outline", str(outline), "--out", str(made)]) == 0
    assert made.read_bytes() == outline.with_suffix(".json").read_bytes(), "the committed tree is that of its outline"
    assert run(["hierarchy", "validate", str(made)]) == 0


def test_help_and_list_are_light() -> None:
    """Importing the command line must not import what only computing needs."""
    heavy = ("torch", "pandas", "pydantic", "scipy", "sklearn", "pyarrow", "open_clip", "rich.console")
    code = f"import sys, hierbench.cli; sys.exit(str([m for m in {heavy!r} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""
    light = [m for m in heavy if m not in ("pydantic", "rich.console")]  # typer itself imports pydantic when it parses
    code = (
        "import sys; from hierbench.cli.app import run\nfor k in ([], ['attacks'], ['models']): run(['list', *k])\n"
        f"sys.exit(str([m for m in {light!r} if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["--version"]])
def test_help_and_list_are_quick(arguments: list[str]) -> None:
    """Half a second of computing at most, measured as processor time so that a busy machine does not matter."""
    code = f"import time; from hierbench.cli.app import run; run({arguments!r}); print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout.split()[-1]) < 0.5


def test_the_whole_process_speaks_by_its_exit_code() -> None:
    code = "from hierbench.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "list", "nothing"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("hierbench: error: cannot list 'nothing'")
    done = subprocess.run(
        [sys.executable, "-c", code, "--debug", "list", "nothing"], check=False, capture_output=True, text=True
    )
    assert "Traceback" in done.stderr


def test_doctor_names_what_it_looks_at(capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor"])
    shown = capsys.readouterr().out
    for words in ("torch:", "cpu:", "attacks:", "robustbench", "plugins:"):
        assert words in shown

"""``hierbench describe`` as a process: what it prints, how it ends, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import chat_server
from cli.chat_server import KEY, Asked, ChatServer, Reply, good
from hierbench.cli.app import run
from hierbench.datasets.catalogue import get_spec
from hierbench.datasets.descriptions import load_descriptions

NAMES = [c.name for c in get_spec("digits").classes]
ASK = ["describe", "--dataset", "digits", "--model", "toy-1", "--count", "2", "--concurrency", "1"]
JOURNAL = Path("digits.descriptions.json.journal")


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatServer]:
    pytest.importorskip("openai", reason="the extra 'describe' is not installed")
    chat_server.key_in_environment(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with chat_server.serving() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed on stderr, which must be one line without the key."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hierbench: error: ") and "SECRET" not in line
    return line


def test_the_command_writes_the_file_and_says_where(chat: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ASK, "--licence", "CC0-1.0"]) == 0
    assert capsys.readouterr().out == "descriptions: digits.descriptions.json\n"
    found = load_descriptions("digits", get_spec("digits").class_ids, file="digits.descriptions.json", at_least=2)
    assert found.licence == "CC0-1.0" and found.sentences[1][0] == "A view of one, number 0-0."
    assert [p.name for p in Path().iterdir()] == ["digits.descriptions.json"]


def test_options_reach_the_request(chat: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--images", "2", "--split", "test", "--seed", "3", "--temperature", "0.5", "--language", "de"]
    assert run([*ASK, *options, "--classes", "zero", "--classes", "t*", "--out", "deep/d.json"]) == 0
    assert "3 of 10 classes have their sentences" in capsys.readouterr().out
    assert chat.names == ["zero", "two", "three"]
    (asked, *_) = chat.asked
    assert (asked.content["seed"], asked.content["temperature"], len(asked.parts)) == (3, 0.5, 3)
    assert "tag de" in asked.text
    assert Path("deep/d.json.journal").is_file() and not Path("deep/d.json").exists()


@pytest.mark.parametrize("images", ["0", "2"])
def test_a_dry_run_shows_a_question_and_asks_and_writes_nothing(
    chat: ChatServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "openai", None)
    assert run([*ASK, "--dry-run", "--images", images, "--out", "deep/d.json"]) == 0
    shown = capsys.readouterr().out
    for words in ("requests: 10,", chat.host, "toy-1", "the digit zero", "Write 2 ", '{"sentences": ["...", "..."]}'):
        assert words in shown
    assert shown.count("picture: PNG, 64 x 64 pixels") == int(images)
    assert ("enlarged 8 times" in shown) == (images == "2")
    assert not chat.asked and not list(Path().iterdir())


def test_a_dry_run_counts_what_is_left(chat: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    chat.script = lambda asked: chat_server.error(400, "stop") if asked.name == "three" else good(asked)
    assert run(ASK) == 1
    before = JOURNAL.read_bytes()
    assert run([*ASK, "--dry-run"]) == 0
    assert "requests: 7," in (shown := capsys.readouterr().out) and "the digit three" in shown
    assert JOURNAL.read_bytes() == before


def test_the_dry_run_shows_the_words_that_are_sent(chat: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ASK, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert run(ASK) == 0
    for message in chat.asked[0].content["messages"]:
        assert f"{message['role']}: {message['content']}\n" in shown


def test_without_the_package_the_line_says_how_to_get_it(
    chat: ChatServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert run(ASK) == 2
    assert error(capsys).endswith('pip install "hierbench[describe]"')
    assert not list(Path().iterdir())


def test_a_wrong_key_ends_with_1_and_is_in_no_traceback(chat: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    chat.script = lambda _: chat_server.error(401, f"Incorrect API key provided: {KEY}")
    assert run(ASK) == 1
    assert f"{chat.host}: answered with status 401" in error(capsys)
    code = "from hierbench.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--debug", *ASK], check=False, capture_output=True, text=True)
    assert "Traceback" in done.stderr and "status 401" in done.stderr
    assert "SECRET" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "digit"], "did you mean 'digits'"),
        (["--count", "0"], "--count"),
        (["--classes", "x*"], "--classes"),
        (["--base-url", "nowhere"], "--base-url: 'nowhere' is not a web address"),
        (["--api-key", "x"], "--api-key"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    chat: ChatServer, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run([*ASK, *arguments]) == 2
    assert words in error(capsys)
    assert not chat.asked and not list(Path().iterdir())


@pytest.mark.skipif(os.name == "nt", reason="no such signals here")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_stopped_in_the_middle_it_goes_on_with_what_is_missing(
    chat: ChatServer, number: signal.Signals, code: int
) -> None:
    release = threading.Event()

    def script(asked: Asked) -> Reply:
        if asked.name == "four":
            release.wait(60)  # the answer that is under way
        return good(asked)

    chat.script = script
    # a shell that starts tests in the background has Ctrl-C ignored
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from hierbench.cli import main; main()"
    child = subprocess.Popen([sys.executable, "-c", program, *ASK], stderr=subprocess.PIPE, text=True)
    chat.wait_for(5, timeout=120)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    release.set()
    assert child.returncode == code, said
    if number == signal.SIGINT:
        assert said == "hierbench: error: interrupted; the same command goes on where it stopped\n"
    assert len(JOURNAL.read_bytes().splitlines()) == 5
    assert not Path("digits.descriptions.json").exists()
    chat.asked.clear()
    assert run(ASK) == 0
    assert chat.names == NAMES[4:]
    found = load_descriptions("digits", get_spec("digits").class_ids, file="digits.descriptions.json", at_least=2)
    assert found.sentences[3][0] == "A view of three, number 0-0."
    assert [p.name for p in Path().iterdir()] == ["digits.descriptions.json"]


def test_help_does_not_import_the_package() -> None:
    code = "import sys; from hierbench.cli.app import run; run(['describe', '--help']); print('openai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == "False"
    assert "OPENAI_API_KEY" in done.stdout

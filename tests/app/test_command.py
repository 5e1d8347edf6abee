"""The command: it serves until it is stopped, and says at once what it cannot use."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from scenerl.cli import main


def test_errors_at_the_start(base, capsys):
    for words in (["nothing/here/at/all"], [str(base), "--port", "70000"], [str(base), "--device", "toaster"], []):
        assert main(["app", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_port_that_is_taken(base, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["app", str(base), "--port", str(port), "--device", "cpu"]) == 2
    errors = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(base, stop):
    """Started as a shell starts a background job: with SIGINT ignored."""
    server = subprocess.Popen(
        [sys.executable, "-m", "scenerl", "app", f"mine={base}", "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        url = server.stdout.readline().split()[1]
        with urllib.request.urlopen(url, timeout=60) as response:
            page, headers = response.read().decode(), response.headers
        assert "mine" in page and "fonts.g" not in page and "cdnjs" not in page
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        with pytest.raises(urllib.error.HTTPError, match="400"):  # a page elsewhere, under a name of its own
            urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "elsewhere.example"}), timeout=60)
        server.send_signal(stop)
        _, errors = server.communicate(timeout=30)
        assert (server.returncode, errors.splitlines()[-1]) == (0, "stopping")
    finally:
        server.kill()


def test_numbers_above_an_answer_go_with_their_words():
    pytest.importorskip("gradio", reason="the extra app is not installed")
    from scenerl.app.page import Result, _heading

    row = {"status": "ok", "issues": [{"kind": "bad_box", "where": "objects[1]"}], "num_tokens": 1}
    heading = _heading(Result("base", {"answers": [row]}, "", (10, 10), 2.0), 1, 1)
    assert "1 object · 1 relation · 1 element dropped · 1 token · 2.0 s" in heading
    assert "2 answers, 0 failed · 2 objects · 0 relations · 2 elements dropped · 2 tokens" in _heading(
        Result("base", {"answers": [row, row]}, "", (10, 10), 2.0), 2, 0
    )

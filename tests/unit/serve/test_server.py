"""The server of the page: its answers, and what it refuses. Requests are sent as bytes where a client could not."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import SAMPLE_RATE, make_speech
from tests.model_folders import write_toy_model_folder
from voice_biometrics.inference import Recognizer
from voice_biometrics.serve import server as server_module
from voice_biometrics.serve.server import HEADER, MAX_BODY, Server, Workers

ROOT = Path(__file__).parents[3]
ANNA_HZ, BERT_HZ = 110, 230
HEADERS = {HEADER: "1", "Content-Type": "application/json"}


def wav(pitch_hz: float, number: int = 0, duration_s: float = 2.0) -> str:
    """Return a recording of a voice in base64."""
    return encoded(make_speech(pitch_hz, duration_s, number))


def encoded(samples: np.ndarray) -> str:
    """Return samples as a WAV file in base64."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


class Client:
    """Asks a server that runs in this process."""

    def __init__(self, server: Server) -> None:
        self.port = server.server_address[1]

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None):
        """Return status, headers and body of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, HEADERS if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def call(self, path: str, /, **content) -> tuple[int, dict]:
        """Call the API; return status and JSON."""
        method, body = ("POST", json.dumps(content).encode()) if content else ("GET", None)
        status, _, answer = self.ask(method, f"/api/{path}", body)
        return status, json.loads(answer)

    def send(self, request: bytes) -> bytes:
        """Send bytes, end the sending side, and return all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(request)
            with contextlib.suppress(OSError):  # the server has answered and closed already
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_toy_model_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def serve(model, tmp_path):
    """Start servers with a store of their own; they end with the test."""
    running = []

    def serve(**options):
        workers = Workers(lambda: Recognizer(model, tmp_path / "voices.db", **options), 2)
        server = Server("127.0.0.1", 0, workers)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        running.append((server, workers))
        return Client(server)

    yield serve
    for server, workers in running:
        server.shutdown()
        server.server_close()
        workers.close()


@pytest.fixture
def client(serve):
    return serve()


def test_a_voice_is_enrolled_verified_found_listed_and_forgotten(client, tmp_path):
    assert client.call("voices") == (200, {"voices": []})
    status, done = client.call("enrol", name="anna", recordings=[wav(ANNA_HZ, number) for number in range(3)])
    assert (status, done["name"], done["num_recordings"], done["warnings"]) == (200, "anna", 3, [])
    _, listed = client.call("voices")
    assert [(voice["name"], voice["num_recordings"]) for voice in listed["voices"]] == [("anna", 3)]

    status, verdict = client.call("verify", name="anna", recording=wav(ANNA_HZ, 5))
    assert (status, verdict["decision"], verdict["name"], verdict["candidates"]) == (200, "accepted", "anna", [])
    _, stranger = client.call("verify", name="anna", recording=wav(BERT_HZ, 5))
    assert stranger["decision"] == "rejected" and stranger["llr"] < 0 < verdict["llr"]

    client.call("enrol", name="bert", recordings=[wav(BERT_HZ, number) for number in range(3)])
    _, found = client.call("identify", recording=wav(BERT_HZ, 5))
    assert found["name"] == "bert" and [one["name"] for one in found["candidates"]] == ["bert", "anna"]
    assert client.call("forget", name="anna") == (200, {"forgot": "anna"})
    status, refused = client.call("verify", name="anna", recording=wav(ANNA_HZ, 5))
    assert status == 422 and refused["kind"] == "input" and "anna is not enrolled" in refused["error"]
    assert sorted(path.suffix for path in tmp_path.iterdir() if "voices" in path.name)[0] == ".db"
    assert not list(tmp_path.rglob("*.wav"))


def test_thresholds_of_all_uses_come_with_info_and_verdicts(serve):
    client = serve(use="door")
    _, info = client.call("info")
    assert (info["use"], [point["use"] for point in info["points"]]) == ("door", ["smart_speaker", "door"])
    assert info["model"]["name"] == "toy" and info["sample_rate"] == SAMPLE_RATE and info["min_speech_s"] == 0.5
    files = [{"name": name, "content": wav(ANNA_HZ, number)} for number, name in enumerate("ab")]
    _, verdict = client.call("compare", a=files[0], b=files[1])
    assert verdict["points"] == info["points"] and verdict["use"] == "door" and verdict["name"] is None
    assert verdict["points"][1]["threshold"] == 4.0 and verdict["points"][1]["far_interval"] is not None

    client.call("enrol", name="anna", recordings=[wav(ANNA_HZ)])
    client.call("enrol", name="bert", recordings=[wav(BERT_HZ)])
    _, found = client.call("identify", recording=wav(ANNA_HZ, 3))
    assert found["points"][1]["threshold"] > 4.0 and found["points"][1]["far"] is None


def test_a_false_accept_rate_of_the_users_choice_is_a_further_point(serve):
    _, info = serve(max_far=0.02).call("info")
    assert info["use"] == "far 0.02" and [point["use"] for point in info["points"]][-1] == "far 0.02"


def test_recordings_of_two_speakers_are_not_enrolled_unless_wanted(client):
    recordings = [wav(ANNA_HZ, 0), wav(BERT_HZ, 1), wav(ANNA_HZ, 2)]
    status, refused = client.call("enrol", name="anna", recordings=recordings)
    assert (status, refused["kind"], refused["recordings"]) == (409, "another_speaker", [1])
    assert client.call("voices")[1] == {"voices": []}
    status, done = client.call("enrol", name="anna", recordings=recordings, keep_all=True)
    assert status == 200 and "recording 2" in done["warnings"][0]


@pytest.mark.parametrize(
    "content, told",
    [
        ({"name": "anna", "recording": encoded(np.zeros(32000))}, "silence"),
        ({"name": "anna", "recording": wav(ANNA_HZ, 0, 0.3)}, "0.5 s of speech"),
        ({"name": "anna", "recording": wav(ANNA_HZ, 0, 61.0)}, "at most 60 s"),
        ({"name": "anna", "recording": base64.b64encode(b"RIFF no audio").decode()}, "libsndfile"),
        ({"name": "anna", "recording": "not base64!"}, "base64"),
        ({"name": "anna"}, "recording"),
        ({"name": "anna", "recording": wav(ANNA_HZ), "more": 1}, "more"),
        ({"name": "n" * 101, "recording": wav(ANNA_HZ)}, "100"),
        ({"name": 5, "recording": wav(ANNA_HZ)}, "str"),
    ],
)
def test_what_cannot_be_judged_is_told_in_one_line(client, content, told):
    client.call("enrol", name="anna", recordings=[wav(ANNA_HZ)])
    status, refused = client.call("verify", **content)
    assert status == 422 and refused["kind"] == "input"
    assert told in refused["error"] and len(refused["error"].splitlines()) == 1


@pytest.mark.parametrize("name", ["", " anna", "a\nb", "\u202eanna", "n" * 101])
def test_names_that_cannot_be_displayed_are_refused(client, name):
    status, refused = client.call("enrol", name=name, recordings=[wav(ANNA_HZ)])
    assert status == 422 and refused["kind"] == "input"
    assert client.call("voices")[1] == {"voices": []}


def test_a_name_that_looks_like_a_path_or_html_is_only_a_name(client, tmp_path):
    for name in ("../../etc/passwd", "<script>alert(1)</script>", "'; DROP TABLE voices; --"):
        assert client.call("enrol", name=name, recordings=[wav(ANNA_HZ)])[0] == 200
        assert client.call("verify", name=name, recording=wav(ANNA_HZ, 2))[1]["name"] == name
    assert len(client.call("voices")[1]["voices"]) == 3
    assert all(path.name.startswith("voices.db") for path in tmp_path.iterdir() if path.is_file())


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 403),
        ({HEADER: "1"}, 415),
        (HEADERS | {"Content-Type": "text/plain"}, 415),
        (HEADERS | {"Host": "evil.example"}, 403),
        (HEADERS | {"Host": "127.0.0.1.evil.example:8765"}, 403),
        (HEADERS | {"Host": "[::1"}, 403),
        (HEADERS | {"Host": "evil.example@localhost"}, 403),
        (HEADERS | {"Origin": "http://evil.example"}, 403),
        (HEADERS | {"Origin": "null"}, 403),
        (HEADERS | {"Origin": "http://localhost:1"}, 403),
    ],
)
def test_requests_that_another_site_could_cause_are_refused(client, headers, status):
    body = json.dumps({"name": "anna"}).encode()
    found, answered, _ = client.ask("POST", "/api/forget", body, headers)
    assert found == status
    assert not any(name.lower().startswith("access-control") for name in answered)


def test_the_page_itself_may_ask_by_any_of_its_names(client):
    for host in (f"localhost:{client.port}", f"127.0.0.1:{client.port}", f"[::1]:{client.port}"):
        headers = HEADERS | {"Host": host, "Origin": f"http://{host}"}
        assert client.ask("POST", "/api/forget", b'{"name": "anna"}', headers)[0] == 422  # not enrolled


def test_the_page_is_static_and_may_only_use_itself(client):
    status, headers, body = client.ask("GET", "/", headers={})
    assert status == 200 and b"main.js" in body
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert (
        policy["default-src"] == "'none'" and policy["script-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
    for name, kind in (("app.js", "text/javascript"), ("style.css", "text/css"), ("icon.svg", "image/svg+xml")):
        status, headers, body = client.ask("GET", f"/{name}", headers={})
        assert status == 200 and headers["Content-Type"].startswith(kind) and body
    assert client.ask("GET", "/healthz", headers={})[::2] == (200, b'{"status": "ok"}')


@pytest.mark.parametrize(
    "path", ["/../server.py", "/%2e%2e/server.py", "/page/../../api.py", "//etc/passwd", "/index.html", "/api", "/.."]
)
def test_no_path_leads_to_other_files(client, path):
    assert client.ask("GET", path, headers={})[0] == 404


@pytest.mark.parametrize(
    "request_line, status",
    [
        (b"POST /api/verify HTTP/1.1\r\nContent-Length: 1073741824", 413),
        (b"POST /api/verify HTTP/1.1\r\nContent-Length: " + b"9" * 5000, 413),
        (b"POST /api/verify HTTP/1.1\r\nContent-Length: -1", 411),
        (b"POST /api/verify HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6", 411),
        (b"POST /api/verify HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        (b"POST /api/verify HTTP/1.1\r\nContent-Length: 400", 400),
        (b"PUT /api/verify HTTP/1.1\r\nContent-Length: 0", 501),
        (b"GET http://evil.example/ HTTP/1.1", 404),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1", 414),
        (b"nonsense", 400),
    ],
)
def test_broken_requests_are_answered_with_their_status(client, request_line, status):
    lines = [request_line, b"Host: localhost", HEADER.encode() + b": 1", b"Content-Type: application/json", b"", b"{}"]
    answer = client.send(b"\r\n".join(lines))
    assert answer.split(b" ")[1] == str(status).encode() if answer.startswith(b"HTTP/") else status == 400
    assert b"accepted" not in answer and client.ask("GET", "/healthz", headers={})[0] == 200


def test_a_slow_client_is_cut_off_and_others_are_served_meanwhile(serve, monkeypatch):
    monkeypatch.setattr(server_module, "REQUEST_S", 0.6)
    client = serve()
    start, received = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as slow:
        slow.sendall(b"POST /api/verify HTTP/1.1\r\nHost: localhost\r\n")
        while time.monotonic() < start + 5:
            assert client.ask("GET", "/healthz", headers={})[0] == 200
            try:
                slow.sendall(b"X")  # each piece is in time; all of them together are not
            except OSError:
                break
            time.sleep(0.1)
    assert 0.5 < time.monotonic() - start < 4 and received == b""


def test_connections_beyond_the_limit_are_refused_at_once(serve, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 4)
    client = serve()
    held = [socket.create_connection(("127.0.0.1", client.port), timeout=10) for _ in range(4)]
    time.sleep(0.2)
    assert client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.0 503")
    for connection in held:
        connection.close()
    time.sleep(0.2)
    assert client.ask("GET", "/healthz", headers={})[0] == 200


def test_many_requests_at_once_get_their_own_answers(client):
    client.call("enrol", name="anna", recordings=[wav(ANNA_HZ, number) for number in range(3)])
    recordings = {"accepted": wav(ANNA_HZ, 5), "rejected": wav(BERT_HZ, 5)}
    wrong = []

    def ask(expected: str) -> None:
        status, verdict = client.call("verify", name="anna", recording=recordings[expected])
        if (status, verdict.get("decision")) != (200, expected):
            wrong.append((status, verdict))

    threads = [threading.Thread(target=ask, args=(expected,)) for expected in 12 * list(recordings)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []


def test_a_fault_of_ours_is_no_answer_and_the_server_goes_on(client, monkeypatch, capsys):
    monkeypatch.setattr(Recognizer, "verify", lambda *_: 1 / 0)
    status, fault = client.call("verify", name="anna", recording=wav(ANNA_HZ))
    assert (status, fault["kind"]) == (500, "fault") and "ZeroDivisionError" not in fault["error"]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert client.call("info")[0] == 200


def test_a_body_of_the_largest_size_is_read_and_one_byte_more_is_not(client):
    body = json.dumps({"recording": "A" * 100}).encode()
    assert client.ask("POST", "/api/identify", body.ljust(MAX_BODY), HEADERS)[0] == 422
    headers = HEADERS | {"Content-Length": str(MAX_BODY + 1)}
    assert client.ask("POST", "/api/identify", body, headers)[0] == 413


def test_a_client_that_sends_a_whole_body_gets_the_refusal_of_its_headers(client):
    head = f"POST /api/verify HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {MAX_BODY // 2}\r\n\r\n"
    for _ in range(5):
        assert client.send(head.encode() + bytes(MAX_BODY // 2)).startswith(b"HTTP/1.0 403")


def test_a_client_that_never_ends_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr(server_module, "LINGER_S", 0.2)
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as kept:
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"".join(iter(lambda: kept.recv(65536), b"")).startswith(b"HTTP/1.0 200")
        with pytest.raises(OSError):
            for _ in range(100):
                kept.sendall(b"X")
                time.sleep(0.05)


@pytest.fixture
def started(model, tmp_path):
    """Run ``verify.py serve``; returns the process and its first line."""
    processes = []

    def started(*arguments):
        command = [sys.executable, ROOT / "verify.py", "serve", "--model", model, *arguments]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process, process.stdout.readline()

    yield started
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly_even_with_a_slow_client(started, number):
    process, line = started("--port", "0")
    port = int(line.split("127.0.0.1:")[1].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\n")
        os.kill(process.pid, number)
        said, error = process.communicate(timeout=10)
    assert (process.returncode, said, error) == (0, "stopped\n", "")


def test_a_port_in_use_and_an_unknown_use_end_with_a_message(started):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process, _ = started("--port", str(port))
        error = process.communicate(timeout=20)[1]
        assert process.returncode == 2 and f"127.0.0.1:{port}" in error and len(error.splitlines()) == 1
    process, _ = started("--use", "window")
    error = process.communicate(timeout=20)[1]
    assert process.returncode == 2 and "window" in error and len(error.splitlines()) == 1


def test_another_address_warns_of_what_it_exposes(started):
    process, line = started("--port", "0", "--host", "0.0.0.0")
    process.terminate()
    assert "0.0.0.0" in line and process.communicate(timeout=10)[1].startswith("warning: ")


def test_serving_loads_neither_torch_nor_pandas():
    code = "import sys, voice_biometrics.serve.command\nprint({'torch', 'pandas', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"

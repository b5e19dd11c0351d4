"""Send hostile requests to ``verify.py serve``: ``python benchmarks/fuzz_requests.py [OPTIONS]``.

    python benchmarks/fuzz_requests.py --model pretrained --owner anna1.wav anna2.wav --strangers bert1.wav carl1.wav

The owner is enrolled and the server started with the ``door`` threshold. Kinds of requests:

- recordings: a stranger's recording, changed as by ``fuzz.py``, to be verified as the owner or identified
- json: the body of such a request, changed in any place
- http: the bytes of such a request with its headers, changed in any place
- lengths: a wrong, missing or double Content-Length, chunks, a claim of 1 GB
- names: names and paths that lead elsewhere, or break a line, a page or a query
- sites: a missing header, a Host or Origin of another site
- slow: a request that comes in pieces and does not end (--slow of them, besides)
- flood: 200 connections at once (--floods of them, besides)

Expected: an error status, a closed connection, or "rejected". A failure is an "accepted", an internal error (500), no
answer for 60 s, an end of the server, more than 1.5 GiB of memory, or an owner who is not accepted any more (asked
after every 500 requests). Without --model, a toy model and synthetic voices are used. Prints the counts as JSON; exit
status 1 if there was a failure.
"""

import argparse
import base64
import collections
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fuzz
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 60.0
MAX_BYTES = 1.5 * 2**30
BATCH = 500
NUM_CLIENTS = 6
CONNECTIONS = 200
PIECES_S = 0.5
GOOD = {"rejected", "answered", "refused", "closed"}
NAMES = (
    "../../etc/passwd", "..\\..\\voices.db", "/dev/zero", "owner\x00", "owner\n", " owner", "OWNER", "owner\u200b",
    "\u202eowner", "%6fwner", "' OR '1'='1", "owner'; DROP TABLE voices; --", "<script>alert(1)</script>", "", "\ud800",
    "n" * 1_000_000, "${jndi:ldap://x}", "owner/../owner", "con", "\u043ewner",
)  # fmt: skip
PATHS = (
    "/../voices.db", "/..%2f..%2fvoices.db", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page/../../server.py", "*",
    "/api/../voices.db", "/api/verify/../../voices.db", "\\..\\voices.db", "/api/verify%00", "http://evil.example/",
    "/" + 60_000 * "a", "/.",
)  # fmt: skip


class Target:
    """A running server with an enrolled owner, and a stranger's recordings."""

    def __init__(self, work: Path, owner: Path) -> None:
        command = [sys.executable, str(ROOT / "verify.py"), "serve", "--port", "0", "--use", fuzz.USE]
        command += ["--model", str(work / "model"), "--store", str(work / "voices.db")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split("127.0.0.1:")[1].split("/")[0])
        self.owner = owner.read_bytes()
        self.recordings = [path.read_bytes() for path in sorted((work / "recordings").iterdir())]

    def peak_bytes(self) -> int:
        """Return the largest memory so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
        return 0

    def accepts_owner(self) -> bool:
        """Ask if the owner is still accepted."""
        return outcome_of(self.ask(request(verification(self.owner)))) == "accepted"

    def ask(self, content: bytes) -> bytes | None:
        """Send bytes and return what comes back; None if nothing came for too long."""
        answer = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as connection:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
                    connection.sendall(content)
                    connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    answer += piece
        except TimeoutError:
            return None
        except OSError:
            pass
        return answer


def main(arguments: list[str]) -> int:
    """Send all requests; return the exit status."""
    options = parse_options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        fuzz.prepare(options, work)
        target = Target(work, Path(options.owner[0]))
        try:
            counts, failures = send_all(target, options)
        finally:
            target.process.terminate()
            status = target.process.wait(timeout=TIMEOUT_S)
    if status:
        failures.append(f"the server ended with status {status}")
    found = {"seed": options.seed, "counts": counts, "peak_mb": round(target.peak / 1e6), "failures": failures}
    print(json.dumps(found, indent=2))
    return 1 if failures else 0


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--slow", type=int, default=60, help="slow clients, at most 20 at once")
    parser.add_argument("--floods", type=int, default=10, help=f"times {CONNECTIONS} connections at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="model folder")
    parser.add_argument("--owner", type=Path, nargs="+", help="recordings of the owner")
    parser.add_argument("--strangers", type=Path, nargs="+", help="recordings of other speakers")
    options = parser.parse_args(arguments)
    if options.model and not (options.owner and options.strangers):
        parser.error("--model needs --owner and --strangers")
    return options


def send_all(target: Target, options: argparse.Namespace) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return the numbers of requests by kind and outcome, and the failures."""
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    failures = []

    def note(kind: str, number: int, outcome: str) -> None:
        counts[kind][outcome] += 1
        if outcome not in GOOD:
            failures.append(f"{kind} {number}, seed {options.seed}: {outcome}")

    slow = ThreadPoolExecutor(20)
    slow_clients = [slow.submit(send_slowly, target, number) for number in range(options.slow)]
    step = max(BATCH, options.requests // max(1, options.floods) // BATCH * BATCH)
    flood_at = range(0, options.requests, step)[: options.floods]
    with tqdm(total=options.requests, unit="requests") as progress:
        for start in range(0, options.requests, BATCH):
            numbers = range(start, min(start + BATCH, options.requests))
            for number, (kind, outcome) in zip(numbers, send_some(target, options.seed, numbers), strict=True):
                note(kind, number, outcome)
                progress.update()
            for outcome in flood(target) if start in flood_at else ():
                note("flood", start, outcome)
            failures += check_health(target, start)
    for number, client in enumerate(slow_clients):
        note("slow", number, client.result())
    target.peak = target.peak_bytes()
    return {kind: dict(outcomes) for kind, outcomes in counts.items()}, failures


def check_health(target: Target, start: int) -> list[str]:
    """Return what is wrong with the server after the requests from ``start`` on."""
    if target.process.poll() is not None:
        sys.exit(f"requests {start} on: the server ended with status {target.process.poll()}")
    for _ in range(100):  # slow clients and floods may hold all connections for a while
        if is_accepted := target.accepts_owner():
            break
        time.sleep(0.5)
    wrong = [] if is_accepted else [f"requests {start} on: the owner is not accepted any more"]
    if (peak := target.peak_bytes()) > MAX_BYTES:
        wrong.append(f"requests {start} on: {peak / 1e6:,.0f} MB of memory")
    return wrong


def send_some(target: Target, seed: int, numbers: range) -> Iterator[tuple[str, str]]:
    """Yield kind and outcome of each request, in order."""

    def send(number: int) -> tuple[str, str]:
        rng = random.Random(f"request {seed} {number}")
        kind = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
        content = KINDS[kind][0](target, rng)
        while (
            outcome := outcome_of(target.ask(content))
        ) == "busy":  # a flood or slow clients: that kind is not tried yet
            time.sleep(0.2)
        return kind, outcome

    with ThreadPoolExecutor(NUM_CLIENTS) as clients:
        yield from clients.map(send, numbers)


def outcome_of(answer: bytes | None) -> str:
    """Return what an answer means: one of GOOD, or "accepted", "busy", "fault" or "hang"."""
    if answer is None:
        return "hang"
    if b'"accepted"' in answer:
        return "accepted"
    status = (
        answer.split(b" ")[1][:3].decode() if answer.startswith(b"HTTP/") else "closed" if not answer else "answered"
    )
    if status == "200":
        return "rejected" if b'"rejected"' in answer else "answered"
    return {"500": "fault", "503": "busy"}.get(status, status if status in GOOD else "refused")


def verification(recording: bytes, name: str = "owner") -> bytes:
    """Return the body of a request to verify."""
    return json.dumps({"name": name, "recording": base64.b64encode(recording).decode()}).encode()


def request(body: bytes, path: str = "/api/verify", method: str = "POST", **changes: str | None) -> bytes:
    """Return the bytes of a request; ``changes`` replace headers (``_`` for ``-``), None removes one."""
    headers = {"Host": "localhost", "X-Voice-Biometrics": "1", "Content-Type": "application/json"}
    headers["Content-Length"] = str(len(body))
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + body


def _stranger(target: Target, rng: random.Random) -> bytes:
    return rng.choice(target.recordings)


def recordings(target: Target, rng: random.Random) -> bytes:
    """Return a request with a changed recording."""
    changed = fuzz.mutate(_stranger(target, rng), target.recordings, rng)
    if rng.random() < 0.2:
        body = json.dumps({"recording": base64.b64encode(changed).decode()}).encode()
        return request(body, "/api/identify")
    return request(verification(changed))


def changed_json(target: Target, rng: random.Random) -> bytes:
    """Return a request with changed JSON."""
    body = verification(_stranger(target, rng))
    return request(fuzz.mutate(body, [body, b'{"a":[' + 500 * b"[", b'"keep_all":true}'], rng))


def changed_http(target: Target, rng: random.Random) -> bytes:
    """Return a changed request."""
    content = request(verification(_stranger(target, rng)))
    return fuzz.mutate(content, [content, b"GET / HTTP/0.9\r\n\r\n" + content, 5000 * b"X: y\r\n"], rng)


def lengths(target: Target, rng: random.Random) -> bytes:
    """Return a request whose length is not what it says."""
    body = verification(_stranger(target, rng))
    size = len(body)
    twice, digits = f"{size}\r\nContent-Length: 3", "9" * 5000
    wrong = (2**30, size + 1, size - 1, 0, -1, -size, f"{size}, {size}", f"0x{size:x}", digits, twice, "١٢", "")
    changes = {"Content_Length": str(rng.choice(wrong))} if rng.random() < 0.8 else {"Content_Length": None}
    if rng.random() < 0.2:
        changes["Transfer_Encoding"] = "chunked"
    return request(rng.choice((body, body[:100], b"")), **changes)


def names(target: Target, rng: random.Random) -> bytes:
    """Return a request with a name or path that leads elsewhere."""
    if rng.random() < 0.4:
        return request(b"", rng.choice(PATHS), rng.choice(("GET", "POST", "PUT", "HEAD", "OPTIONS")))
    name = rng.choice(NAMES)
    body = json.dumps({"name": name}).encode()
    return request(body, "/api/forget") if rng.random() < 0.5 else request(verification(_stranger(target, rng), name))


def sites(target: Target, rng: random.Random) -> bytes:
    """Return a request that another site could cause; the recording is the owner's."""
    host = rng.choice(("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[", "localhost@evil"))
    origin = rng.choice(("http://evil.example", "null", "http://localhost:1", "file://"))
    wrong = ({"Host": host}, {"Origin": origin}, {"X_Voice_Biometrics": None}, {"Content_Type": "text/plain"})
    return request(verification(target.owner), **rng.choice(wrong))


KINDS: dict[str, tuple[Callable[[Target, random.Random], bytes], float]] = {
    "recordings": (recordings, 0.45),
    "json": (changed_json, 0.15),
    "http": (changed_http, 0.1),
    "lengths": (lengths, 0.1),
    "names": (names, 0.1),
    "sites": (sites, 0.1),
}


def send_slowly(target: Target, number: int) -> str:
    """Send a request in pieces, of its headers or of its body, until the server has enough; return the outcome."""
    content = request(verification(target.owner))
    in_headers = [content[:40], *(400 * [b"X"])]
    in_body = [content[:500], *(content[start : start + 50] for start in range(500, 9000, 50))]
    end = time.monotonic() + TIMEOUT_S
    try:
        with socket.create_connection(("127.0.0.1", target.port), timeout=TIMEOUT_S) as connection:
            for piece in in_headers if number % 2 else in_body:
                connection.sendall(piece)
                connection.settimeout(PIECES_S)
                with contextlib.suppress(TimeoutError):
                    return outcome_of(connection.recv(65536)).replace("busy", "refused")
                if time.monotonic() > end:
                    return "hang"
    except OSError:
        return "closed"
    return "hang"


def flood(target: Target) -> list[str]:
    """Open 200 connections at once, half of them silent, and return the outcomes."""
    ready = threading.Barrier(CONNECTIONS)
    content = request(b"", "/api/info", "GET")

    def connect(number: int) -> str:
        ready.wait()
        if number % 2:
            return outcome_of(target.ask(content)).replace("busy", "refused")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", target.port), timeout=TIMEOUT_S):
            time.sleep(1.0)
        return "closed"

    with ThreadPoolExecutor(CONNECTIONS) as connections:
        return list(connections.map(connect, range(CONNECTIONS)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

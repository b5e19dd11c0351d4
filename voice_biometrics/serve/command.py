"""The command ``verify.py serve``."""

import argparse
import ipaddress
import os
import signal
import sys
from pathlib import Path

from voice_biometrics.common.errors import InputError
from voice_biometrics.inference.cli import Output, recognizer_of
from voice_biometrics.inference.store import Store
from voice_biometrics.serve.server import Server, Workers

MAX_WORKERS = 4
EXPOSED = """warning: anyone who reaches this address can enrol, verify, list and forget voices; traffic is unencrypted.
Browsers allow the microphone only on localhost or over HTTPS: for other machines, put an HTTPS proxy with a login in \
front."""


def serve(options: argparse.Namespace) -> Output:
    """Serve the page until Ctrl-C or SIGTERM."""
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, _interrupt)
    if Path(options.store).exists():
        Store(options.store, options.key_file).close()  # a wrong key is told now, not at the first request
    workers = Workers(lambda: recognizer_of(options), min(MAX_WORKERS, os.cpu_count() or 1))
    try:
        with _bound(options.host, options.port, workers) as server:
            host = f"[{options.host}]" if ":" in options.host else options.host
            if not _is_loopback(options.host):
                print(EXPOSED, file=sys.stderr)
            print(f"open http://{host}:{server.server_address[1]}/ in a browser; Ctrl-C ends", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        workers.close()
    return Output("", None)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise KeyboardInterrupt


def _bound(host: str, port: int, workers: Workers) -> Server:
    try:
        return Server(host, port, workers)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{host}:{port}: cannot listen there ({reason}); give another --port or --host") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""How the store writes names and templates: as they are, or encrypted with a key that lies in a file elsewhere.

Encrypted: AES-256-GCM with a fresh nonce each time; store, kind and name are bound to what is sealed, so that nothing
can be moved to another name or store unnoticed. Names are found by a keyed digest (HMAC-SHA256). Both keys are derived
from the key file (HKDF-SHA256) and the identity of the store.

Source: NIST SP 800-38D (GCM), RFC 5869 (HKDF), RFC 2104 (HMAC).
"""

import os
import stat
from pathlib import Path
from typing import Protocol

from voice_biometrics.errors import InputError

KEY_BYTES = 32
NONCE_BYTES = 12


class Seal(Protocol):
    """Turns what the store keeps into what is written, and back."""

    def lookup(self, name: str) -> bytes:
        """Return what the row of ``name`` is found by."""

    def close(self, content: bytes, bound_to: str) -> bytes:
        """Return what is written of ``content``."""

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Return the content; InputError when it was changed, or was bound to something else."""


class NoSeal:
    """Everything as it is: whoever reads the file reads the names."""

    def lookup(self, name: str) -> bytes:
        """Return the name itself."""
        return name.encode()

    def close(self, content: bytes, bound_to: str) -> bytes:
        """Return the content."""
        return content

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Return the content."""
        return sealed


class KeySeal:
    """Encrypted with a key. store_id : random, of the store; another store has other keys."""

    def __init__(self, key: bytes, store_id: bytes) -> None:
        # here, since a store without a key need not wait for the package
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        both = HKDF(SHA256(), 2 * KEY_BYTES, salt=store_id, info=b"voice store 1").derive(key)
        self.cipher = AESGCM(both[:KEY_BYTES])
        self.lookup_key = both[KEY_BYTES:]

    def lookup(self, name: str) -> bytes:
        """Return the keyed digest of the name."""
        from hmac import digest

        return digest(self.lookup_key, name.encode(), "sha256")

    def close(self, content: bytes, bound_to: str) -> bytes:
        """Return nonce, encrypted content and tag."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self.cipher.encrypt(nonce, content, bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Return the content; InputError when it was changed, or was bound to something else."""
        from cryptography.exceptions import InvalidTag

        try:
            return self.cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
        except (InvalidTag, ValueError) as error:  # ValueError: shorter than a nonce and a tag
            raise InputError("a row of the store was changed by something else; restore a backup") from error


def read_key(path: str | Path) -> bytes:
    """Return the 32 bytes of a key file; InputError when it is missing, no key, or open to others."""
    make = f"make one with: (umask 077; head -c {KEY_BYTES} /dev/urandom > {path})"
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: the key file could not be read ({error.strerror}); {make}") from error
    if not stat.S_ISREG(mode) or len(key) != KEY_BYTES:
        raise InputError(f"{path}: expected a key file of {KEY_BYTES} bytes, found another size; {make}")
    check_private(path, mode)
    return key


def check_private(path: str | Path, mode: int) -> None:
    """Raise InputError when anybody but the owner has a right to the file."""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise InputError(f"{path}: others have rights to it (mode {stat.S_IMODE(mode):o}); close it: chmod 600 {path}")

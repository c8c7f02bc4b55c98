"""Secrets of the cluster and of each node, made when they are first needed: files of 0600 in a folder of 0700.

None of them is ever in an image. A node gets its own over HTTP, against a boot token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kestrelpi.files import fsync_folder, locked, write_whole
from kestrelpi.nodes.registry import Node
from kestrelpi.paths import Paths
from kestrelpi.run import run

TOKEN_LIFE = 15 * 60
"""Seconds in which a boot token is good: longer than the slowest boot from kernel to runtime files."""
CLOCK_SLACK = 5
"""Seconds by which a token may seem to come from the future: two of our processes read the clock."""


@dataclass(frozen=True)
class KeyPair:
    """An SSH key: the two files."""

    private: Path

    @property
    def public(self) -> Path:
        return self.private.with_name(f"{self.private.name}.pub")

    @property
    def public_text(self) -> str:
        """One line without its end: `ssh-ed25519 AAAA… comment`."""
        return self.public.read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class Token:
    """A boot token that was found good; the HTTP service remembers `nonce` until `expires`."""

    mac: str
    issued: int
    nonce: str

    @property
    def expires(self) -> int:
        return self.issued + TOKEN_LIFE


class TokenRefused(ValueError):
    """A boot token is malformed, forged, of another MAC, or too old; the text says which."""


def machine_id(mac: str, cluster: str) -> str:
    """The node's machine-id: 32 hex digits that are the same from boot to boot.

    They have the form of a version 4 UUID, as machine-id(5) asks of new ones.
    """
    digest = bytearray(hashlib.sha256(f"kestrelpi machine-id\0{cluster}\0{mac}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x40
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


def new_nonce() -> str:
    return secrets.token_hex(8)


class Secrets:
    """What lies in the folder of secrets. Safe to use from several processes at once."""

    def __init__(self, paths: Paths) -> None:
        self.folder = paths.secrets

    def cluster_key(self) -> KeyPair:
        """The key that root on the frontend enters the nodes with."""
        return self._key_pair(self.folder / "ssh/id_ed25519", "kestrelpi")

    def host_key(self, mac: str) -> KeyPair:
        """The SSH host key of the Pi with this MAC, whatever its name is."""
        return self._key_pair(self.folder / "hosts" / mac.replace(":", "-") / "ssh_host_ed25519_key", mac)

    def known_hosts(self, nodes: Iterable[Node], domain: str) -> str:
        """The text of a known_hosts file: each node by name, full name and address."""
        lines = []
        for node in nodes:
            kind, key = self.host_key(node.mac).public_text.split()[:2]
            lines.append(f"{node.name},{node.name}.{domain},{node.address} {kind} {key}\n")
        return "".join(lines)

    @cached_property
    def _token_key(self) -> bytes:
        path = self.folder / "token.key"
        if not path.exists():
            self._make_folder(self.folder)
            with self._lock():
                if not path.exists():
                    write_whole(path, secrets.token_bytes(32), mode=0o600)
        return path.read_bytes()

    def token(self, mac: str, now: float, nonce: str = "") -> str:
        """A boot token for `mac`, good for TOKEN_LIFE from `now` (Unix time).

        Its form is `<seconds, hex>-<nonce, hex>-<hmac, 32 hex digits>`.
        """
        issued, nonce = f"{int(now):x}", nonce or new_nonce()
        return f"{issued}-{nonce}-{self._sign(mac, issued, nonce)}"

    def verify(self, token: str, mac: str, now: float) -> Token:
        """The token, if we made it for `mac` and it is still good at `now`; raises TokenRefused.

        That each is used once is for the caller to see to: it remembers the nonces.
        """
        parts = token.split("-")
        if len(parts) != 3 or len(token) > 128 or not token.isascii():
            raise TokenRefused("the token is malformed")
        issued_text, nonce, signature = parts
        if not hmac.compare_digest(signature, self._sign(mac, issued_text, nonce)):
            raise TokenRefused(f"the token is not one for {mac}")
        issued = int(issued_text, 16)
        if not issued - CLOCK_SLACK <= now <= issued + TOKEN_LIFE:
            raise TokenRefused(f"the token is {now - issued:.0f} s old; it was good for {TOKEN_LIFE} s")
        return Token(mac, issued, nonce)

    def kept_key(self, mac: str) -> str:
        """What a node proves itself with when it leaves something with us or asks for it: 32 hex digits of its own."""
        return hmac.new(self._token_key, f"kestrelpi kept\0{mac}".encode(), hashlib.sha256).hexdigest()[:32]

    def _sign(self, mac: str, issued: str, nonce: str) -> str:
        text = f"kestrelpi boot token\0{mac}\0{issued}\0{nonce}"
        return hmac.new(self._token_key, text.encode(), hashlib.sha256).hexdigest()[:32]

    def _key_pair(self, private: Path, comment: str) -> KeyPair:
        if not private.exists():
            self._make_folder(private.parent)
            with self._lock():
                if not private.exists():
                    generate_key(private, comment)
        return KeyPair(private)

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self.folder / "lock", "the folder of secrets")

    def _make_folder(self, folder: Path) -> None:
        """`folder`, 0700, and its parents up to the folder of secrets likewise."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        relative = folder.relative_to(self.folder)
        for one in (*reversed([self.folder / parent for parent in relative.parents]), folder):
            one.mkdir(mode=0o700, exist_ok=True)


def generate_key(private: Path, comment: str) -> None:
    """Make an ed25519 key without passphrase. The private file, renamed last, says that the pair is there."""
    with tempfile.TemporaryDirectory(dir=private.parent, prefix=".new.") as folder:
        made = Path(folder) / "key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", made])
        for one in (made.with_name("key.pub"), made):
            with one.open("rb") as file:
                os.fsync(file.fileno())
        made.with_name("key.pub").rename(private.with_name(f"{private.name}.pub"))
        made.rename(private)
    fsync_folder(private.parent)

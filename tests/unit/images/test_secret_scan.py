"""The look through a finished root. All keys here are made up: words and counted letters, of no use anywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kestrelpi.errors import UserError
from kestrelpi.images.secret_scan import Secret, check, scan
from kestrelpi.paths import Paths

BODY = "THISxISxNOxKEYxBUTxTESTxDATA" + "A" * 36 + "\n"
BEGIN, END = "-----BEGIN %sPRIVATE KEY-----\n", "-----END %sPRIVATE KEY-----\n"
SWARM = f"SWMTKN-1-{'0testdata' * 6}-{'1testdata' * 3}"
K3S = f"K10{'0123456789abcdef' * 4}::node:testdata"
HASH = "$y$j9T$testdatatestdata$testdatatestdatatestdatatestdata"


def pem(kind: str) -> str:
    return BEGIN % kind + BODY + END % kind


def put(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def found(root: Path, **known: bytes) -> dict[str, str]:
    return {one.path: one.what for one in scan(root, {content: what for what, content in known.items()})}


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH ", "DSA "])
def test_private_keys(tmp_path: Path, kind: str) -> None:
    put(tmp_path, "root/somewhere", pem(kind))
    assert found(tmp_path) == {"/root/somewhere": "a private key"}


def test_a_key_behind_its_certificate_and_one_with_headers(tmp_path: Path) -> None:
    certificate = f"-----BEGIN CERTIFICATE-----\n{BODY * 60}-----END CERTIFICATE-----\n"
    put(tmp_path, "etc/web.pem", certificate + pem("RSA "))
    headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"
    put(tmp_path, "etc/old.pem", BEGIN % "RSA " + headers + BODY)
    put(tmp_path, "etc/pgp.asc", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n" + BODY)
    put(tmp_path, "etc/windows.pem", pem("").replace("\n", "\r\n"))
    put(tmp_path, "etc/key.ppk", f"PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\n{BODY}")
    assert set(found(tmp_path).values()) == {"a private key"}
    assert len(found(tmp_path)) == 5


def test_what_only_speaks_of_keys_is_none(tmp_path: Path) -> None:
    put(tmp_path, "usr/bin/tool", 'if head == "-----BEGIN PRIVATE KEY-----":\n    load()\n')
    put(tmp_path, "usr/lib/x.py", "MARK = '-----BEGIN RSA PRIVATE KEY-----\\n'\n")
    put(tmp_path, "usr/share/man/x", "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n")
    put(tmp_path, "etc/ssl/cert.pem", f"-----BEGIN CERTIFICATE-----\n{BODY}")
    put(tmp_path, "etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA testdata of a public key\n")
    put(tmp_path, "usr/share/tokens", "a token looks like SWMTKN-1-... or K10<hash>::node:...\n")
    assert found(tmp_path) == {}


def test_what_is_secret_by_its_place(tmp_path: Path) -> None:
    for name in ("etc/ssh/ssh_host_rsa_key", "etc/munge/munge.key", "etc/rancher/node/password"):
        put(tmp_path, name, b"\0testdata\xff")
    put(tmp_path, "etc/rancher/k3s/agent-token", "testdata")
    assert found(tmp_path) == {
        "/etc/ssh/ssh_host_rsa_key": "an SSH host key",
        "/etc/munge/munge.key": "a Munge key",
        "/etc/rancher/node/password": "a node's k3s password",
        "/etc/rancher/k3s/agent-token": "a k3s token",
    }


def test_an_empty_file_in_such_a_place_is_none(tmp_path: Path) -> None:
    put(tmp_path, "etc/munge/munge.key", b"")
    assert found(tmp_path) == {}


def test_tokens_by_their_form(tmp_path: Path) -> None:
    put(tmp_path, "usr/local/bin/join", f"#!/bin/sh\ndocker swarm join --token {SWARM} 10.77.0.1:2377\n")
    put(tmp_path, "etc/default/agent", f"TOKEN={K3S}\n")
    assert found(tmp_path) == {"/usr/local/bin/join": "a Swarm join token", "/etc/default/agent": "a k3s token"}


@pytest.mark.parametrize("field", [HASH, "!" + HASH, "abTestDataxyz", "$1$x$y"])
def test_password_hashes(tmp_path: Path, field: str) -> None:
    put(tmp_path, "etc/shadow", f"daemon:*:19000:0:99999:7:::\nroot:{field}:19000:0:99999:7:::\n")
    assert found(tmp_path) == {"/etc/shadow": "a password hash of root"}


def test_locked_and_missing_passwords_are_none(tmp_path: Path) -> None:
    put(tmp_path, "etc/shadow", "root:*:1:0:9:7:::\na:!:1::::::\nb:!*:1::::::\nc::1::::::\nd:!!:1::::::\n")
    put(tmp_path, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    put(tmp_path, "etc/gshadow", "root:*::\n")
    assert found(tmp_path) == {}


def test_a_hash_in_passwd_or_in_a_backup(tmp_path: Path) -> None:
    put(tmp_path, "etc/passwd", f"anna:{HASH}:1000:1000::/home/anna:/bin/bash\n")
    put(tmp_path, "etc/shadow-", f"ben:{HASH}:1::::::\n")
    assert found(tmp_path) == {"/etc/passwd": "a password hash of anna", "/etc/shadow-": "a password hash of ben"}


def test_the_frontends_own_secret_wherever_it_lies(tmp_path: Path) -> None:
    put(tmp_path, "srv/copy", b"0123456789abcdef test data\n")
    assert found(tmp_path, ours=b"0123456789abcdef test data") == {"/srv/copy": "ours"}


def test_what_a_package_ships_is_public_until_it_is_changed(tmp_path: Path) -> None:
    put(tmp_path, "usr/lib/python3/tests/key.pem", pem(""))
    digest = hashlib.md5(pem("").encode(), usedforsecurity=False).hexdigest()
    put(tmp_path, "var/lib/dpkg/info/x.md5sums", f"{digest}  usr/lib/python3/tests/key.pem\n")
    assert found(tmp_path) == {}
    put(tmp_path, "usr/lib/python3/tests/key.pem", pem("") + "# changed\n")
    assert found(tmp_path) == {"/usr/lib/python3/tests/key.pem": "a private key"}


def test_debians_snakeoil_key_is_none_but_another_beside_it_is(tmp_path: Path) -> None:
    put(tmp_path, "etc/ssl/private/ssl-cert-snakeoil.key", pem(""))
    put(tmp_path, "etc/ssl/private/mine.key", pem(""))
    assert found(tmp_path) == {"/etc/ssl/private/mine.key": "a private key"}


def test_links_and_large_files_are_not_looked_into(tmp_path: Path) -> None:
    put(tmp_path, "outside", pem(""))
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    put(tmp_path / "root", "usr/big", pem("") + "x" * (128 << 10))
    assert found(tmp_path / "root") == {}


def test_the_build_stops_with_path_kind_and_what_to_do(tmp_path: Path) -> None:
    paths, root = Paths(tmp_path / "frontend"), tmp_path / "root"
    put(paths.secrets, "modules/munge/munge.key", b"test data " * 100)
    put(root, "etc/copy-of-munge", b"test data " * 100)
    put(root, "root/.ssh/id_ed25519", pem("OPENSSH "))
    with pytest.raises(UserError, match="the image default would have 2 secrets inside") as caught:
        check(root, paths, "default", ())
    lines = set(caught.value.detail.splitlines())
    assert lines == {
        "/etc/copy-of-munge: the frontend's modules/munge/munge.key",
        "/root/.ssh/id_ed25519: a private key",
    }
    assert "images.default.allow_secrets: [/" in caught.value.fix
    with pytest.raises(UserError, match="1 secret inside"):
        check(root, paths, "default", ("/etc/copy-of-munge",))
    check(root, paths, "default", ("/etc/copy-of-munge", "/root/.ssh/id_*"))


def test_many_secrets_are_counted(tmp_path: Path) -> None:
    for number in range(12):
        put(tmp_path, f"root/key{number}", pem(""))
    with pytest.raises(UserError, match="12 secrets") as caught:
        check(tmp_path, Paths(tmp_path / "none"), "default", ())
    assert caught.value.detail.splitlines()[-1] == "and 2 more"
    assert Secret("/root/key3", "a private key") in scan(tmp_path)

"""The NFS server's configuration and the nodes' mount options."""

from __future__ import annotations

import os
from pathlib import Path

from kestrelpi import config
from kestrelpi.config import Nfs
from kestrelpi.paths import Paths
from kestrelpi.services import nfs


def test_version_4_needs_one_port() -> None:
    assert nfs.mount_options(Nfs()) == "vers=4.1,port=2049"


def test_version_3_needs_no_portmapper() -> None:
    options = nfs.mount_options(Nfs(version="3", port=12049))
    assert options == "vers=3,port=12049,nolock,proto=tcp,mountproto=tcp,mountport=12050"


def test_auto_takes_the_kernels_server_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "filesystems").write_text("nodev\tsysfs\nnodev\tnfsd\n")
    assert nfs.backend(Nfs(), tmp_path) == "kernel"
    (tmp_path / "filesystems").write_text("nodev\tsysfs\nnodev\tnfs\n")
    assert nfs.backend(Nfs(), tmp_path, tmp_path) == "ganesha"
    folder = tmp_path / os.uname().release
    folder.mkdir()
    (folder / "modules.dep").write_text("kernel/fs/nfsd/nfsd.ko: kernel/net/sunrpc/sunrpc.ko\n")
    assert nfs.backend(Nfs(), tmp_path, tmp_path) == "kernel", "a module that isn't loaded yet counts"
    assert nfs.backend(Nfs(backend="none"), tmp_path) == "none"


def test_ganesha_exports_the_images_read_only_with_numeric_owners(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    text = nfs.ganesha_config(paths, config.parse("network: {address: 10.1.0.1/16}\nservices: {nfs: {port: 3049}}"))
    assert f'Path = "{tmp_path}/var/lib/kestrelpi/images";' in text
    for needed in (
        "Clients = 10.1.0.0/16, 10.1.0.1; Access_Type = RO;",
        "NFS_Port = 3049;",
        "Bind_addr = 10.1.0.1;",
        "Only_Numeric_Owners = true;",
    ):
        assert needed in text
    assert "Protocols = 4;" in text
    assert text.count("{") == text.count("}")


def test_exports_names_the_nodes_network(tmp_path: Path) -> None:
    text = nfs.exports_file(Paths(tmp_path), config.parse("network: {address: 10.1.0.1/16}"))
    assert text.startswith(f"{tmp_path}/var/lib/kestrelpi/images 10.1.0.0/16(ro,")
    assert text.count("\n") == 1


def test_with_users_homes_are_writable_but_not_for_root(tmp_path: Path) -> None:
    chosen = config.parse("images: {default: {modules: [users]}}")
    lines = nfs.exports_file(Paths(tmp_path), chosen).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        f"{tmp_path}/var/lib/kestrelpi/shared",
        f"{tmp_path}/home/cluster",
    ]
    assert "(ro," in lines[1]
    assert "(rw,root_squash," in lines[2]
    homes = nfs.ganesha_config(Paths(tmp_path), chosen).split("EXPORT {")[-1]
    assert "Squash = Root_Squash;" in homes
    assert "Access_Type = RW;" in homes


def test_homes_of_another_server_are_not_exported_by_us(tmp_path: Path) -> None:
    chosen = config.parse("images: {default: {modules: [users]}}\nusers: {server: 'nas:/homes'}")
    assert "/home/cluster" not in nfs.exports_file(Paths(tmp_path), chosen)

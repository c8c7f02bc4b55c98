"""What modules fetch: which file, from where, with which hash; refused when it is another; a build that needs one."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from kestrelpi.config import load
from kestrelpi.errors import ConfigError, UserError
from kestrelpi.images import fetch, fetched, modules, scripts
from kestrelpi.images.overrides import Resolved
from kestrelpi.paths import Paths

CONTENT = b"a program\n" * 1000
RIGHT = hashlib.sha256(CONTENT).hexdigest()
WRONG = hashlib.sha256(b"another").hexdigest()
TOOL = f"""
options:
  version: {{default: v1.0+x, help: which}}
  sha256: {{help: of it}}
fetch:
  tool:
    version: "{{{{ options.version }}}}"
    url: https://example.org/{{{{ version | urlencode }}}}/tool-arm64
    releases:
      v1.0+x: {{sha256: {RIGHT}, size: {len(CONTENT)}}}
    sha256: "{{{{ options.sha256 }}}}"
    sha256_option: sha256
    sums: https://example.org/{{{{ version | urlencode }}}}/sums.txt
    mode: "0755"
  tool-here: {{url: "https://example.org/tool-{{{{ arch }}}}", arch: amd64}}
"""
CONFIG = "images:\n  default:\n    modules: [tool]\n    options: {tool: {%s}}\n"


def wanted(tmp_path: Path, options: str = "", manifest: str = TOOL, arch: str = "amd64") -> dict[str, fetched.Fetched]:
    paths = Paths(tmp_path / "root")
    paths.etc.mkdir(parents=True)
    paths.config.write_text(CONFIG % options)
    folder = tmp_path / "data/modules/tool"
    folder.mkdir(parents=True)
    (folder / "module.yaml").write_text(f"name: tool\n{manifest}")
    config = load(paths.config)
    enabled = modules.of_image(paths, config, "default", tmp_path / "data")
    return fetched.of_modules(enabled, fetched.folder(paths, config), arch)


class Server:
    """A source that counts what is asked of it; it breaks off after `ends` bytes, and may ignore offsets."""

    def __init__(self, content: bytes = CONTENT, ends: int | None = None, ranges: bool = True) -> None:
        self.content, self.ends, self.ranges = content, ends, ranges
        self.offsets: list[int] = []

    @contextmanager
    def __call__(self, one: fetched.Fetched, offset: int) -> Iterator[tuple[IO[bytes], int, int]]:
        self.offsets.append(offset)
        begins = offset if self.ranges else 0
        yield io.BytesIO(self.content[begins : self.ends]), begins, len(self.content)


def bring(one: fetched.Fetched, server: Server) -> bool:
    return fetch.bring(one, server, lambda *_: None)


def test_the_options_say_what_is_fetched(tmp_path: Path) -> None:
    found = wanted(tmp_path)
    tool = found["tool"]
    assert (tool.url, tool.file) == ("https://example.org/v1.0%2Bx/tool-arm64", "tool-arm64")
    assert (tool.sha256, tool.size, tool.mode) == (RIGHT, len(CONTENT), 0o755)
    assert tool.path == tmp_path / "root/var/lib/kestrelpi/cache/fetched" / RIGHT / "tool-arm64"
    assert found["tool-here"].url == "https://example.org/tool-amd64"


def test_what_is_for_another_architecture_is_not_wanted(tmp_path: Path) -> None:
    assert "tool-here" not in wanted(tmp_path, arch="arm64")


def test_the_users_hash_goes_before_the_known_one_and_so_does_not_have_its_size(tmp_path: Path) -> None:
    tool = wanted(tmp_path, f"sha256: {WRONG.upper()}")["tool"]
    assert (tool.sha256, tool.size) == (WRONG, 0)


def test_a_version_whose_hash_nobody_said(tmp_path: Path) -> None:
    tool = wanted(tmp_path, "version: v2.0")["tool"]
    assert not tool.present
    with pytest.raises(ConfigError, match=r"nobody has said what the SHA-256 of tool v2\.0 is") as caught:
        bring(tool, Server())
    assert "https://example.org/v2.0/sums.txt" in caught.value.fix
    assert "images.<image>.options.tool.sha256" in caught.value.fix


def test_a_hash_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'abc' is no SHA-256"):
        wanted(tmp_path, "sha256: abc")


def test_a_hash_that_is_none_in_module_yaml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no SHA-256") as caught:
        wanted(tmp_path, manifest=TOOL.replace(RIGHT, RIGHT[:-1]))
    assert "module.yaml:11" in caught.value.where


@pytest.mark.parametrize("url", ["file:///etc/shadow", "ftp://example.org/x", "tool"])
def test_only_the_web_is_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="only http:// and https:// can"):
        wanted(tmp_path, manifest=f"fetch: {{tool: {{url: '{url}'}}}}")


@pytest.mark.parametrize("file", ["../tool", ".tool", "a/b"])
def test_a_file_that_would_lie_elsewhere(tmp_path: Path, file: str) -> None:
    with pytest.raises(ConfigError, match="is no name for a file"):
        wanted(tmp_path, manifest=f"fetch: {{tool: {{url: 'https://example.org/x', file: '{file}'}}}}")


def test_two_modules_that_fetch_under_one_name(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "root")
    paths.etc.mkdir(parents=True)
    paths.config.write_text("images: {default: {modules: [tool, other]}}")
    for name in ("tool", "other"):
        folder = tmp_path / "data/modules" / name
        folder.mkdir(parents=True)
        (folder / "module.yaml").write_text(f"name: {name}\nfetch: {{tool: {{url: 'https://example.org/x'}}}}\n")
    with pytest.raises(ConfigError, match="tool and other both want the fetched file tool"):
        modules.of_image(paths, load(paths.config), "default", tmp_path / "data")


def test_a_file_is_brought_once(tmp_path: Path) -> None:
    tool, server = wanted(tmp_path)["tool"], Server()
    assert bring(tool, server)
    assert tool.present
    assert tool.path.read_bytes() == CONTENT
    assert tool.path.stat().st_mode & 0o777 == 0o755
    fetched.verify(tool)
    assert not bring(tool, server)
    assert server.offsets == [0]


def test_an_interrupted_transfer_goes_on_where_it_ended(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]
    with pytest.raises(UserError, match=f"ended after 4000 of {len(CONTENT)} bytes"):
        bring(tool, Server(ends=4000))
    assert not tool.present
    server = Server()
    assert bring(tool, server)
    assert server.offsets == [4000]
    assert tool.path.read_bytes() == CONTENT
    assert [path.name for path in tool.path.parent.iterdir() if path.name != "lock"] == [tool.file]


def test_a_server_without_ranges_sends_all_again(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]
    with pytest.raises(UserError):
        bring(tool, Server(ends=4000))
    assert bring(tool, Server(ranges=False))
    assert tool.path.read_bytes() == CONTENT


def test_a_beginning_of_another_file_is_thrown_away(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]
    with pytest.raises(UserError):
        bring(tool, Server(content=b"x" * len(CONTENT), ends=4000))
    server = Server()
    assert bring(tool, server)
    assert server.offsets == [4000, 0]


def test_another_file_is_refused_with_both_hashes_and_nothing_stays(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]
    other = bytes(len(CONTENT))
    with pytest.raises(UserError, match="is refused") as caught:
        bring(tool, Server(content=other))
    assert RIGHT in caught.value.detail
    assert hashlib.sha256(other).hexdigest() in caught.value.detail
    assert [path.name for path in tool.path.parent.iterdir()] == ["lock"]


def test_a_file_that_is_too_large_is_not_stored_to_its_end(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]
    with pytest.raises(UserError, match="larger than the 10000 bytes"):
        bring(tool, Server(content=CONTENT + b"more"))
    assert bring(tool, Server())


def test_a_file_that_was_changed_later_is_refused_and_can_be_brought_again(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]
    bring(tool, Server())
    tool.path.write_bytes(b"something else")
    with pytest.raises(UserError, match="is refused") as caught:
        fetched.verify(tool)
    assert RIGHT in caught.value.detail
    assert hashlib.sha256(b"something else").hexdigest() in caught.value.detail
    assert bring(tool, Server())
    fetched.verify(tool)


def test_a_full_disk_is_named_and_the_next_try_goes_on(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]

    def full(one: fetched.Fetched, done: int, whole: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=r"tool v1\.0\+x can't be stored: No space left on device") as caught:
        fetch.bring(tool, Server(), full)
    assert caught.value.where == str(tool.path.parent)
    assert not tool.present
    assert bring(tool, Server())


def test_what_is_not_there_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tool v1\.0\+x has not been fetched") as caught:
        fetched.verify(wanted(tmp_path)["tool"])
    assert caught.value.fix == "run: kestrelpi modules fetch tool"


def test_a_folder_in_the_place_of_the_web(tmp_path: Path) -> None:
    tool = wanted(tmp_path)["tool"]
    stick = tmp_path / "stick"
    stick.mkdir()
    with pytest.raises(UserError, match="there is no tool-arm64 here") as caught:
        fetch.bring(tool, fetch.from_folder(stick), lambda *_: None)
    assert "https://example.org/v1.0%2Bx/tool-arm64" in caught.value.fix
    (stick / "tool-arm64").write_bytes(CONTENT)
    assert fetch.bring(tool, fetch.from_folder(stick), lambda *_: None)
    fetched.verify(tool)


def script(tmp_path: Path, text: str, options: str = "", name: str = "50-tool") -> scripts.Script:
    found = wanted(tmp_path, options)
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    config = load(Paths(tmp_path / "root").config)
    settings = scripts.Settings("default", "bookworm", config, Paths(tmp_path / "root"), tmp_path, fetched=found)
    return scripts.load("post-install", Resolved(name, path, "test"), settings)


def test_a_script_declares_what_it_uses_of_it(tmp_path: Path) -> None:
    one = script(tmp_path, "#!/bin/sh\n# fetched: tool\n")
    assert one.fields["fetched tool"] == RIGHT
    assert "KESTRELPI_FETCHED_TOOL" not in one.fields
    assert one.places == {"KESTRELPI_FETCHED_TOOL": str(one.fetched[0].path)}


def test_a_script_in_the_image_finds_it_there(tmp_path: Path) -> None:
    one = script(tmp_path, "#!/bin/sh\n# fetched: tool\n", name="50-tool.chroot")
    assert one.places == {"KESTRELPI_FETCHED_TOOL": "/run/kestrelpi/fetched/tool"}


def test_another_version_is_another_result(tmp_path: Path) -> None:
    one = script(tmp_path, "#!/bin/sh\n# fetched: tool\n", f"sha256: {WRONG}")
    assert one.fields["fetched tool"] == WRONG


def test_a_script_that_asks_for_what_nobody_fetches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no enabled module fetches 'toool'"):
        script(tmp_path, "#!/bin/sh\n# fetched: toool\n")

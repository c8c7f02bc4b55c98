"""TFTP for Pi boot loaders: RFC 1350, 2347, 2348 and 2349, read-only."""

from kestrelpi.services.tftp.process import TftpProcess
from kestrelpi.services.tftp.server import Limits, TftpServer
from kestrelpi.services.tftp.sockets import open_listener
from kestrelpi.services.tftp.source import BootFile, FileSource, FolderSource, PathRefused, TransferEvent, normalise

__all__ = [
    "BootFile",
    "FileSource",
    "FolderSource",
    "Limits",
    "PathRefused",
    "TftpProcess",
    "TftpServer",
    "TransferEvent",
    "normalise",
    "open_listener",
]

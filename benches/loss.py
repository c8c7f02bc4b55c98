"""TFTP on a bad line beside dnsmasq and tftpd-hpa, with the lab's boot loaders as clients.

A server that answers an acknowledgement which arrives twice with two DATA sends the rest of the file twice (RFC 1123
section 4.2.3.1). `benches/boot_services.py` runs it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import tftp

from kestrelpi.lab.bad_line import boot, write_files
from kestrelpi.lab.tftp import Result

CLIENTS = 256


def measure(server: str) -> dict[str, float]:
    """One server: clients that failed, seconds to the last one and to the median one, percent of packets sent again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_files(folder)
        with tftp.serving(server, folder, 1), ThreadPoolExecutor(CLIENTS) as pool:
            ended = list(pool.map(boot, range(CLIENTS), repeat(tftp.PORT)))
    counted = sum((host.counted for host, _ in ended), Counter[str]())
    transfers = [list(files.values()) for _, files in ended]
    whole = [files for files in transfers if all(one.result is Result.GOT for one in files)]
    seconds = [sum(one.seconds for one in files) for files in whole]
    return {
        "failed": CLIENTS - len(whole),
        "seconds to the last": max(seconds, default=0.0),
        "seconds to the median one": statistics.median(seconds or [0.0]),
        "packets sent more than once, %": 100 * counted["repeated"] / max(counted["sent"], 1),
    }

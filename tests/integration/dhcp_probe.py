"""Send a BOOTP payload as a Pi's boot loader does, from no address on eth0, and print what comes back in hex.

HEX [--seconds S] [--checksum-0] [--times] [--relay ADDRESS] [--again S]. Frames to port 68 are printed whole; with
--relay the payload goes from ADDRESS:67 to the server and the payload of the reply is printed; with --again it is sent
once more after S seconds.
"""

from __future__ import annotations

import argparse
import socket
import struct
import time


def frame(payload: bytes, with_checksum: bool) -> bytes:
    """Ethernet, IP and UDP from 0.0.0.0:68 to everybody."""
    mac = payload[28:34]
    length = 8 + len(payload)
    ip = struct.pack("!2B3H2BH", 0x45, 0, 20 + length, 0, 0, 128, 17, 0) + bytes(4) + b"\xff" * 4
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    udp = struct.pack("!4H", 68, 67, length, 0)
    if with_checksum:
        pseudo = ip[12:20] + struct.pack("!2H", 17, length)
        udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + payload))
    return b"\xff" * 6 + mac + b"\x08\x00" + ip + udp + payload


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data + b'x') // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main() -> None:
    """Send and listen."""
    parser = argparse.ArgumentParser()
    parser.add_argument("payload", type=bytes.fromhex)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--checksum-0", action="store_true")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--relay")
    parser.add_argument("--again", type=float)
    options = parser.parse_args()
    if options.relay:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((options.relay, 67))
            sock.settimeout(options.seconds)
            sock.sendto(options.payload, ("10.77.0.1", 67))
            print(sock.recv(2048).hex())
        return
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    sock.bind(("eth0", 0x0800))
    begun = time.monotonic()
    sock.send(frame(options.payload, not options.checksum_0))
    again = begun + options.again if options.again else float("inf")
    while (left := begun + options.seconds - time.monotonic()) > 0:
        if time.monotonic() >= again:
            again = float("inf")
            sock.send(frame(options.payload, not options.checksum_0))
        sock.settimeout(min(left, 0.1))
        try:
            raw, source = sock.recvfrom(2048)
        except TimeoutError:
            continue
        if source[2] != 4 and raw[23] == 17 and raw[36:38] == b"\0D":
            print(f"{time.monotonic() - begun:.3f}" if options.times else raw.hex(), flush=True)


if __name__ == "__main__":
    main()

"""The service under care: answers 200 to everything on the port it is given.

Run without Python's ``site``, it is up in a few milliseconds. Each start is a line with its pid in
the file of births, and the file of doubles is written if an earlier run is still alive; the port
is shared, so that a second run would not fail but serve. Further arguments: ``delay=SECONDS`` for
an answer, where each question is a byte in the file of questions and each answer another;
``deaf``: SIGTERM does not end it.
"""

import os
import signal
import socket
import sys
import time


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - no imports
            return sys.argv[1].encode() in file.read().split(b"\0")
    except OSError:
        return False


def note(path: str, what: str) -> None:
    with open(path, "a") as file:  # noqa: PTH123
        file.write(what)


def main(port: str, births: str, *traits: str) -> None:
    delay_s = sum(float(trait[6:]) for trait in traits if trait.startswith("delay="))
    me = os.getpid()
    with open(births, "a+") as file:  # noqa: PTH123
        file.seek(0)
        others = [int(line) for line in file if int(line) != me and alive(int(line))]
        file.write(f"{me}\n")
    if others:
        note(f"{births}.doubles", f"{me} beside {others}\n")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in traits else signal.SIG_DFL)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("127.0.0.1", int(port)))
    server.listen(64)
    while True:
        guest, _ = server.accept()
        try:
            if guest.recv(4096):
                if delay_s:
                    note(f"{births}.questions", "?")
                    time.sleep(delay_s)
                    note(f"{births}.questions", "!")
                guest.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except OSError:
            pass
        guest.close()


main(*sys.argv[1:])

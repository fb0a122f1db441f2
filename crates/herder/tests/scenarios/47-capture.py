"""Runs a command while it reads what passes an interface, and tells whether a word was to be read there.

47-capture.py INTERFACE PORT WORD COMMAND…: prints the command's output, `clear` or `sealed`, and whether there were UDP packets of
this port.
"""

import socket
import subprocess
import sys
import threading

interface, port, word, command = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4:]
ETH_P_ALL = 3
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
raw.bind((interface, 0))
raw.settimeout(0.2)
seen, ended = set(), threading.Event()


def capture():
    while True:
        try:
            packet = raw.recv(65535)
        except TimeoutError:
            if ended.is_set():
                return
            continue
        if word in packet:
            seen.add("clear")
        if packet[12:14] == b"\x08\x00" and packet[23] == 17 and int.from_bytes(packet[36:38], "big") == port:
            seen.add("tunnel")


thread = threading.Thread(target=capture)
thread.start()
subprocess.run(command, check=False)
ended.set()
thread.join()
print("clear" if "clear" in seen else "sealed", "by the tunnel" if "tunnel" in seen else "by no tunnel")

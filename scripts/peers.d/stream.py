"""One UDP datagram every 10 ms to an echo server, from no bound address, as a program sends that knows nothing of uplinks.
Each line tells what happened: `s NUMBER TIME` sent, `r NUMBER TIME` answered. Ends when killed.

  stream.py ADDRESS [SOURCE]
"""

import contextlib
import select
import socket
import sys
import time

INTERVAL = 0.01
address = (sys.argv[1], 7)
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.setblocking(False)
if len(sys.argv) > 2:
    client.bind((sys.argv[2], 0))
number, due = 0, time.monotonic()
while True:
    now = time.monotonic()
    if now >= due:
        due += INTERVAL
        # A send that fails at once is a packet lost, too.
        with contextlib.suppress(OSError):
            client.sendto(number.to_bytes(8, "big"), address)
        print("s", number, f"{now:.4f}", flush=True)
        number += 1
    if select.select([client], [], [], max(0.0, due - time.monotonic()))[0]:
        with contextlib.suppress(OSError):
            answer = int.from_bytes(client.recv(64), "big")
            print("r", answer, f"{time.monotonic():.4f}", flush=True)

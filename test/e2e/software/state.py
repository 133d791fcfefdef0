"""A running interpreter with state: a dictionary, a generator in the middle of its work, a
second thread that sums the dictionary up, and a clock that must not jump. What it finds
goes to a witness, tick by tick."""
import json
import os
import socket
import threading
import time
import zlib

heap = {("chunk", i): os.urandom(65536) for i in range(128)}


def checksum():
    crc = 0
    for key in sorted(heap):
        crc = zlib.crc32(heap[key], zlib.crc32(repr(key).encode(), crc))
    return crc


start = now = checksum()


def keep_summing():
    global now
    while True:
        now = checksum()
        time.sleep(0.2)


def ticks(instance):
    seq = 0
    while True:
        seq += 1
        yield {"instance": instance, "seq": seq, "start": start, "now": now}


threading.Thread(target=keep_summing, daemon=True).start()
host, port = os.environ["WITNESS"].split(":")
to = (host, int(port))
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
due = time.monotonic()
for tick in ticks(os.environ["INSTANCE"] + "-" + os.urandom(4).hex()):
    out.sendto(json.dumps(tick).encode(), to)
    due += 0.02
    time.sleep(max(0, due - time.monotonic()))

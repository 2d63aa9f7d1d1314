"""The least that reading costs in this interpreter: python -m tests.benchmarks.load_floor URL STREAMS TOKENS

One epoll and one `recvmsg` per token with its stamp, kept and not looked into; nothing parsed, judged or sent
again. Prints as JSON what the row "floor" of load_truth shows.
"""

import json
import resource
import select
import socket
import sys
import time
from array import array
from contextlib import ExitStack

import httpx

from autotune.load.transport.clock import ANCILLARY_BYTES, ReceiveClock

PAUSE_S = 0.001
READ_BYTES = 4096
END = b"0\r\n\r\n"


def main(url: httpx.URL, streams: int, tokens: int) -> None:
    clock, body = ReceiveClock(), b'{"sampling_params": {"max_new_tokens": %d}, "stream": true}' % tokens
    data = b"POST /generate HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with ExitStack() as stack, select.epoll() as poll:
        opened = {}
        for _ in range(streams):
            sock = stack.enter_context(socket.create_connection((url.host, url.port or 80)))
            sock.setblocking(False)
            clock.arm(sock)
            opened[sock.fileno()] = sock
            poll.register(sock.fileno(), select.EPOLLIN)
        for sock in opened.values():
            sock.send(data)
        began_cpu_s = time.process_time()
        read_all(poll, opened, clock)
        cpu_s = time.process_time() - began_cpu_s
    about = {
        "cpu_s_per_1000_tokens": 1000 * cpu_s / (streams * tokens),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(about))


def read_all(poll: select.epoll, opened: dict[int, socket.socket], clock: ReceiveClock) -> None:
    """Read until every answer has ended."""
    left, reads, stamps_ns = len(opened), list[bytes](), array("q")
    while left:
        for number, _ in poll.poll():
            data, ancillary, _, _ = opened[number].recvmsg(READ_BYTES, ANCILLARY_BYTES)
            stamps_ns.append(clock.stamp_ns(ancillary))
            reads.append(data)
            left -= data.endswith(END)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(httpx.URL(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

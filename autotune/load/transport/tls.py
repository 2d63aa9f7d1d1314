"""TLS over a non-blocking socket that somebody else reads, so that ciphertext carries the kernel's stamps.

In: ciphertext of a read, plaintext to send. Out: plaintext, ciphertext. A record's stamp is that of the read
that completed it. Talks to the socket during the handshake only.
"""

import asyncio
import socket
import ssl

_READ_BYTES = 65536


class TlsSession:
    """One TLS connection in memory."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self.is_ended = False

    async def shake_hands(self, sock: socket.socket) -> None:
        """Agree with the server.

        Raises:
            OSError: it speaks no TLS, its certificate is not trusted (ssl.SSLError), or it went away.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._object.do_handshake()
                break
            except ssl.SSLWantReadError:
                await loop.sock_sendall(sock, self._outgoing.read())
                data = await loop.sock_recv(sock, _READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed during the TLS handshake") from None
                self._incoming.write(data)
        await loop.sock_sendall(sock, self._outgoing.read())

    def encrypt(self, data: bytes) -> bytes:
        """Return what to send for this plaintext."""
        self._object.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the plaintext that this ciphertext completes; `is_ended` tells of a proper end.

        Raises:
            ssl.SSLError: it is not what the other side sent.
        """
        self._incoming.write(data)
        plain = b""
        try:
            while part := self._object.read(_READ_BYTES):
                plain += part
        except ssl.SSLWantReadError:
            return plain
        except ssl.SSLZeroReturnError:
            pass
        self.is_ended = True
        return plain

    def replies(self) -> bytes:
        """Return what TLS itself wants to send (an answer to a key update)."""
        return self._outgoing.read()

"""A registry of images that behaves as one, with one small image in it: PORT. Run on a node of a bed.

Speaks what `docker pull` asks of /v2/: manifests by tag and digest, blobs. The image is a layer of noise, so
that a pull has something to tell. Prints the manifest's digest, then serves until it is ended.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer() -> bytes:
    buffer = io.BytesIO()
    noise = os.urandom(4 << 20)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = len(noise)
        tar.addfile(entry, io.BytesIO(noise))
    return buffer.getvalue()


def blobs_and_manifest() -> tuple[dict[str, bytes], bytes]:
    content = layer()
    packed = gzip.compress(content, 1)
    rootfs = {"type": "layers", "diff_ids": [digest(content)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()

    def described(kind: str, blob: bytes) -> dict[str, object]:
        return {"mediaType": kind, "size": len(blob), "digest": digest(blob)}

    parts = {"config": described(_CONFIG, config), "layers": [described(_LAYER, packed)]}
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, **parts}).encode()
    return {digest(blob): blob for blob in (config, packed)}, manifest


class Registry(BaseHTTPRequestHandler):
    blobs: dict[str, bytes]
    manifest: bytes

    def do_GET(self) -> None:
        kind, _, name = self.path.rpartition("/")
        if self.path == "/v2/":
            self.answer(200, b"{}", "application/json")
        elif kind.endswith("/manifests") and name in ("1", digest(self.manifest)):
            self.answer(200, self.manifest, MANIFEST)
        elif kind.endswith("/blobs") and name in self.blobs:
            self.answer(200, self.blobs[name], "application/octet-stream")
        else:
            unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self.answer(404, json.dumps(unknown).encode(), "application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", digest(content))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    Registry.blobs, Registry.manifest = blobs_and_manifest()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry)
    print(digest(Registry.manifest), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

"""Certificates for a Docker engine that speaks TLS: an authority, the engine's own, a client's; by openssl.

In: a folder and the engine's address. Out: ca.pem, server.pem, server-key.pem, cert.pem and key.pem in it.
"""

from pathlib import Path

from tests.testbed.bed import run

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def make_certificates(folder: Path, address: str) -> None:
    folder.mkdir()
    authority = ("-keyout", f"{folder}/ca-key.pem", "-out", f"{folder}/ca.pem")
    run("openssl", "req", "-x509", *_KEY, "-subj", "/CN=bed", *authority)
    for name, key, extensions in (
        ("server", "server-key", f"subjectAltName=IP:{address}"),
        ("cert", "key", "extendedKeyUsage=clientAuth"),
    ):
        signed = ("-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca-key.pem", "-addext", extensions)
        files = ("-keyout", f"{folder}/{key}.pem", "-out", f"{folder}/{name}.pem")
        run("openssl", "req", "-x509", *_KEY, "-subj", f"/CN={name}", *signed, *files)


def dockerd_options(folder: Path) -> tuple[str, ...]:
    """Return what makes dockerd accept only clients of the authority."""
    return (
        "--tlsverify",
        f"--tlscacert={folder}/ca.pem",
        f"--tlscert={folder}/server.pem",
        f"--tlskey={folder}/server-key.pem",
    )

"""Certificates for an engine that is reached over TCP, in the files that Docker's client names."""

from pathlib import Path

from tests.real.slot import run

_MAKE = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"),
    *("-days", "1", "-config", "/dev/null"),  # what the machine adds by itself is not asked for
)
_AUTHORITY = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
_PEER = (
    *("basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"),
    *("extendedKeyUsage=serverAuth,clientAuth", "subjectAltName=IP:127.0.0.1"),
    "authorityKeyIdentifier=keyid",
)


def certify(folder: Path) -> None:
    """Make `ca.pem`, and by it `cert.pem` and `key.pem` for the client, `server-*.pem` besides."""
    _sign(folder / "ca.pem", folder / "ca-key.pem", *_extensions(_AUTHORITY))
    authority = ("-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca-key.pem"))
    for peer in ("", "server-"):
        cert, key = folder / f"{peer}cert.pem", folder / f"{peer}key.pem"
        _sign(cert, key, *authority, *_extensions(_PEER))


def listen(folder: Path, port: int) -> tuple[str, ...]:
    """Options for dockerd: TLS on that port of loopback, for clients that `folder` certifies."""
    files = {"tlscacert": "ca.pem", "tlscert": "server-cert.pem", "tlskey": "server-key.pem"}
    named = (f"--{option}={folder / file}" for option, file in files.items())
    return ("--host", f"tcp://127.0.0.1:{port}", "--tlsverify", *named)


def _sign(cert: Path, key: Path, *options: str) -> None:
    run(*_MAKE, "-subj", f"/CN={cert.stem}", "-out", str(cert), "-keyout", str(key), *options)


def _extensions(lines: tuple[str, ...]) -> list[str]:
    return [word for line in lines for word in ("-addext", line)]

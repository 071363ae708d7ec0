"""How an https server proves who it is. For probes."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import Field

from prunella.errors import PermanentError
from prunella.spec import Spec


class HttpTls(Spec):
    """How an https server proves who it is."""

    verify: bool = Field(default=True, description="Check the server's certificate and name.")
    ca_file: Path | None = Field(
        default=None,
        description="File of certificate authorities to trust instead of the system's.",
    )
    server_name: str | None = Field(
        default=None,
        min_length=1,
        description="Name to ask for and to expect. Default: the host of the URL.",
    )


def tls_context(wanted: HttpTls) -> ssl.SSLContext:
    """What TLS is spoken with.

    Raises:
        PermanentError: the file of authorities cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=wanted.ca_file)
    except OSError as error:
        raise PermanentError(f"cannot use ca_file {wanted.ca_file}: {error.strerror}") from error
    if not wanted.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

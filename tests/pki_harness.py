"""Certificates for tests, made with the openssl program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from packaging_harness import skip_or_fail


class Pki:
    """A small authority of the openssl program's making."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("openssl"):
            skip_or_fail("certificates are made with the openssl program, which is not there")
        self.folder = folder
        self.ca = self._authority("ca")
        self.other_ca = self._authority("other")
        self.server = self._signed("server", "ca")
        self.client = self._signed("client", "ca")
        self.stranger = self._signed("stranger", "other")

    def openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _new(self, name: str, *options: str) -> None:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", f"{name}.key")
        self.openssl("req", *curve, "-subj", f"/CN={name}", *options)

    def _authority(self, name: str) -> Path:
        self._new(name, "-x509", "-days", "2", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem"

    def _signed(self, name: str, authority: str) -> Path:
        self._new(name, "-addext", "subjectAltName=DNS:localhost", "-out", f"{name}.csr")
        by = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial")
        self.openssl("x509", "-req", "-in", f"{name}.csr", *by, "-copy_extensions", "copy", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem"

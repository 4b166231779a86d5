"""LAVA's ``lava-multinode`` protocol over our client: a call is held by the coordinator until its answer is there.

What LAVA's own protocol makes of a job, of its settings and of an action's requests stays LAVA's; only :meth:`poll`,
through which every request goes, is ours. LAVA's own is told to accept no job, for two protocols of one job would both
join.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import ssl
from pathlib import Path
from typing import Any

from lava_common.exceptions import ConfigurationError, InfrastructureError, MultinodeProtocolTimeoutError
from lava_dispatcher.connection import Protocol
from lava_dispatcher.protocols.multinode import MultinodeProtocol

from dispatcher.coordinator.access import client_tls, read_token
from dispatcher.coordinator.background import Background
from dispatcher.coordinator.client import GroupClient
from dispatcher.coordinator.remote import Address, Place, RemoteClient
from dispatcher.errors import CallRefused, CoordinatorError, FileError
from dispatcher.group.events import Member
from dispatcher.group.needs import Kind

WAITS = {"lava_wait": Kind.WAIT, "lava_wait_all": Kind.WAIT_ALL, "lava_sync": Kind.SYNC}

TLS = ("coordinator_tls_ca", "coordinator_tls_cert", "coordinator_tls_key")
TOKEN = "coordinator_token_file"  # noqa: S105 - a key's name

_accepts = MultinodeProtocol.accepts.__func__


class HeldMultinode(MultinodeProtocol, Protocol):  # type: ignore[misc]
    """One member of a group, for the job that LAVA's dispatcher runs.

    ``Protocol`` stands among the bases because LAVA asks only its direct subclasses.
    """

    def __init__(self, parameters: dict[str, Any], job_id: str) -> None:
        super().__init__(parameters, job_id)
        self._background: Background | None = None
        self._client: GroupClient | None = None
        self._tls: ssl.SSLContext | None = None
        self._token: str | None = None
        # The coordinator does a request once; one that LAVA's dispatcher made before a restart is another.
        self._ids = (f"{job_id}.{secrets.token_hex(4)}.{number}" for number in itertools.count(1))

    @classmethod
    def accepts(cls, parameters: dict[str, Any]) -> bool:
        return bool(_accepts(cls, parameters))

    def read_settings(self, filename: str) -> dict[str, Any]:
        """LAVA's settings, and of the same file what TLS and tokens need: :data:`TLS`, :data:`TOKEN`.

        :raises ConfigurationError: a file that one of them names is wrong, or one is there without the other.
        """
        settings: dict[str, Any] = super().read_settings(filename)
        named = json.loads(Path(filename).read_text())
        authorities, certificate, key = (_path(filename, named, name) for name in TLS)
        token = _path(filename, named, TOKEN)
        if authorities is None and (certificate or key):
            raise ConfigurationError(f"{filename}: {TLS[1]} and {TLS[2]} are of no use without {TLS[0]}")
        try:
            if authorities is not None:
                trusted = None if named[TLS[0]] == "system" else authorities
                self._tls = client_tls(trusted, certificate, key)
            if token is not None:
                self._token = read_token(token)
        except FileError as error:
            raise ConfigurationError(str(error)) from None
        return settings

    def poll(self, message: str, timeout: float | None = None) -> str:
        """Make one request and wait for its answer, which is JSON as from LAVA's coordinator.

        :param timeout: seconds; None: those of ``lava-multinode: timeout`` of the test action.
        :raises MultinodeProtocolTimeoutError: the call failed; LAVA records it as failed, and ends the test.
        :raises InfrastructureError: the coordinator has been away for too long.
        """
        if self._background is None:
            self._background = Background()
        fields = json.loads(message)
        try:
            reply = self._background.run(self._make(fields, timeout or self.poll_timeout.duration))
        except CallRefused as error:
            raise MultinodeProtocolTimeoutError(f"{fields['request']} {_about(fields)}failed: {error.what}") from None
        except CoordinatorError as error:
            raise InfrastructureError(str(error)) from None
        return json.dumps(reply)

    def finalise_protocol(self, device: object = None) -> None:
        super().finalise_protocol(device)
        if self._background is not None:
            self._background.close()
            self._background = None

    async def _make(self, fields: dict[str, Any], timeout: float) -> dict[str, Any]:
        request, message_id = fields["request"], fields.get("messageID", "")
        if request == "group_data":
            await self._join(fields, timeout)
        elif request == "clear_group":
            await self._leave()
        elif request == "lava_send":
            pairs = [(key, "" if value is None else str(value)) for key, value in (fields["message"] or {}).items()]
            await self._joined().send(next(self._ids), message_id, pairs)
        else:
            role = fields.get("waitrole")
            # Impatient, as it has a time limit; and what the device does meanwhile cannot be known.
            data = await self._joined().wait(
                next(self._ids), WAITS[request], message_id, role, timeout=timeout, patient=False
            )
            return {"response": "ack", "message": data}
        return {"response": "ack"}

    async def _join(self, fields: dict[str, Any], timeout: float) -> None:
        member = Member(str(fields["client_name"]), fields["role"])
        place = Place(fields["group_name"], member, int(fields["group_size"]), token=self._token)
        address = Address(self.settings["coordinator_hostname"], int(self.settings["port"]))
        self._client = RemoteClient(address, place, tell=self.logger.warning, ssl=self._tls)
        try:
            async with asyncio.timeout(timeout):
                await self._client.join(next(self._ids))
        except TimeoutError:
            raise CallRefused(f"the group was not complete after {timeout:g} s") from None

    def _joined(self) -> GroupClient:
        if self._client is None:
            raise CallRefused("this member has not joined a group, or has left it")
        return self._client

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.leave(next(self._ids), "its job has ended")


def _path(filename: str, named: dict[str, Any], key: str) -> Path | None:
    value = named.get(key)
    if value is None or (isinstance(value, str) and value):
        # What is not absolute begins beside the file, as for the coordinator.
        return Path(filename).parent / value if value else None
    raise ConfigurationError(f"{filename}: {key} must be a file's name, not {value!r}")


def _about(fields: dict[str, Any]) -> str:
    return f"{fields['messageID']} " if fields.get("messageID") else ""


MultinodeProtocol.accepts = classmethod(lambda _cls, _parameters: False)

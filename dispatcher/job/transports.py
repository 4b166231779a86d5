"""Makes the console of a device out of what the device file says of it."""

from __future__ import annotations

from dispatcher.console.transport import Transport
from dispatcher.errors import FileError, MultinodeError, PluginError, UserError
from dispatcher.job.devices import Device


def new_transport(device: Device, kind: type[Transport]) -> Transport:
    """The (closed) console of a device.

    :raises MultinodeError: its options make no sense; a plugin's mistake is told as one, with its device.
    """
    try:
        return kind(device.name, device.config)
    except UserError as error:
        if device.file is None:
            raise
        where = f"{device.file}:{device.line}: {device.name}"
        raise FileError(error.what, where=where, hint=error.hint) from None
    except MultinodeError:
        raise
    except Exception as error:
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise PluginError(
            f"{name} cannot take its options: {type(error).__name__}: {error}", where=device.name
        ) from error

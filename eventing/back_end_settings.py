"""What the adapters of back ends that are reached over the network do alike with their settings, beside the port: read the
ConfigMap and the Secret that this names, and say what is wrong with which key of which.

Knative's keys where TLS is concerned: `ca.crt`, `user.crt`, `user.key`. No value of a Secret gets into a message, a repr or a
log.
"""

import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from eventing.channels import BackEndSettings
from eventing.errors import EventingError

__all__ = ["SECRET_NAME", "SECRET_NAMESPACE", "SETTINGS_NAMESPACE", "TLS_KEYS", "SettingsError", "SettingsReader", "TlsMaterial"]

SETTINGS_NAMESPACE: Final = "knative-eventing"  # of the ConfigMaps, and of the Secrets where none is said
SECRET_NAME: Final = "auth.secret.ref.name"  # noqa: S105 - the key of a ConfigMap that says which Secret
SECRET_NAMESPACE: Final = "auth.secret.ref.namespace"  # noqa: S105 - and where it is
TLS_KEYS: Final = ("ca.crt", "user.crt", "user.key")  # of a Secret
_CA, _CERTIFICATE, _KEY = TLS_KEYS


class SettingsError(EventingError):
    """The ConfigMap or the Secret is not there, or says what cannot be. `reason` is that of a condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """Whom we trust, and with which certificate of ours we come; all of it PEM."""

    ca: str = field(default="", repr=False)  # "": the usual authorities
    certificate: str = field(default="", repr=False)  # "": none, and no key
    key: str = field(default="", repr=False)

    def context(self) -> ssl.SSLContext:
        """The TLS context that all connections with this material share. Raises ValueError: what is wrong with which keys."""
        return _context(self.ca, self.certificate, self.key)


class SettingsReader:
    """Reads what ConfigMap and Secret say at the moment.

    `config` is the data of the ConfigMap. Raises SettingsError where there is none: `remedy` says what people are to do then.
    """

    def __init__(self, settings: BackEndSettings, config_map: str, *, remedy: str) -> None:
        self._where = f"ConfigMap {SETTINGS_NAMESPACE}/{config_map}"
        if settings.config is None:
            raise SettingsError("ConfigMapNotFound", f"there is no {self._where}; {remedy}")
        self.config: Mapping[str, str] = settings.config
        self._secret_name = settings.secret_name
        self._secret = settings.secret

    def names_secret(self, holds: str) -> bool:
        """Whether the ConfigMap names a Secret. Raises SettingsError where the named one is not there: it is to be made, with
        what `holds` says."""
        if self._secret_name and self._secret is None:
            raise SettingsError(
                "SecretNotFound",
                f"there is no Secret {self._secret_name}, which {self._where} names in {SECRET_NAME}; make it, with {holds}",
            )
        return bool(self._secret_name)

    def text(self, key: str) -> str:
        """A value of the Secret as it is; "" where it is not there. Raises SettingsError."""
        try:
            return bytes((self._secret or {}).get(key, b"")).decode()
        except UnicodeDecodeError:
            raise self.secret_fault(key, "it is not UTF-8 text") from None  # the error would quote the value

    def word(self, key: str) -> str:
        """A value of the Secret without the line break that `--from-file` brings along. Raises SettingsError."""
        return self.text(key).strip()

    def tls(self, *, own_certificate: bool = True) -> TlsMaterial:
        """What the Secret holds for TLS; without `own_certificate` only whom to trust.

        Raises SettingsError where a certificate has no key, a key no certificate, or OpenSSL does not take them."""
        material = TlsMaterial(self.text(_CA))
        if own_certificate:
            material = TlsMaterial(material.ca, self.text(_CERTIFICATE), self.text(_KEY))
            if material.key and not material.certificate:
                raise self.secret_fault(_CERTIFICATE, f"it is not there, and {_KEY} is of no use without it")
            if material.certificate and not material.key:
                raise self.secret_fault(_KEY, f"it is not there, and {_CERTIFICATE} is of no use without it")
        try:
            material.context()
        except ValueError as error:
            raise SettingsError("InvalidSecret", f"Secret {self._secret_name}, {error}") from None
        return material

    def config_fault(self, what: str, *, key: str = "") -> SettingsError:
        """What is wrong with the ConfigMap, or with one of its keys."""
        return SettingsError("InvalidConfigMap", f"{self._where}, key {key}: {what}" if key else f"{self._where} {what}")

    def secret_fault(self, key: str, what: str) -> SettingsError:
        """What is wrong with a key of the Secret. Never its value."""
        return SettingsError("InvalidSecret", f"Secret {self._secret_name}, key {key}: {what}")


@lru_cache(maxsize=16)
def _context(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """A context that knows the authorities, and this client's certificate where there is one."""
    try:
        context = ssl.create_default_context(cadata=ca or None)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"key {_CA}: no certificates in PEM: {_why(error)}") from None
    if certificate:
        # OpenSSL reads these from files only. This one is for our eyes, and gone before anything else happens.
        fd, path = tempfile.mkstemp(prefix="eventing-tls-")  # 0600
        try:
            with os.fdopen(fd, "w") as file:
                file.write(f"{certificate.rstrip()}\n{key.rstrip()}\n")
            # An encrypted key would otherwise be asked for at the terminal.
            context.load_cert_chain(path, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            text = f"keys {_CERTIFICATE} and {_KEY}: no certificate in PEM with the private key to it: {_why(error)}"
            raise ValueError(text) from None
        finally:
            Path(path).unlink()
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted, give it as plain PEM")


def _why(error: ssl.SSLError | ValueError) -> str:
    """OpenSSL's words; they hold nothing of the file."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it cannot be read").replace("_", " ").lower()
    return str(error)

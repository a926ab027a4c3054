"""What can go wrong on the way to RabbitMQ, told to people: reasons of conditions, and what to look at."""

import ssl
from typing import Final

from eventing.connecting import why_no_tls, why_unreached
from eventing.errors import EventingError
from eventing_rabbitmq.connection import CONNECT_TIMEOUT_S, BrokerError
from eventing_rabbitmq.settings import RabbitmqSettings

__all__ = ["NOT_FOUND", "PRECONDITION_FAILED", "RabbitmqError", "of_call", "of_connecting"]

ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 406
NOT_ALLOWED: Final = 530
UNAVAILABLE: Final = "RabbitmqUnavailable"


class RabbitmqError(EventingError):
    """RabbitMQ did not do what was asked. `reason` is that of a condition; `code` is AMQP's, 0 where it is not from there."""

    retriable = True

    def __init__(self, reason: str, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = code


def of_connecting(error: Exception, settings: RabbitmqSettings) -> RabbitmqError:
    """Why there is no connection. The words name neither user nor password."""
    where = f"RabbitMQ at {settings.where}"
    if isinstance(error, BrokerError) and error.code == ACCESS_REFUSED:
        hint = "check user and password in the key url of the Secret"
        if settings.user == "guest":
            hint += " (the user guest, which RabbitMQ lets in from its own machine only)"
        return RabbitmqError("AuthenticationFailed", f"{where} does not let us in: {hint}", error.code)
    if isinstance(error, BrokerError) and error.code == NOT_ALLOWED:
        text = "the virtual host does not exist, or the user may not use it"
        hint = f"rabbitmqctl add_vhost {settings.vhost}; rabbitmqctl set_permissions -p {settings.vhost} USER '.*' '.*' '.*'"
        return RabbitmqError("VirtualHostRefused", f"{where}: {text}; to make it: {hint}", error.code)
    if isinstance(error, ssl.SSLError):
        words = why_no_tls(error)
        return RabbitmqError("TlsFailed", f"{where}: no TLS connection: {words}; check url, ca.crt and user.crt of the Secret")
    if isinstance(error, TimeoutError):
        return RabbitmqError(UNAVAILABLE, f"{where} is not reached: no answer within {CONNECT_TIMEOUT_S:g} s")
    if isinstance(error, OSError):
        return RabbitmqError(UNAVAILABLE, f"{where} is not reached: {why_unreached(error)}")
    words = str(error)
    if not settings.encrypted and "closed" in words:
        words += "; if it expects TLS, the url begins with amqps://"
    return RabbitmqError(UNAVAILABLE, f"{where} is not reached: {words}")


def of_call(error: EventingError) -> RabbitmqError:
    """Why a call failed on a connection that was there."""
    if not isinstance(error, BrokerError):
        return RabbitmqError(UNAVAILABLE, f"the connection to RabbitMQ was lost: {error}")
    words = str(error).partition(" - ")[2] or str(error)
    if error.code == ACCESS_REFUSED:
        what = words.partition(" refused for user")[0]
        hint = "it needs to configure, write and read: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'"
        return RabbitmqError("NotAuthorized", f"RabbitMQ refuses {what} for this user; {hint}", error.code)
    return RabbitmqError("RabbitmqRefused", f"RabbitMQ refuses: {words}", error.code)

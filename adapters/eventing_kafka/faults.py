"""What can go wrong on the way to Kafka, told to people: reasons of conditions, and what to look at."""

import re
import ssl
from typing import Final

from aiokafka import errors

from eventing.connecting import why_no_tls, why_unreached
from eventing.errors import EventingError
from eventing_kafka.settings import KafkaSettings

__all__ = ["CONNECT_S", "ClusterError", "cause", "reason_of", "words_of"]

CONNECT_S: Final = 3.0  # for one attempt to reach a server

_NUMBERED: Final = re.compile(r"^(\[Error -?\d+\] )?(\w+: )?")  # how aiokafka begins its texts
_CLOSED: Final = re.compile(r"Connection at \S+ closed")
_NOT_LET_IN: Final = (
    errors.AuthenticationFailedError,
    errors.IllegalSaslStateError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    ValueError,  # of SCRAM: the other side does not know the password either
)
_NOT_AUTHORIZED: Final = (
    errors.ClusterAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.TopicAuthorizationFailedError,
)
# What aiokafka has no words for, or those of somebody who reads the protocol.
_OF_A_CLUSTER: Final = {
    errors.NotEnoughReplicasError: "fewer brokers keep the partition in sync than min.insync.replicas asks for",
    errors.NotEnoughReplicasAfterAppendError: "fewer brokers keep the partition in sync than min.insync.replicas asks for",
    errors.NotLeaderForPartitionError: "another broker is to lead the partition",
    errors.LeaderNotAvailableError: "no broker leads the partition: all that keep it are away",
    errors.GroupCoordinatorNotAvailableError: "no broker coordinates the group yet",
    errors.NotCoordinatorForGroupError: "another broker is to coordinate the group",
}


class ClusterError(EventingError):
    """Kafka did not do what was asked. `reason` is that of a condition."""

    retriable = True

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def cause(error: Exception, settings: KafkaSettings) -> str:
    """What went wrong, and where that may be a matter of the settings, of which."""
    reason, protocol = reason_of(error), settings.protocol
    if isinstance(error, errors.IllegalSaslStateError):
        return f"it expects no user and password here; check the key protocol (now {protocol}) of the Secret"
    if reason == "AuthenticationFailed":
        hint = "check the keys user, password and sasl.mechanism of the Secret"
        if settings.password.endswith("\n"):
            hint += " (the password ends with a line break)"
        return f"it does not let us in: {words_of(error)}; {hint}"
    if reason == "TlsFailed":
        keys = f"protocol (now {protocol}), ca.crt, user.crt"
        return f"no TLS connection: {words_of(error)}; check the keys {keys} of the Secret"
    if not isinstance(error, errors.KafkaConnectionError | ConnectionResetError | ConnectionAbortedError | TimeoutError):
        return words_of(error)
    hint = f"if this is Kafka, does it expect another protocol than {protocol}"
    if settings.encrypted and not settings.tls.certificate:
        hint += ", or a certificate of ours (keys user.crt and user.key)"
    return f"{words_of(error)}; {hint}?"


def reason_of(error: Exception) -> str:
    """The reason of a condition."""
    if isinstance(error, ssl.SSLError):  # some of which are ValueErrors
        return "TlsFailed"
    if isinstance(error, _NOT_LET_IN):
        return "AuthenticationFailed"
    if isinstance(error, _NOT_AUTHORIZED):
        return "NotAuthorized"
    if isinstance(error, errors.BrokerResponseError) and not error.retriable:
        return "KafkaRefused"
    return "KafkaUnavailable"


def words_of(error: Exception) -> str:
    """The error for people."""
    if isinstance(error, ssl.SSLError):
        return why_no_tls(error)
    if isinstance(error, errors.NodeNotReadyError):
        return "the connection to it is gone"
    if isinstance(error, errors.RequestTimedOutError) and not error.args:
        return "a broker does not answer in time"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S:g} s"
    if isinstance(error, OSError):
        return why_unreached(error)
    text = " ".join(_NUMBERED.sub("", str(error)).split())
    if _CLOSED.fullmatch(text):
        return "it has closed the connection"
    if text.startswith("Unable to bootstrap from"):
        return "no server answers, or none lets us in"  # aiokafka writes which it is into its log only
    if isinstance(error, errors.BrokerResponseError):
        bare = text in {"", "None", type(error).__name__}
        if told := _OF_A_CLUSTER.get(type(error)):
            return told if bare else f"{text}: {told}"
        if bare:
            return " ".join(type(error).description.split()) or type(error).__name__
    return text or type(error).__name__

"""What ConfigMap and Secret come to, and what people are told who have written them wrongly."""

import pytest

from eventing.channels import BackEndSettings
from eventing_kafka.settings import KafkaSettings, bootstrap_servers
from tests.support.authority import Authority
from tests.support.faults import settings_fault

PASSWORD = "hunter2-not-to-be-seen"


def with_secret(**data: str | bytes) -> BackEndSettings:
    keys = {"mechanism": "sasl.mechanism", "ca": "ca.crt", "certificate": "user.crt", "key": "user.key", "skip": "user.skip"}
    encoded = {keys.get(name, name): value.encode() if isinstance(value, str) else value for name, value in data.items()}
    config = {"bootstrap.servers": "kafka:9092", "auth.secret.ref.name": "kafka-login"}
    return BackEndSettings(config, encoded, "knative-eventing/kafka-login")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"))


def test_plain() -> None:
    settings = KafkaSettings.read(BackEndSettings({"bootstrap.servers": " a:9092, [::1]:9093,,a:9092 "}))
    assert settings.servers == ("a:9092", "[::1]:9093")
    assert settings.client_options() == {"bootstrap_servers": ["a:9092", "[::1]:9093"], "security_protocol": "PLAINTEXT"}


def test_sasl_with_plain_where_no_mechanism_is_named() -> None:
    settings = KafkaSettings.read(with_secret(protocol="SASL_PLAINTEXT\n", user="orders", password=PASSWORD))
    assert settings.client_options() == {
        "bootstrap_servers": ["kafka:9092"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "orders",
        "sasl_plain_password": PASSWORD,
    }


def test_sasl_and_tls_with_a_certificate_of_ours(pki: Authority) -> None:
    ca, certificate, key = (path.read_bytes() for path in (pki.ca_cert, pki.client_cert, pki.client_key))
    given = with_secret(protocol="SASL_SSL", mechanism="SCRAM-SHA-512", user="someone", password=PASSWORD, ca=ca,
                        certificate=certificate, key=key)  # fmt: skip
    settings = KafkaSettings.read(given)
    options = settings.client_options()
    assert options["ssl_context"] is settings.context()
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    for secret in ("someone", PASSWORD, "BEGIN"):
        assert secret not in f"{settings} {settings!r}"


def test_knatives_word_for_no_certificate_of_ours(pki: Authority) -> None:
    settings = KafkaSettings.read(with_secret(protocol="SSL", ca=pki.ca_cert.read_bytes(), skip="true", key="anything"))
    assert settings.tls.certificate == settings.tls.key == ""


def test_settings_of_topics_do_not_divide_clients() -> None:
    config = {"bootstrap.servers": "kafka:9092", "default.topic.config.min.insync.replicas": "2"}
    settings = KafkaSettings.read(BackEndSettings(config))
    assert settings.topic_config == (("min.insync.replicas", "2"),)
    assert settings == KafkaSettings.read(BackEndSettings({"bootstrap.servers": "kafka:9092"}))
    assert len({settings, KafkaSettings.read(BackEndSettings({"bootstrap.servers": "kafka:9092"}))}) == 1


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        (
            BackEndSettings(None),
            "ConfigMapNotFound",
            "kubectl create configmap kafka-channel-config --namespace knative-eventing --from-literal=bootstrap.servers=",
        ),
        (
            BackEndSettings({}),
            "InvalidConfigMap",
            "knative-eventing/kafka-channel-config, key bootstrap.servers: no server is given",
        ),
        (BackEndSettings({"bootstrap.servers": "a:9092,b"}), "InvalidConfigMap", "'b' is not HOST:PORT"),
        (
            BackEndSettings({"bootstrap.servers": "a:1", "auth.secret.ref.name": "gone"}, None, "knative-eventing/gone"),
            "SecretNotFound",
            "there is no Secret knative-eventing/gone,",
        ),
        (with_secret(), "InvalidSecret", "key protocol: one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL is expected"),
        (with_secret(protocol="TLS"), "InvalidSecret", "Secret knative-eventing/kafka-login, key protocol"),
        (with_secret(protocol="SASL_SSL", mechanism="OAUTHBEARER"), "InvalidSecret", "OAUTHBEARER is not supported"),
        (with_secret(protocol="SASL_SSL", mechanism="GSSAPI"), "InvalidSecret", "key sasl.mechanism: one of PLAIN, SCRAM"),
        (with_secret(protocol="SASL_PLAINTEXT", password=PASSWORD), "InvalidSecret", "key user: it is needed"),
        (with_secret(protocol="SASL_PLAINTEXT", user="u"), "InvalidSecret", "key password: it is needed"),
        (
            with_secret(protocol="SASL_PLAINTEXT", user="u", password=b"\xff\xfe"),
            "InvalidSecret",
            "key password: it is not UTF-8",
        ),
        (with_secret(protocol="SSL", ca=PASSWORD), "InvalidSecret", "key ca.crt: no certificates in PEM"),
    ],
)
def test_what_is_wrong_is_said_with_the_object_and_the_key(given: BackEndSettings, reason: str, words: str) -> None:
    told, text = settings_fault(lambda: KafkaSettings.read(given), PASSWORD)
    assert told == reason
    assert words in text


@pytest.mark.parametrize(
    "text",
    ["", " , ", "kafka", "kafka:", ":9092", "kafka:0", "kafka:65536", "kafka:x", "::1:9092", "a b:1", "http://a:1", "[]:1"],
)
def test_servers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        bootstrap_servers(text)

"""Channel, Subscription and backing channels: defaults, and the words in which Knative refuses what is wrong."""

import copy
from typing import Any

import pytest
import yaml

from eventing.errors import InvalidObjectError
from eventing.resources.channelable import CONTROLLER_USER, channelable_kind
from eventing.resources.kinds import Admission, Kind, Object
from eventing.resources.messaging import CHANNEL, SUBSCRIPTION
from eventing.resources.schema import Model

IMC = channelable_kind(kind="InMemoryChannel", plural="inmemorychannels", scoped=True)
CREATE = Admission(user="kubernetes-admin", operation="CREATE")
UPDATE = Admission(user="kubernetes-admin", operation="UPDATE")


def refusal(kind: Kind, obj: Object, old: Object | None = None, admission: Admission = CREATE) -> str:
    with pytest.raises(InvalidObjectError) as caught:
        kind.validate(obj, old, admission)
    assert caught.value.causes
    return str(caught.value)


def channel(**spec: Any) -> Object:
    return {"metadata": {"name": "orders", "namespace": "shop"}, "spec": spec}


def subscription(**spec: Any) -> Object:
    reference = {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "orders"}
    spec = {"channel": reference, "subscriber": {"uri": "http://example.com"}} | spec
    return {
        "metadata": {"name": "sub", "namespace": "shop"},
        "spec": {k: v for k, v in spec.items() if v is not None},
    }


class TestChannel:
    def test_gets_the_shipped_template_and_the_annotation(self) -> None:
        obj: Object = {"metadata": {"name": "orders", "namespace": "shop"}}
        CHANNEL.default(obj, CREATE)
        assert obj["spec"]["channelTemplate"] == {
            "apiVersion": "messaging.knative.dev/v1",
            "kind": "InMemoryChannel",
        }
        assert obj["metadata"]["annotations"] == {"messaging.knative.dev/subscribable": "v1"}
        CHANNEL.validate(obj, None, CREATE)

    @pytest.mark.parametrize(("namespace", "kind"), [("shop", "KafkaChannel"), ("other", "RabbitmqChannel")])
    def test_template_follows_the_config_map_that_users_edit(self, namespace: str, kind: str) -> None:
        version = "messaging.knative.dev/v1beta1"
        kafka = {"apiVersion": version, "kind": "KafkaChannel", "spec": {"numPartitions": 3}}
        config = {
            "clusterDefault": {"apiVersion": version, "kind": "RabbitmqChannel"},
            "namespaceDefaults": {"shop": kafka},
        }

        def config_map(at: str, name: str) -> dict[str, str]:
            assert (at, name) == ("knative-eventing", "default-ch-webhook")
            return {"default-ch-config": yaml.safe_dump(config)}

        obj: Object = {"metadata": {"name": "orders", "namespace": namespace}, "spec": {}}
        CHANNEL.default(obj, Admission("u", "CREATE", config_map))
        template = obj["spec"]["channelTemplate"]
        assert template["kind"] == kind
        assert template.get("spec") == ({"numPartitions": 3} if kind == "KafkaChannel" else None)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("{", "is not YAML"),
            ("[]", "clusterDefault and namespaceDefaults are expected"),
            ("namespaceDefaults: [shop]", "namespaceDefaults is no map"),
            ("clusterDefault: InMemoryChannel", "clusterDefault needs apiVersion and kind"),
            ("clusterDefault: {kind: InMemoryChannel}", "clusterDefault needs apiVersion and kind"),
            ("namespaceDefaults: {shop: {apiVersion: a/v1}}", r"namespaceDefaults\.shop needs apiVersion and kind"),
        ],
    )
    def test_broken_config_map_is_named(self, text: str, why: str) -> None:
        admission = Admission("u", "CREATE", lambda _ns, _name: {"default-ch-config": text})
        with pytest.raises(InvalidObjectError, match=f"ConfigMap knative-eventing/default-ch-webhook.*{why}"):
            CHANNEL.default(channel(), admission)

    @pytest.mark.parametrize(
        "text", ["", "# nothing", "clusterDefault:", "namespaceDefaults: {other: {apiVersion: a/v1, kind: B}}"]
    )
    def test_a_config_map_that_says_nothing_leaves_the_shipped_default(self, text: str) -> None:
        obj = channel()
        CHANNEL.default(obj, Admission("u", "CREATE", lambda _ns, _name: {"default-ch-config": text}))
        assert obj["spec"]["channelTemplate"]["kind"] == "InMemoryChannel"

    def test_missing_template_parts(self) -> None:
        assert refusal(CHANNEL, channel()) == "missing field(s): spec.channelTemplate"
        assert (
            refusal(CHANNEL, channel(channelTemplate={}))
            == "missing field(s): spec.channelTemplate.apiVersion, spec.channelTemplate.kind"
        )

    def test_subscribers_stay_empty(self) -> None:
        obj = channel(channelTemplate={"apiVersion": "a/v1", "kind": "X"}, subscribers=[{"uid": "1"}])
        assert refusal(CHANNEL, obj) == "must not set the field(s): spec.subscribable.subscribers"

    def test_delivery_is_immutable(self) -> None:
        template = {"apiVersion": "a/v1", "kind": "X"}
        old = channel(channelTemplate=template, delivery={"retry": 1})
        new = channel(channelTemplate=template, delivery={"retry": 2})
        assert refusal(CHANNEL, new, old, UPDATE) == (
            'Immutable fields changed (-old +new): spec\n*{v1.ChannelSpec}.ChannelableSpec.Delivery.Retry:\n\t-: "1"\n\t+: "2"\n'
        )
        CHANNEL.validate(copy.deepcopy(old), old, UPDATE)


class TestSubscription:
    def test_refs_get_the_namespace(self) -> None:
        ref = {"apiVersion": "v1", "kind": "Service", "name": "s"}
        obj = subscription(subscriber={"ref": dict(ref)}, delivery={"deadLetterSink": {"ref": dict(ref)}}, reply=None)
        SUBSCRIPTION.default(obj, CREATE)
        assert obj["spec"]["subscriber"]["ref"]["namespace"] == "shop"
        assert obj["spec"]["delivery"]["deadLetterSink"]["ref"]["namespace"] == "shop"
        SUBSCRIPTION.validate(obj, None, CREATE)

    @pytest.mark.parametrize(
        ("spec", "text"),
        [
            (
                {"channel": None},
                "missing field(s): spec.channel\nthe Subscription must reference a channel",
            ),
            ({"channel": {"name": "x"}}, "missing field(s): spec.channel.apiVersion, spec.channel.kind"),
            (
                {"subscriber": None},
                "missing field(s): spec.subscriber\nthe Subscription must reference a subscriber",
            ),
            (
                {"subscriber": {"CACerts": ""}},
                "expected at least one, got none: spec.subscriber.ref, spec.subscriber.uri",
            ),
            (
                {"subscriber": {"uri": "/path"}},
                (
                    "invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: "
                    "spec.subscriber.uri"
                ),
            ),
            (
                {"reply": {"ref": {"name": "a", "apiVersion": "v1", "kind": "K"}, "uri": "http://x"}},
                (
                    "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present: "
                    "spec.reply.ref, spec.reply.uri, spec.reply[apiVersion, kind, name]"
                ),
            ),
            (
                {"delivery": {"backoffDelay": "garbage"}},
                "invalid value: garbage: spec.delivery.backoffDelay",
            ),
            ({"delivery": {"timeout": "PT0S"}}, "invalid value: PT0S: spec.delivery.timeout"),
            ({"delivery": {"retry": -1}}, "invalid value: -1: spec.delivery.retry"),
            ({"delivery": {"backoffPolicy": "cubic"}}, "invalid value: cubic: spec.delivery.backoffPolicy"),
            ({"delivery": {"format": "xml"}}, "invalid value: xml: spec.delivery.format"),
            ({"delivery": {"retryAfterMax": "-PT1S"}}, "invalid value: -PT1S: spec.delivery.retryAfterMax"),
            (
                {"subscriber": {"uri": "http://x", "CACerts": "nonsense"}},
                "invalid value: CA Cert provided is invalid: spec.subscriber.caCert",
            ),
        ],
    )
    def test_refusals(self, spec: dict[str, Any], text: str) -> None:
        assert refusal(SUBSCRIPTION, subscription(**spec)) == text

    def test_several_faults_are_all_told(self) -> None:
        obj = subscription(subscriber=None, delivery={"retry": -1})
        assert refusal(SUBSCRIPTION, obj) == (
            "invalid value: -1: spec.delivery.retry\n"
            "missing field(s): spec.subscriber\nthe Subscription must reference a subscriber"
        )

    def test_what_it_refers_to_may_be_in_another_namespace(self) -> None:
        ref = {"apiVersion": "v1", "kind": "Service", "name": "s", "namespace": "other"}
        obj = subscription(subscriber={"ref": ref}, reply={"ref": ref}, delivery={"deadLetterSink": {"ref": ref}})
        SUBSCRIPTION.default(obj, CREATE)
        SUBSCRIPTION.validate(obj, None, CREATE)

    def test_retry_after_max_needs_no_flag(self) -> None:
        SUBSCRIPTION.validate(subscription(delivery={"retryAfterMax": "PT0S", "retry": 0}), None, CREATE)

    def test_only_subscriber_reply_and_delivery_may_change(self) -> None:
        old = subscription()
        new = subscription(subscriber={"uri": "http://other"}, reply={"uri": "http://r"}, delivery={"retry": 1})
        SUBSCRIPTION.validate(new, old, UPDATE)
        new["spec"]["channel"] = {**old["spec"]["channel"], "name": "other"}
        assert refusal(SUBSCRIPTION, new, old, UPDATE) == (
            'Immutable fields changed (-old +new): spec\n{v1.SubscriptionSpec}.Channel.Name:\n\t-: "orders"\n\t+: "other"\n'
        )

    @pytest.mark.parametrize("value", ["0", "1001", "ten", "-1", ""])
    def test_concurrency_is_checked(self, value: str) -> None:
        obj = subscription()
        obj["metadata"]["annotations"] = {"eventing-mesh.dev/concurrency": value}
        assert "metadata.annotations.[eventing-mesh.dev/concurrency]" in refusal(SUBSCRIPTION, obj)

    def test_order_is_checked(self) -> None:
        obj = subscription()
        obj["metadata"]["annotations"] = {"eventing-mesh.dev/order": "key"}
        SUBSCRIPTION.validate(obj, None, CREATE)
        obj["metadata"]["annotations"] = {"eventing-mesh.dev/order": "keys"}
        assert refusal(SUBSCRIPTION, obj) == (
            "invalid value: keys: metadata.annotations.[eventing-mesh.dev/order]\n"
            "expected one of none, key, partition, subscription"
        )

    @pytest.mark.parametrize(("before", "after"), [("", "mine"), ("mine", ""), ("mine", "other")])
    def test_the_consumer_group_stays(self, before: str, after: str) -> None:
        old, new = subscription(), subscription()
        for obj, group in ((old, before), (new, after)):
            obj["metadata"]["annotations"] = {"group.id": group} if group else {}
        SUBSCRIPTION.validate(old, old, UPDATE)
        assert refusal(SUBSCRIPTION, new, old, UPDATE) == (
            "Immutable fields changed (-old +new): metadata.annotations.[group.id]\n"
            f'\t-: "{before}"\n\t+: "{after}"\ndelete the Subscription and make it again'
        )


class TestBackingChannel:
    def test_annotations_are_defaulted_and_checked(self) -> None:
        obj = channel()
        IMC.default(obj, CREATE)
        assert obj["metadata"]["annotations"] == {"messaging.knative.dev/subscribable": "v1"}
        IMC.validate(obj, None, CREATE)
        obj["metadata"]["annotations"]["eventing.knative.dev/scope"] = "galaxy"
        assert refusal(IMC, obj) == (
            "invalid value: galaxy: metadata.annotations.[eventing.knative.dev/scope]\nexpected either 'cluster' or 'namespace'"
        )

    def test_each_subscriber_needs_somewhere_to_go(self) -> None:
        assert refusal(IMC, channel(subscribers=[{"uid": "1"}])) == (
            "missing field(s): spec.subscribable.subscriber[0].replyURI, "
            "spec.subscribable.subscriber[0].subscriberURI\nexpected at least one of, got none"
        )

    def test_subscribers_belong_to_the_controller(self) -> None:
        old, new = channel(), channel(subscribers=[{"uid": "1", "subscriberUri": "http://x"}])
        assert "changed by user kubernetes-admin" in refusal(IMC, new, old, UPDATE)
        assert "cannot be changed directly" in refusal(IMC, new, old, UPDATE)
        IMC.validate(new, old, Admission(CONTROLLER_USER, "UPDATE"))
        IMC.validate(channel(subscribers=[]), channel(), UPDATE)

    def test_a_back_end_adds_to_the_spec(self) -> None:
        class Extra(Model):
            partitions: int | None = None

        kind = channelable_kind(kind="KChannel", plural="kchannels", version="v1beta1", extra_spec_model=Extra)
        properties = kind.schema["properties"]["spec"]["properties"]
        assert properties["partitions"] == {"type": "integer"}
        assert properties["subscribers"]["items"]["properties"]["generation"]["format"] == "int64"

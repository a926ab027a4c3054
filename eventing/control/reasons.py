"""Conditions and reasons, in Knative's words: what users, `kubectl wait` and dashboards match on."""

from typing import Final

from eventing.resources import dataplane

# Conditions.
READY: Final = "Ready"
ADDED_TO_CHANNEL: Final = "AddedToChannel"
ADDRESSABLE: Final = "Addressable"
BACKING_CHANNEL_READY: Final = "BackingChannelReady"
CHANNEL_READY: Final = "ChannelReady"
CHANNEL_SERVICE_READY: Final = "ChannelServiceReady"
DEAD_LETTER_SINK_RESOLVED: Final = "DeadLetterSinkResolved"
ENDPOINTS_READY: Final = "EndpointsReady"
EVENT_POLICIES_READY: Final = "EventPoliciesReady"
OIDC_IDENTITY_CREATED: Final = "OIDCIdentityCreated"
REFERENCES_RESOLVED: Final = "ReferencesResolved"
SERVICE_READY: Final = "ServiceReady"

# Reasons of conditions; those of failures are reasons of Kubernetes Events too.
ADDRESS_TAKEN: Final = "AddressTaken"  # ours: two channel kinds of one name
BACKING_CHANNEL_NOT_CONFIGURED: Final = "BackingChannelNotConfigured"
CHANNEL_FAILURE: Final = "ChannelFailure"
CHANNEL_REFERENCE_FAILED: Final = "ChannelReferenceFailed"
CHANNEL_SERVICE_FAILED: Final = "ChannelServiceFailed"
DEAD_LETTER_SINK_NOT_CONFIGURED: Final = "DeadLetterSinkNotConfigured"
DEAD_LETTER_SINK_RESOLVE_FAILED: Final = "DeadLetterSinkResolveFailed"
DEAD_LETTER_SINK_UNRESOLVED: Final = "Unable to get the DeadLetterSink's URI"
ENDPOINTS_NOT_READY: Final = "DispatcherEndpointsNotReady"
NEEDS_ONE_WORKER: Final = dataplane.NEEDS_ONE_WORKER  # ours: a channel that lives in one process, where there are several
INVALID: Final = "Invalid"  # ours: the object has not been through our admission, and would not have passed
OIDC_DISABLED: Final = "OIDCDisabled"
PHYSICAL_CHANNEL_SYNC_FAILED: Final = "PhysicalChannelSyncFailed"
REPLY_RESOLVE_FAILED: Final = "ReplyResolveFailed"
RESOLVING: Final = "Resolving"
SUBSCRIBER_RESOLVE_FAILED: Final = "SubscriberResolveFailed"
SUBSCRIPTION_NOT_MARKED_READY: Final = "SubscriptionNotMarkedReadyByChannel"
EMPTY_HOSTNAME: Final = "EmptyHostname"

# Reasons of Kubernetes Events only.
SUBSCRIBER_REMOVED: Final = "SubscriberRemoved"
SUBSCRIBER_SYNC: Final = "SubscriberSync"

# Messages that go with them.
NO_DEAD_LETTER_SINK: Final = "No dead letter sink is configured."
NO_HOSTNAME: Final = "hostname is the empty string"
NOT_YET_RECONCILED: Final = "BackingChannel has not yet been reconciled."
NO_AUTHORISATION: Final = 'Feature "authentication-oidc" must be enabled to support Authorization'
NO_OIDC: Final = "authentication-oidc feature disabled"

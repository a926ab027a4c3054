// Says what Knative's own webhooks make of objects. Reads vectors, writes them with the text of each refusal ("" where there is none):
//
//	SYSTEM_NAMESPACE=knative-eventing go run . <../../unit/resources/knative_texts.json >new.json
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	"knative.dev/eventing/pkg/apis/feature"
	messaging "knative.dev/eventing/pkg/apis/messaging/v1"
	"knative.dev/pkg/apis"
)

type object interface {
	apis.Defaultable
	apis.Validatable
}

type request struct {
	Kind string          `json:"kind"`
	User string          `json:"user"`
	Old  json.RawMessage `json:"old,omitempty"`
	Obj  json.RawMessage `json:"obj"`
	Text string          `json:"text"`
}

func read(kind string, from json.RawMessage) object {
	var into object
	switch kind {
	case "Channel":
		into = &messaging.Channel{}
	case "InMemoryChannel":
		into = &messaging.InMemoryChannel{}
	case "Subscription":
		into = &messaging.Subscription{}
	default:
		panic(kind)
	}
	if err := json.Unmarshal(from, into); err != nil {
		panic(string(from) + ": " + err.Error())
	}
	return into
}

func main() {
	var requests []request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		panic(err)
	}
	ctx := feature.ToContext(context.Background(), feature.Flags{
		feature.DeliveryTimeout:    feature.Enabled,
		feature.DeliveryRetryAfter: feature.Enabled,
	})
	for i := range requests {
		r := &requests[i]
		ctx := apis.WithUserInfo(ctx, &authenticationv1.UserInfo{Username: r.User})
		obj := read(r.Kind, r.Obj)
		if r.Old != nil {
			ctx = apis.WithinUpdate(ctx, read(r.Kind, r.Old))
		} else {
			ctx = apis.WithinCreate(ctx)
		}
		obj.SetDefaults(ctx)
		if err := obj.Validate(ctx); err != nil {
			r.Text = err.Error()
		}
	}
	fmt.Println("[")
	for i, r := range requests {
		var line bytes.Buffer
		out := json.NewEncoder(&line)
		out.SetEscapeHTML(false)
		if err := out.Encode(r); err != nil {
			panic(err)
		}
		comma := ","
		if i == len(requests)-1 {
			comma = ""
		}
		fmt.Println(strings.TrimSpace(line.String()) + comma)
	}
	fmt.Println("]")
}

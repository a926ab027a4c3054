// Server-side apply by Kubernetes' own code, to compare ours with.
//
// Reads one line of JSON per story from standard input: {"schema": OpenAPI schema of the kind, "steps": [{"operation": "apply" or
// "update", "manager": …, "force": …, "object": …}]}. An update's object has no managedFields: those of the object before are put in,
// as a client does that has read it. Writes one line per story: [{"object": …} or {"conflicts": [field, …]} or {"error": …}].
package main

import (
	"bufio"
	"encoding/json"
	"os"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

type step struct {
	Operation string         `json:"operation"`
	Manager   string         `json:"manager"`
	Force     bool           `json:"force"`
	Object    map[string]any `json:"object"`
}

type story struct {
	Schema spec.Schema `json:"schema"`
	Steps  []step      `json:"steps"`
}

type outcome struct {
	Object    map[string]any `json:"object,omitempty"`
	Conflicts []string       `json:"conflicts,omitempty"`
	Error     string         `json:"error,omitempty"`
}

var kind = schema.GroupVersionKind{Group: "shapes.example.com", Version: "v1", Kind: "Shape"}

// There is one version: objects are never converted, created empty and not completed.
type plain struct{}

func (plain) Convert(in, out, context any) error { panic("not asked for") }
func (plain) ConvertToVersion(in runtime.Object, _ runtime.GroupVersioner) (runtime.Object, error) {
	return in, nil
}
func (plain) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
func (plain) Default(runtime.Object) {}
func (plain) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	empty := &unstructured.Unstructured{}
	empty.SetGroupVersionKind(kind)
	return empty, nil
}

func main() {
	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var given story
		if err := json.Unmarshal(lines.Bytes(), &given); err != nil {
			panic(err)
		}
		if err := out.Encode(tell(given)); err != nil {
			panic(err)
		}
	}
}

func tell(given story) []outcome {
	given.Schema.AddExtension("x-kubernetes-group-version-kind", []any{
		map[string]any{"group": kind.Group, "version": kind.Version, "kind": kind.Kind},
	})
	types, err := managedfields.NewTypeConverter(map[string]*spec.Schema{"com.example.Shape": &given.Schema}, false)
	if err != nil {
		panic(err)
	}
	fields, err := managedfields.NewDefaultCRDFieldManager(types, plain{}, plain{}, plain{}, kind, kind.GroupVersion(), "", nil)
	if err != nil {
		panic(err)
	}
	var live runtime.Object
	outcomes := []outcome{}
	for _, each := range given.Steps {
		next, err := take(fields, live, each)
		switch {
		case err == nil:
			next.(*unstructured.Unstructured).SetUID("1")
			live = next
			outcomes = append(outcomes, outcome{Object: next.DeepCopyObject().(*unstructured.Unstructured).Object})
		case apierrors.IsConflict(err):
			outcomes = append(outcomes, outcome{Conflicts: conflicts(err)})
		default:
			outcomes = append(outcomes, outcome{Error: err.Error()})
		}
	}
	return outcomes
}

func take(fields *managedfields.FieldManager, live runtime.Object, each step) (runtime.Object, error) {
	before := live
	if before == nil {
		before, _ = plain{}.New(kind)
	}
	given := &unstructured.Unstructured{Object: each.Object}
	if each.Operation == "apply" {
		return fields.Apply(before.DeepCopyObject(), given, each.Manager, each.Force)
	}
	if live != nil {
		given.SetUID("1")
		given.SetManagedFields(live.(*unstructured.Unstructured).GetManagedFields())
	}
	return fields.Update(before.DeepCopyObject(), given, each.Manager)
}

func conflicts(err error) []string {
	found := []string{}
	for _, cause := range err.(apierrors.APIStatus).Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			found = append(found, cause.Message+": "+cause.Field)
		}
	}
	return found
}

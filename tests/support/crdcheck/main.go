// Checks CustomResourceDefinitions with Kubernetes' own code: what an API server does with one that is created.
//
//	crdcheck FILE...
//
// Prints what is wrong, a line each, and exits with 1; 0 where a cluster would take every definition.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

func main() {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	faults := 0
	for _, path := range os.Args[1:] {
		found, err := checkFile(scheme, path)
		if err != nil {
			found = append(found, err)
		}
		for _, fault := range found {
			fmt.Printf("%s: %s\n", path, fault)
		}
		faults += len(found)
	}
	if faults > 0 || len(os.Args) < 2 {
		os.Exit(1)
	}
}

func checkFile(scheme *runtime.Scheme, path string) ([]error, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var faults []error
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for count := 0; ; count++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			if count == 0 {
				return nil, errors.New("holds no definition")
			}
			return faults, nil
		}
		if err != nil {
			return faults, err
		}
		found, err := check(scheme, document)
		if err != nil {
			return faults, err
		}
		faults = append(faults, found...)
	}
}

// check does what `kubectl apply --validate=strict` and the API server's admission do: unknown fields are
// refused, defaults filled in, and the internal form is validated.
func check(scheme *runtime.Scheme, document []byte) (faults []error, failure error) {
	// An API server answers 500 where this happens.
	defer func() {
		if cause := recover(); cause != nil {
			failure = fmt.Errorf("Kubernetes' own code fails on it: %v", cause)
		}
	}()
	versioned := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(document, versioned); err != nil {
		return nil, err
	}
	if versioned.APIVersion != apiextensionsv1.SchemeGroupVersion.String() || versioned.Kind != "CustomResourceDefinition" {
		return nil, fmt.Errorf("is a %s %s", versioned.APIVersion, versioned.Kind)
	}
	scheme.Default(versioned)
	internal := &apiextensions.CustomResourceDefinition{}
	if err := scheme.Convert(versioned, internal, nil); err != nil {
		return nil, err
	}
	for _, fault := range validation.ValidateCustomResourceDefinition(context.Background(), internal) {
		faults = append(faults, fault)
	}
	return append(faults, structural(internal)...), nil
}

// structural says whether each version's schema is one that objects are pruned by: what is not served there is dropped.
func structural(definition *apiextensions.CustomResourceDefinition) []error {
	var faults []error
	for index, version := range definition.Spec.Versions {
		path := field.NewPath("spec", "versions").Index(index).Child("schema", "openAPIV3Schema")
		given, err := apiextensions.GetSchemaForVersion(definition, version.Name)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if given == nil || given.OpenAPIV3Schema == nil {
			faults = append(faults, field.Required(path, "schemas are required"))
			continue
		}
		built, err := schema.NewStructural(given.OpenAPIV3Schema)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", path, err))
			continue
		}
		for _, fault := range schema.ValidateStructural(path, built) {
			faults = append(faults, fault)
		}
	}
	return faults
}

package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// Terraform's values and the API's JSON, turned into each other. What is null in an object does not stand in JSON;
// numbers are neither rounded nor written with an exponent.

// unknown stands for what Terraform will know later. It passes validation and cannot be sent.
type unknown struct{}

func (unknown) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a value is not known yet")
}

// decode gives a value as schemas.Decode would.
func decode(value tftypes.Value) (any, error) {
	if !value.IsKnown() {
		return unknown{}, nil
	}
	if value.IsNull() {
		return nil, nil
	}
	kind := value.Type()
	switch kind.(type) {
	case tftypes.Object, tftypes.Map:
		_, keepNull := kind.(tftypes.Map)
		return decodeKeyed(value, keepNull)
	case tftypes.List, tftypes.Set, tftypes.Tuple:
		var elements []tftypes.Value
		if err := value.As(&elements); err != nil {
			return nil, err
		}
		list := make([]any, len(elements))
		for i, element := range elements {
			var err error
			if list[i], err = decode(element); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	return decodeScalar(value, kind)
}

func decodeScalar(value tftypes.Value, kind tftypes.Type) (any, error) {
	switch {
	case kind.Is(tftypes.String):
		var s string
		err := value.As(&s)
		return s, err
	case kind.Is(tftypes.Bool):
		var b bool
		err := value.As(&b)
		return b, err
	}
	var n big.Float
	err := value.As(&n)
	return json.Number(n.Text('f', -1)), err
}

func decodeKeyed(value tftypes.Value, keepNull bool) (any, error) {
	var parts map[string]tftypes.Value
	if err := value.As(&parts); err != nil {
		return nil, err
	}
	object := map[string]any{}
	for name, part := range parts {
		decoded, err := decode(part)
		if err != nil {
			return nil, err
		}
		if decoded != nil || keepNull {
			object[name] = decoded
		}
	}
	return object, nil
}

// encode gives a decoded value the type that Terraform wants. Names that the type does not have are left out: a newer
// service may say more than this provider knows.
func encode(value any, kind tftypes.Type) (tftypes.Value, error) {
	if value == nil {
		return tftypes.NewValue(kind, nil), nil
	}
	switch t := kind.(type) {
	case tftypes.Object:
		object, ok := value.(map[string]any)
		if !ok {
			return tftypes.Value{}, mismatch(value, kind)
		}
		parts := map[string]tftypes.Value{}
		for name, partType := range t.AttributeTypes {
			part, err := encode(object[name], partType)
			if err != nil {
				return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
			}
			parts[name] = part
		}
		return tftypes.NewValue(kind, parts), nil
	case tftypes.Map:
		return encodeMap(value, t)
	case tftypes.List:
		return encodeElements(value, kind, t.ElementType)
	case tftypes.Set:
		return encodeElements(value, kind, t.ElementType)
	}
	return encodeScalar(value, kind)
}

func encodeMap(value any, kind tftypes.Map) (tftypes.Value, error) {
	object, ok := value.(map[string]any)
	if !ok {
		return tftypes.Value{}, mismatch(value, kind)
	}
	parts := map[string]tftypes.Value{}
	for key, part := range object {
		encoded, err := encode(part, kind.ElementType)
		if err != nil {
			return tftypes.Value{}, fmt.Errorf("%s: %w", key, err)
		}
		parts[key] = encoded
	}
	return tftypes.NewValue(kind, parts), nil
}

func encodeElements(value any, kind, elementType tftypes.Type) (tftypes.Value, error) {
	list, ok := value.([]any)
	if !ok {
		return tftypes.Value{}, mismatch(value, kind)
	}
	elements := make([]tftypes.Value, len(list))
	for i, element := range list {
		var err error
		if elements[i], err = encode(element, elementType); err != nil {
			return tftypes.Value{}, fmt.Errorf("%d: %w", i, err)
		}
	}
	return tftypes.NewValue(kind, elements), nil
}

func encodeScalar(value any, kind tftypes.Type) (tftypes.Value, error) {
	switch v := value.(type) {
	case string:
		if kind.Is(tftypes.String) {
			return tftypes.NewValue(kind, v), nil
		}
	case bool:
		if kind.Is(tftypes.Bool) {
			return tftypes.NewValue(kind, v), nil
		}
	case json.Number:
		n, _, err := big.ParseFloat(v.String(), 10, 512, big.ToNearestEven)
		if err == nil && kind.Is(tftypes.Number) {
			return tftypes.NewValue(kind, n), nil
		}
	}
	return tftypes.Value{}, mismatch(value, kind)
}

func mismatch(value any, kind tftypes.Type) error {
	return fmt.Errorf("the service answered a %T where %s belongs", value, kind)
}

package schemas

import (
	"bytes"
	"encoding/json"
	"sort"
)

// Differences names the parts in which what is there differs from what is wanted, as pointers like /spec/disks. Both
// are spec and metadata as JSON. Defaults left out, the order of sets, and what is never shown (writeOnly) make no
// difference. Nil means: one and the same document.
func (k *Kind) Differences(wantMetadata map[string]string, wantSpec []byte, haveMetadata map[string]string, haveSpec []byte) ([]string, error) {
	want, err := Decode(wantSpec)
	if err != nil {
		return nil, err
	}
	have, err := Decode(haveSpec)
	if err != nil {
		return nil, err
	}
	var pointers []string
	if !sameTags(wantMetadata, haveMetadata) {
		pointers = append(pointers, "/metadata")
	}
	wantFields, _ := want.(map[string]any)
	haveFields, _ := have.(map[string]any)
	for _, field := range k.Spec.Fields {
		w, h := field.settled(wantFields[field.Name]), field.settled(haveFields[field.Name])
		if !field.WriteOnly && !sameJSON(w, h) {
			pointers = append(pointers, "/spec/"+field.Name)
		}
	}
	return pointers, nil
}

// settled is the value with its defaults filled in and its sets in order.
func (f *Field) settled(value any) any {
	if value == nil {
		value = f.Default
	}
	switch v := value.(type) {
	case map[string]any:
		if f.Type == Map {
			return v
		}
		whole := map[string]any{}
		for _, field := range f.Fields {
			if part := field.settled(v[field.Name]); part != nil {
				whole[field.Name] = part
			}
		}
		return whole
	case []any:
		whole := make([]any, len(v))
		for i, element := range v {
			whole[i] = f.Items.settled(element)
		}
		if f.Unique {
			sort.Slice(whole, func(i, j int) bool { return compact(whole[i]) < compact(whole[j]) })
		}
		return whole
	}
	return value
}

func sameTags(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			return false
		}
	}
	return true
}

func sameJSON(a, b any) bool {
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && bytes.Equal(left, right)
}

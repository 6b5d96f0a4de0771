package schemas

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"sort"
	"strings"
)

// Catalogue is all that the schema files say.
type Catalogue struct {
	// Kinds are sorted by name.
	Kinds []*Kind
	// Name and Metadata are every document's.
	Name, Metadata *Field
	Codes          map[string]Code
}

// Code is one entry of the registry of error codes.
type Code struct {
	Status      int    `json:"status"`
	Title       string `json:"title"`
	Retryable   bool   `json:"retryable"`
	Description string `json:"description"`
}

// Kind returns the kind of that name, or nil.
func (c *Catalogue) Kind(name string) *Kind {
	for _, kind := range c.Kinds {
		if kind.Name == name {
			return kind
		}
	}
	return nil
}

// word is a schema as written. Decoding refuses words that are not here: a word that was not understood would be a
// rule that the server knows and we do not. What is kept as RawMessage and not read again is known not to matter.
type word struct {
	Schema               json.RawMessage            `json:"$schema"`
	ID                   json.RawMessage            `json:"$id"`
	Defs                 map[string]json.RawMessage `json:"$defs"`
	Ref                  string                     `json:"$ref"`
	Title                string                     `json:"title"`
	Description          string                     `json:"description"`
	Type                 string                     `json:"type"`
	Properties           ordered                    `json:"properties"`
	Required             []string                   `json:"required"`
	AdditionalProperties json.RawMessage            `json:"additionalProperties"`
	PropertyNames        *struct {
		Pattern string `json:"pattern"`
	} `json:"propertyNames"`
	MaxProperties *int            `json:"maxProperties"`
	Items         json.RawMessage `json:"items"`
	MinItems      *int            `json:"minItems"`
	MaxItems      *int            `json:"maxItems"`
	UniqueItems   bool            `json:"uniqueItems"`
	Enum          []string        `json:"enum"`
	Pattern       string          `json:"pattern"`
	Format        string          `json:"format"`
	Minimum       *int64          `json:"minimum"`
	Maximum       *int64          `json:"maximum"`
	MinLength     *int            `json:"minLength"`
	MaxLength     *int            `json:"maxLength"`
	Default       json.RawMessage `json:"default"`
	WriteOnly     bool            `json:"writeOnly"`
	Examples      json.RawMessage `json:"examples"`
	Immutable     bool            `json:"x-immutable"`
	RefersTo      json.RawMessage `json:"x-refers-to"`
	Unit          string          `json:"x-unit"`
	Kind          *struct {
		Plural     string `json:"plural"`
		Scope      string `json:"scope"`
		Imperative bool   `json:"imperative"`
	} `json:"x-kind"`
	Status *struct {
		Binding json.RawMessage `json:"binding"`
		Status  json.RawMessage `json:"status"`
	} `json:"x-status"`
}

// ordered is a JSON object that remembers the order of its keys.
type ordered struct {
	keys   []string
	values map[string]json.RawMessage
}

func (o *ordered) UnmarshalJSON(data []byte) error {
	o.keys, o.values = nil, map[string]json.RawMessage{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		o.keys = append(o.keys, key.(string))
		o.values[key.(string)] = value
	}
	return nil
}

// reader reads schema files that refer to definitions in each other.
type reader struct {
	defs map[string]map[string]json.RawMessage
}

// Load reads v1/*.json and errors.json. Files that describe no kind only lend their definitions.
func Load(fsys fs.FS) (*Catalogue, error) {
	catalogue, in := &Catalogue{}, reader{defs: map[string]map[string]json.RawMessage{}}
	names, err := fs.Glob(fsys, "v1/*.json")
	if err != nil {
		return nil, err
	}
	files := map[string]word{}
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		if path.Base(name) == "meta.json" {
			continue
		}
		var file word
		if err := decodeStrict(data, &file); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[path.Base(name)], in.defs[path.Base(name)] = file, file.Defs
	}
	for name, file := range files {
		if file.Kind == nil {
			continue
		}
		kind, err := in.kind(name, file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		catalogue.Kinds = append(catalogue.Kinds, kind)
	}
	sort.Slice(catalogue.Kinds, func(i, j int) bool { return catalogue.Kinds[i].Name < catalogue.Kinds[j].Name })
	if catalogue.Name, err = in.field("common.json", "name", in.defs["common.json"]["name"]); err != nil {
		return nil, err
	}
	if catalogue.Metadata, err = in.field("common.json", "metadata", in.defs["common.json"]["metadata"]); err != nil {
		return nil, err
	}
	codes, err := fs.ReadFile(fsys, "errors.json")
	if err != nil {
		return nil, err
	}
	return catalogue, json.Unmarshal(codes, &catalogue.Codes)
}

func (in reader) kind(file string, w word) (*Kind, error) {
	kind := &Kind{Name: strings.TrimSuffix(file, ".json"), Plural: w.Kind.Plural, Description: w.Description,
		Cluster: w.Kind.Scope == "cluster", Imperative: w.Kind.Imperative}
	if w.Status == nil {
		return nil, fmt.Errorf("no x-status")
	}
	var err error
	if kind.Spec, err = in.fill(file, "spec", w); err != nil {
		return nil, err
	}
	if kind.Binding, err = in.field(file, "binding", w.Status.Binding); err != nil {
		return nil, err
	}
	if kind.Status, err = in.field(file, "status", w.Status.Status); err != nil {
		return nil, err
	}
	common, err := in.field("common.json", "status", in.defs["common.json"]["status"])
	if err != nil {
		return nil, err
	}
	kind.Status.Description = common.Description
	kind.Status.Fields = append(common.Fields, kind.Status.Fields...)
	return kind, nil
}

func (in reader) field(file, name string, data json.RawMessage) (*Field, error) {
	var w word
	if err := decodeStrict(data, &w); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if w.Ref != "" {
		target, def, _ := strings.Cut(w.Ref, "#/$defs/")
		if target == "" {
			target = file
		}
		referred, ok := in.defs[target][def]
		if !ok {
			return nil, fmt.Errorf("%s: %s leads nowhere", name, w.Ref)
		}
		w = word{}
		for _, layer := range []json.RawMessage{referred, data} { // what stands beside a $ref goes over it
			if err := decodeStrict(layer, &w); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		file = target
	}
	return in.fill(file, name, w)
}

func (in reader) fill(file, name string, w word) (*Field, error) {
	f := &Field{Name: name, Description: w.Description, Type: w.Type, Unit: w.Unit, Format: w.Format,
		Unique: w.UniqueItems, Immutable: w.Immutable, WriteOnly: w.WriteOnly, Enum: w.Enum,
		Minimum: w.Minimum, Maximum: w.Maximum, MinLength: w.MinLength, MaxLength: w.MaxLength,
		MinItems: w.MinItems, MaxItems: w.MaxItems, MaxKeys: w.MaxProperties}
	err := in.parts(file, f, w)
	if err == nil && w.Pattern != "" {
		f.Pattern, err = regexp.Compile(w.Pattern)
	}
	if err == nil && w.PropertyNames != nil {
		f.Keys, err = regexp.Compile(w.PropertyNames.Pattern)
	}
	if err == nil && w.Default != nil {
		f.Default, err = Decode(w.Default)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// parts reads what stands inside a field: an object's fields, an array's elements, a map's values.
func (in reader) parts(file string, f *Field, w word) (err error) {
	switch {
	case f.Scalar():
		return nil
	case w.Type == Array:
		f.Items, err = in.field(file, "items", w.Items)
		return err
	case w.Type == Object && bytes.HasPrefix(w.AdditionalProperties, []byte("{")):
		f.Type = Map
		f.Items, err = in.field(file, "values", w.AdditionalProperties)
		return err
	case w.Type != Object:
		return fmt.Errorf("the type %q is not in our profile", w.Type)
	}
	for _, key := range w.Properties.keys {
		part, err := in.field(file, key, w.Properties.values[key])
		if err != nil {
			return err
		}
		for _, required := range w.Required {
			part.Required = part.Required || required == key
		}
		f.Fields = append(f.Fields, part)
	}
	return nil
}

// Decode reads JSON as documents are compared: numbers as they were written.
func Decode(data []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	err := decoder.Decode(&value)
	return value, err
}

func decodeStrict(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

// Package schemas holds the schema files and what they say, as values.
//
// The files are the single source of truth and live outside this module, where go:embed cannot reach. So v1/ and
// errors.json here are copies, written by internal/gen and never by hand; `go run ./internal/gen -check` fails when
// they have fallen behind. The generator, the client and the provider all read them through this package, so that
// there is one reading of a schema in Go.
package schemas

import (
	"embed"
	"regexp"
	"sync"
)

//go:embed v1/*.json errors.json
var files embed.FS

// Kind is one kind of resource.
type Kind struct {
	Name, Plural, Description string
	// Cluster kinds live beside the namespaces, not in one.
	Cluster bool
	// Imperative kinds are done once; they are not things that stay.
	Imperative            bool
	Spec, Binding, Status *Field
}

// The values of Field.Type.
const (
	String  = "string"
	Integer = "integer"
	Boolean = "boolean"
	Array   = "array"
	Object  = "object"
	// Map is an object whose keys the caller chooses; Items describes its values.
	Map = "map"
)

// Field is one value in a document: what it means, and which values it may have. A bound that is nil is not set.
type Field struct {
	Name, Description, Type, Unit, Format             string
	Required, Unique, Immutable, WriteOnly            bool
	Pattern, Keys                                     *regexp.Regexp
	Enum                                              []string
	Minimum, Maximum                                  *int64
	MinLength, MaxLength, MinItems, MaxItems, MaxKeys *int
	// Default is nil where there is none; else as encoding/json with UseNumber would decode it.
	Default any
	// Fields are an object's, in the order of the file.
	Fields []*Field
	// Items describes an array's elements or a map's values.
	Items *Field
}

// Scalar says whether a value of this field holds no others.
func (f *Field) Scalar() bool {
	return f.Type == String || f.Type == Integer || f.Type == Boolean
}

// Field returns the field of that name of an object, or nil.
func (f *Field) Field(name string) *Field {
	for _, field := range f.Fields {
		if field.Name == name {
			return field
		}
	}
	return nil
}

// Embedded is the catalogue this binary was built with.
var Embedded = sync.OnceValue(func() *Catalogue {
	catalogue, err := Load(files)
	if err != nil {
		panic("the embedded schemas are broken, although the generator read them: " + err.Error())
	}
	return catalogue
})

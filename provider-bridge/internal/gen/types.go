package main

import (
	"bytes"
	"fmt"
	"go/format"
	"strings"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// words are spelled as Go spells them; all others get a capital letter.
var words = map[string]string{"cidr": "CIDR", "cpus": "CPUs", "dhcp": "DHCP", "dns": "DNS", "gib": "GiB", "id": "ID", "ip": "IP",
	"mac": "MAC", "mib": "MiB", "mtu": "MTU", "nat": "NAT", "rtt": "RTT", "sha256": "SHA256", "ssh": "SSH", "uid": "UID", "url": "URL",
	"vni": "VNI"}

func exported(name string) string {
	var b strings.Builder
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == '_' || r == '-' }) {
		if word, ok := words[part]; ok {
			b.WriteString(word)
		} else {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// printer writes types, and the types inside them after them.
type printer struct {
	bytes.Buffer
	waiting []func()
}

func types(catalogue *schemas.Catalogue) ([]byte, error) {
	p := &printer{}
	p.WriteString(marked + "package client\n")
	for _, kind := range catalogue.Kinds {
		p.kind(kind)
	}
	return format.Source(p.Bytes())
}

func (p *printer) kind(k *schemas.Kind) {
	name := exported(k.Name)
	fmt.Fprintf(p, "\n// %s: %s\ntype %s = Document[%sSpec, %sBinding, %sStatus]\n", name, k.Description, name, name, name, name)
	fmt.Fprintf(p, "\n// %s is how documents of this kind are named to Get, Put, List, Delete and Wait.\n", exported(k.Plural))
	fmt.Fprintf(p, "var %s = Kind[%sSpec, %sBinding, %sStatus]{Name: %q, Plural: %q, Cluster: %t}\n",
		exported(k.Plural), name, name, name, k.Name, k.Plural, k.Cluster)
	p.structure(name+"Spec", name, "is what is asked for.", k.Spec.Fields, false)
	p.structure(name+"Binding", name+"Binding", "is what it was given.", k.Binding.Fields, false)
	p.structure(name+"Status", name+"Status", "is what is true now.", k.Status.Fields, true)
	for len(p.waiting) > 0 {
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		next()
	}
}

// structure writes one struct. The part of a status that all kinds share is embedded, not repeated.
func (p *printer) structure(name, prefix, what string, fields []*schemas.Field, status bool) {
	fmt.Fprintf(p, "\n// %s %s\ntype %s struct {\n", name, what, name)
	if status {
		p.WriteString("Status\n")
	}
	for _, f := range fields {
		if status && (f.Name == "observed_generation" || f.Name == "conditions") {
			continue
		}
		fmt.Fprintf(p, "// %s\n", strings.ReplaceAll(comment(f), "\n", "\n// "))
		fmt.Fprintf(p, "%s %s `json:\"%s\"`\n", exported(f.Name), p.fieldType(prefix, f), tag(f))
	}
	p.WriteString("}\n")
}

func comment(f *schemas.Field) string {
	if f.WriteOnly {
		return f.Words() + " Left out of a Put it keeps its value; it is never shown."
	}
	return f.Words()
}

func tag(f *schemas.Field) string {
	if f.Required {
		return f.Name
	}
	return f.Name + ",omitempty"
}

// fieldType is a pointer for what may be absent; nil slices and maps say that by themselves.
func (p *printer) fieldType(prefix string, f *schemas.Field) string {
	kind := p.valueType(prefix, f)
	if f.Required || f.Type == schemas.Array || f.Type == schemas.Map {
		return kind
	}
	return "*" + kind
}

func (p *printer) valueType(prefix string, f *schemas.Field) string {
	switch f.Type {
	case schemas.Integer:
		return "int64"
	case schemas.Boolean:
		return "bool"
	case schemas.Array:
		items := *f.Items
		items.Name = strings.TrimSuffix(f.Name, "s")
		return "[]" + p.valueType(prefix, &items)
	case schemas.Map:
		return "map[string]" + p.valueType(prefix, f.Items)
	case schemas.Object:
		name := prefix + exported(f.Name)
		p.waiting = append(p.waiting, func() {
			p.structure(name, name, "is one value of "+prefix+"'s "+f.Name+".", f.Fields, false)
		})
		return name
	}
	return "string"
}

package main

import (
	"bytes"
	"fmt"
	"go/format"
	"sort"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

func codes(registry map[string]schemas.Code) ([]byte, error) {
	names := make([]string, 0, len(registry))
	for name := range registry {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := registry[names[i]], registry[names[j]]
		return a.Status < b.Status || a.Status == b.Status && names[i] < names[j]
	})
	var b bytes.Buffer
	b.WriteString(marked + "package client\n\n// The codes of problems, from the registry. Compare with errors.Is(err, CodeInUse).\nconst (\n")
	for _, name := range names {
		code := registry[name]
		fmt.Fprintf(&b, "// Code%s (%d): %s\nCode%s Code = %q\n", exported(name), code.Status, code.Description, exported(name), name)
	}
	b.WriteString(")\n")
	return format.Source(b.Bytes())
}

package provider

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// problems turns what the service refused into diagnostics, each at the attribute that its pointer names.
func (s *subject) problems(diags *diag.Diagnostics, doing string, ref client.Ref, err error) {
	summary := fmt.Sprintf("Cannot %s %s %q", doing, s.kind.Name, s.id(ref))
	var p *client.Problem
	if !errors.As(err, &p) || len(p.Errors) == 0 {
		diags.AddError(summary, err.Error())
		return
	}
	for _, fault := range p.Errors {
		detail := fmt.Sprintf("%s\n\n%s (%s, request %s)", fault.Detail, p.Detail, p.Code, p.RequestID)
		if at, ok := s.attribute(fault.Pointer); ok {
			diags.AddAttributeError(at, summary, detail)
		} else {
			diags.AddError(summary, fault.Pointer+": "+detail)
		}
	}
}

// attribute finds the attribute that a pointer into the body names.
func (s *subject) attribute(pointer string) (path.Path, bool) {
	steps := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, step := range steps {
		steps[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
	}
	switch {
	case steps[0] == "metadata" && len(steps) > 1:
		return path.Root("metadata").AtMapKey(steps[1]), true
	case steps[0] == "metadata":
		return path.Root("metadata"), true
	case steps[0] != "spec" || len(steps) < 2 || s.kind.Spec.Field(steps[1]) == nil:
		return path.Empty(), false
	}
	return descend(path.Root(steps[1]), s.kind.Spec.Field(steps[1]), steps[2:]), true
}

// descend goes as far as the attributes go: a set's elements have no place of their own.
func descend(at path.Path, field *schemas.Field, steps []string) path.Path {
	if len(steps) == 0 {
		return at
	}
	switch {
	case field.Type == schemas.Object && field.Field(steps[0]) != nil:
		return descend(at.AtName(steps[0]), field.Field(steps[0]), steps[1:])
	case field.Type == schemas.Map:
		return at.AtMapKey(steps[0])
	case field.Type == schemas.Array && !field.Unique:
		if index, err := strconv.Atoi(steps[0]); err == nil {
			return descend(at.AtListIndex(index), field.Items, steps[1:])
		}
	}
	return at
}

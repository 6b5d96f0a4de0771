package provider

import (
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// No kind has one today; a later schema may.
func TestAnImmutableFieldInAListReplacesWhenItChangesAndNotWhenAnElementIsAdded(t *testing.T) {
	bus := &schemas.Field{Name: "bus", Type: schemas.String, Immutable: true}
	disks := &schemas.Field{Name: "disks", Type: schemas.Array, Items: &schemas.Field{Type: schemas.Object, Fields: []*schemas.Field{bus}}}
	kind := &schemas.Kind{Spec: &schemas.Field{Fields: []*schemas.Field{disks}}, Binding: &schemas.Field{}}
	schema := resourceSchema(schemas.Embedded(), kind)
	if err := schema.ValidateImplementation(ctx); err.HasError() {
		t.Fatal(err)
	}
	state := func(buses ...any) tfsdk.State {
		list := []any{}
		for _, each := range buses {
			list = append(list, map[string]any{"bus": each})
		}
		raw, err := encode(map[string]any{"disks": list}, schema.Type().TerraformType(ctx))
		if err != nil {
			t.Fatal(err)
		}
		return tfsdk.State{Raw: raw, Schema: schema}
	}
	for _, each := range []struct {
		name          string
		before, after tfsdk.State
		replaced      bool
	}{
		{"changed", state("a", "b"), state("a", "c"), true},
		{"set for the first time", state("a", nil), state("a", "c"), true},
		{"added", state("a"), state("a", "c"), false},
		{"as it was", state("a", "c"), state("a", "c"), false},
	} {
		at := path.Root("disks").AtListIndex(1).AtName("bus")
		var before, after types.String
		each.before.GetAttribute(ctx, at, &before)
		each.after.GetAttribute(ctx, at, &after)
		if got := changes(ctx, tfsdk.Plan(each.after), each.before, at, after, before); got != each.replaced {
			t.Errorf("%s: replaced is %t", each.name, got)
		}
	}
}

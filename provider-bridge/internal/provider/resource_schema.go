package provider

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/setdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// The schema of a resource, out of the schema of its kind: name, namespace and metadata; the fields of the spec at top
// level; and what the cloud decides, uid and binding. Objects in arrays are lists and only scalars are sets, since a
// set of objects with defaults corrupts plans (plugin-framework #783).

// nameField is what every name must be; the service has the same rule for all kinds.
func nameField(catalogue *schemas.Catalogue, description string) *schemas.Field {
	name := *catalogue.Name
	name.Description, name.Required, name.Immutable = description, true, true
	return &name
}

func resourceSchema(catalogue *schemas.Catalogue, kind *schemas.Kind) schema.Schema {
	attributes := map[string]schema.Attribute{
		"name":     resourceAttribute(nameField(catalogue, "Its name, unique among its kind in its namespace.")),
		"metadata": resourceAttribute(catalogue.Metadata),
		"uid": schema.StringAttribute{
			Computed:            true,
			MarkdownDescription: "Made by the service; tells a re-created resource from the old one.",
			PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
		},
		"binding": schema.SingleNestedAttribute{
			Computed:            true,
			MarkdownDescription: "The scarce things it was given.",
			Attributes:          computedAttributes(kind.Binding.Fields),
		},
	}
	if !kind.Cluster {
		namespace := nameField(catalogue, "")
		attributes["namespace"] = schema.StringAttribute{
			Optional: true, Computed: true,
			MarkdownDescription: "The namespace it lives in. Absent, it is created in the provider's, and stays where it is. Cannot change once set.",
			Validators:          []validator.String{check{namespace}},
			PlanModifiers:       []planmodifier.String{stringplanmodifier.UseStateForUnknown(), immutable{}},
		}
	}
	for _, field := range kind.Spec.Fields {
		attributes[field.Name] = resourceAttribute(field)
	}
	return schema.Schema{MarkdownDescription: kind.Description, Attributes: attributes}
}

func resourceAttributes(fields []*schemas.Field) map[string]schema.Attribute {
	attributes := map[string]schema.Attribute{}
	for _, field := range fields {
		attributes[field.Name] = resourceAttribute(field)
	}
	return attributes
}

func resourceAttribute(f *schemas.Field) schema.Attribute {
	required, optional, computed := f.Required, !f.Required, f.Default != nil
	words := f.Words()
	if f.WriteOnly {
		words += writeOnlyWords
	}
	switch f.Type {
	case schemas.String:
		a := schema.StringAttribute{Required: required, Optional: optional, Computed: computed, WriteOnly: f.WriteOnly, Sensitive: f.WriteOnly,
			MarkdownDescription: words, Validators: []validator.String{check{f}}, PlanModifiers: replacing[planmodifier.String](f)}
		if computed {
			a.Default = stringdefault.StaticString(f.Default.(string))
		}
		return a
	case schemas.Integer:
		a := schema.Int64Attribute{Required: required, Optional: optional, Computed: computed, WriteOnly: f.WriteOnly, Sensitive: f.WriteOnly,
			MarkdownDescription: words, Validators: []validator.Int64{check{f}}, PlanModifiers: replacing[planmodifier.Int64](f)}
		if computed {
			a.Default = int64default.StaticInt64(defaultValue(f).(types.Int64).ValueInt64())
		}
		return a
	case schemas.Boolean:
		a := schema.BoolAttribute{Required: required, Optional: optional, Computed: computed, WriteOnly: f.WriteOnly, Sensitive: f.WriteOnly,
			MarkdownDescription: words, PlanModifiers: replacing[planmodifier.Bool](f)}
		if computed {
			a.Default = booldefault.StaticBool(f.Default.(bool))
		}
		return a
	}
	return resourceContainer(f, required, optional, computed, words)
}

func resourceContainer(f *schemas.Field, required, optional, computed bool, words string) schema.Attribute {
	switch {
	case f.Type == schemas.Object:
		a := schema.SingleNestedAttribute{Required: required, Optional: optional, Computed: computed, MarkdownDescription: words,
			Attributes: resourceAttributes(f.Fields), PlanModifiers: replacing[planmodifier.Object](f)}
		if computed {
			a.Default = objectdefault.StaticValue(defaultValue(f).(types.Object))
		}
		return a
	case f.Type == schemas.Map:
		a := schema.MapAttribute{Required: required, Optional: optional, Computed: computed, MarkdownDescription: words,
			ElementType: attrType(f.Items), Validators: []validator.Map{check{f}}, PlanModifiers: replacing[planmodifier.Map](f)}
		if computed {
			a.Default = mapdefault.StaticValue(defaultValue(f).(types.Map))
		}
		return a
	case f.Items.Type == schemas.Object:
		a := schema.ListNestedAttribute{Required: required, Optional: optional, Computed: computed, MarkdownDescription: words,
			NestedObject: schema.NestedAttributeObject{Attributes: resourceAttributes(f.Items.Fields)},
			Validators:   []validator.List{check{f}}, PlanModifiers: replacing[planmodifier.List](f)}
		if computed {
			a.Default = listdefault.StaticValue(defaultValue(f).(types.List))
		}
		return a
	case f.Unique:
		a := schema.SetAttribute{Required: required, Optional: optional, Computed: computed, MarkdownDescription: words,
			ElementType: attrType(f.Items), Validators: []validator.Set{check{f}}, PlanModifiers: replacing[planmodifier.Set](f)}
		if computed {
			a.Default = setdefault.StaticValue(defaultValue(f).(types.Set))
		}
		return a
	}
	a := schema.ListAttribute{Required: required, Optional: optional, Computed: computed, MarkdownDescription: words,
		ElementType: attrType(f.Items), Validators: []validator.List{check{f}}, PlanModifiers: replacing[planmodifier.List](f)}
	if computed {
		a.Default = listdefault.StaticValue(defaultValue(f).(types.List))
	}
	return a
}

const writeOnlyWords = " It is in no plan and no state, so Terraform does not notice a change of it alone: it is sent when the resource is created and with every other change."

// replacing is the plan modifiers of a field. Terraform never sees the old value of what is write-only, so there is
// nothing to compare.
func replacing[M any](f *schemas.Field) []M {
	if !f.Immutable || f.WriteOnly {
		return nil
	}
	return []M{any(immutable{}).(M)}
}

// attrType is the type of a field's values.
func attrType(f *schemas.Field) attr.Type {
	switch f.Type {
	case schemas.String:
		return types.StringType
	case schemas.Integer:
		return types.Int64Type
	case schemas.Boolean:
		return types.BoolType
	case schemas.Map:
		return types.MapType{ElemType: attrType(f.Items)}
	case schemas.Array:
		if f.Unique {
			return types.SetType{ElemType: attrType(f.Items)}
		}
		return types.ListType{ElemType: attrType(f.Items)}
	}
	parts := map[string]attr.Type{}
	for _, field := range f.Fields {
		parts[field.Name] = attrType(field)
	}
	return types.ObjectType{AttrTypes: parts}
}

func defaultValue(f *schemas.Field) attr.Value {
	ctx, kind := context.Background(), attrType(f)
	raw, err := encode(f.Default, kind.TerraformType(ctx))
	if err == nil {
		var value attr.Value
		if value, err = kind.ValueFromTerraform(ctx, raw); err == nil {
			return value
		}
	}
	panic(fmt.Sprintf("the default of %s is not of its own type: %v", f.Name, err))
}

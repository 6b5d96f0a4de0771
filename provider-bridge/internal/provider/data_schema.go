package provider

import (
	data "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// What is only read: a resource's binding, and everything in a data source but the name and namespace it is found by.
// The framework has two families of types for the same thing, so a type is stated once and mapped to each.

// computedAttributes are those of a resource.
func computedAttributes(fields []*schemas.Field) map[string]schema.Attribute {
	attributes := map[string]schema.Attribute{}
	for _, f := range fields {
		attributes[f.Name] = computedAttribute(f)
	}
	return attributes
}

func computedAttribute(f *schemas.Field) schema.Attribute {
	switch {
	case f.Type == schemas.String:
		return schema.StringAttribute{Computed: true, MarkdownDescription: f.Words()}
	case f.Type == schemas.Integer:
		return schema.Int64Attribute{Computed: true, MarkdownDescription: f.Words()}
	case f.Type == schemas.Boolean:
		return schema.BoolAttribute{Computed: true, MarkdownDescription: f.Words()}
	case f.Type == schemas.Object:
		return schema.SingleNestedAttribute{Computed: true, MarkdownDescription: f.Words(), Attributes: computedAttributes(f.Fields)}
	case f.Type == schemas.Map:
		return schema.MapAttribute{Computed: true, MarkdownDescription: f.Words(), ElementType: attrType(f.Items)}
	case f.Items.Type == schemas.Object:
		return schema.ListNestedAttribute{Computed: true, MarkdownDescription: f.Words(),
			NestedObject: schema.NestedAttributeObject{Attributes: computedAttributes(f.Items.Fields)}}
	case f.Unique:
		return schema.SetAttribute{Computed: true, MarkdownDescription: f.Words(), ElementType: attrType(f.Items)}
	}
	return schema.ListAttribute{Computed: true, MarkdownDescription: f.Words(), ElementType: attrType(f.Items)}
}

// dataSchema is what a document shows, so without what is write-only.
func dataSchema(catalogue *schemas.Catalogue, kind *schemas.Kind) data.Schema {
	name := nameField(catalogue, "The name to look up.")
	attributes := map[string]data.Attribute{
		"name":     data.StringAttribute{Required: true, MarkdownDescription: name.Description, Validators: []validator.String{check{name}}},
		"metadata": dataAttribute(catalogue.Metadata),
		"uid":      data.StringAttribute{Computed: true, MarkdownDescription: "Made by the service; tells a re-created resource from the old one."},
		"binding":  dataObject("The scarce things it was given.", kind.Binding.Fields),
		"status":   dataObject("What is true now.", kind.Status.Fields),
	}
	if !kind.Cluster {
		attributes["namespace"] = data.StringAttribute{Optional: true, Computed: true,
			MarkdownDescription: "The namespace to look in. Absent, it is the provider's.", Validators: []validator.String{check{name}}}
	}
	for _, field := range kind.Spec.Fields {
		if !field.WriteOnly {
			attributes[field.Name] = dataAttribute(field)
		}
	}
	return data.Schema{MarkdownDescription: kind.Description, Attributes: attributes}
}

func dataAttributes(fields []*schemas.Field) map[string]data.Attribute {
	attributes := map[string]data.Attribute{}
	for _, f := range fields {
		attributes[f.Name] = dataAttribute(f)
	}
	return attributes
}

func dataObject(words string, fields []*schemas.Field) data.SingleNestedAttribute {
	return data.SingleNestedAttribute{Computed: true, MarkdownDescription: words, Attributes: dataAttributes(fields)}
}

func dataAttribute(f *schemas.Field) data.Attribute {
	switch {
	case f.Type == schemas.String:
		return data.StringAttribute{Computed: true, MarkdownDescription: f.Words()}
	case f.Type == schemas.Integer:
		return data.Int64Attribute{Computed: true, MarkdownDescription: f.Words()}
	case f.Type == schemas.Boolean:
		return data.BoolAttribute{Computed: true, MarkdownDescription: f.Words()}
	case f.Type == schemas.Object:
		return dataObject(f.Words(), f.Fields)
	case f.Type == schemas.Map:
		return data.MapAttribute{Computed: true, MarkdownDescription: f.Words(), ElementType: attrType(f.Items)}
	case f.Items.Type == schemas.Object:
		return data.ListNestedAttribute{Computed: true, MarkdownDescription: f.Words(),
			NestedObject: data.NestedAttributeObject{Attributes: dataAttributes(f.Items.Fields)}}
	case f.Unique:
		return data.SetAttribute{Computed: true, MarkdownDescription: f.Words(), ElementType: attrType(f.Items)}
	}
	return data.ListAttribute{Computed: true, MarkdownDescription: f.Words(), ElementType: attrType(f.Items)}
}

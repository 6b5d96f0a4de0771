package provider

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// check refuses at plan time what the schema refuses, at the attribute that is wrong. It checks a value itself and its
// elements when they are scalars; objects inside have checks of their own.
type check struct{ field *schemas.Field }

func (c check) Description(context.Context) string         { return c.field.Words() }
func (c check) MarkdownDescription(context.Context) string { return c.field.Words() }

func (c check) ValidateString(ctx context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	c.validate(ctx, req.ConfigValue, req.Path, &resp.Diagnostics)
}

func (c check) ValidateInt64(ctx context.Context, req validator.Int64Request, resp *validator.Int64Response) {
	c.validate(ctx, req.ConfigValue, req.Path, &resp.Diagnostics)
}

func (c check) ValidateList(ctx context.Context, req validator.ListRequest, resp *validator.ListResponse) {
	c.validate(ctx, req.ConfigValue, req.Path, &resp.Diagnostics)
}

func (c check) ValidateSet(ctx context.Context, req validator.SetRequest, resp *validator.SetResponse) {
	c.validate(ctx, req.ConfigValue, req.Path, &resp.Diagnostics)
}

func (c check) ValidateMap(ctx context.Context, req validator.MapRequest, resp *validator.MapResponse) {
	c.validate(ctx, req.ConfigValue, req.Path, &resp.Diagnostics)
}

func (c check) validate(ctx context.Context, value attr.Value, at path.Path, diags *diag.Diagnostics) {
	raw, err := value.ToTerraformValue(ctx)
	if err != nil {
		diags.AddAttributeError(at, "Unreadable value", err.Error())
		return
	}
	decoded, err := decode(raw)
	if err != nil {
		diags.AddAttributeError(at, "Unreadable value", err.Error())
		return
	}
	complain(c.field, decoded, at, diags)
	if c.field.Items == nil || !c.field.Items.Scalar() {
		return
	}
	switch inside := decoded.(type) {
	case []any:
		for i, element := range inside {
			within := at // an element of a set has no index to point at
			if !c.field.Unique {
				within = at.AtListIndex(i)
			}
			complain(c.field.Items, element, within, diags)
		}
	case map[string]any:
		for key, element := range inside {
			complain(c.field.Items, element, at.AtMapKey(key), diags)
		}
	}
}

func complain(field *schemas.Field, value any, at path.Path, diags *diag.Diagnostics) {
	for _, fault := range field.Check(value) {
		diags.AddAttributeError(at, "Invalid value", fmt.Sprintf("It %s. (%s)", fault, strings.TrimSuffix(field.Words(), ".")))
	}
}

package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
)

// immutable plans a replacement when a field changes that cannot. Inside a list it compares with the element at the
// same index, and an element that was not there before replaces nothing: the framework's own RequiresReplace would.
type immutable struct{}

const immutableWords = "Changing it replaces the resource."

func (immutable) Description(context.Context) string         { return immutableWords }
func (immutable) MarkdownDescription(context.Context) string { return immutableWords }

func (immutable) PlanModifyString(ctx context.Context, req planmodifier.StringRequest, resp *planmodifier.StringResponse) {
	resp.RequiresReplace = changes(ctx, req.Plan, req.State, req.Path, req.PlanValue, req.StateValue)
}

func (immutable) PlanModifyInt64(ctx context.Context, req planmodifier.Int64Request, resp *planmodifier.Int64Response) {
	resp.RequiresReplace = changes(ctx, req.Plan, req.State, req.Path, req.PlanValue, req.StateValue)
}

func (immutable) PlanModifyBool(ctx context.Context, req planmodifier.BoolRequest, resp *planmodifier.BoolResponse) {
	resp.RequiresReplace = changes(ctx, req.Plan, req.State, req.Path, req.PlanValue, req.StateValue)
}

func (immutable) PlanModifyList(ctx context.Context, req planmodifier.ListRequest, resp *planmodifier.ListResponse) {
	resp.RequiresReplace = changes(ctx, req.Plan, req.State, req.Path, req.PlanValue, req.StateValue)
}

func (immutable) PlanModifySet(ctx context.Context, req planmodifier.SetRequest, resp *planmodifier.SetResponse) {
	resp.RequiresReplace = changes(ctx, req.Plan, req.State, req.Path, req.PlanValue, req.StateValue)
}

func (immutable) PlanModifyMap(ctx context.Context, req planmodifier.MapRequest, resp *planmodifier.MapResponse) {
	resp.RequiresReplace = changes(ctx, req.Plan, req.State, req.Path, req.PlanValue, req.StateValue)
}

func (immutable) PlanModifyObject(ctx context.Context, req planmodifier.ObjectRequest, resp *planmodifier.ObjectResponse) {
	resp.RequiresReplace = changes(ctx, req.Plan, req.State, req.Path, req.PlanValue, req.StateValue)
}

func changes(ctx context.Context, plan tfsdk.Plan, state tfsdk.State, at path.Path, planned, before attr.Value) bool {
	if plan.Raw.IsNull() || state.Raw.IsNull() || planned.Equal(before) {
		return false
	}
	parent := at.ParentPath()
	if len(parent.Steps()) == 0 {
		return true
	}
	var around attr.Value
	diags := state.GetAttribute(ctx, parent, &around)
	return !diags.HasError() && around != nil && !around.IsNull()
}

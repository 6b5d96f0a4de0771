package provider

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
)

// Update replaces what was seen, and nothing else: when somebody has changed it since, it is left as it is.
func (r *kindResource) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	if !r.reachable(&resp.Diagnostics) {
		return
	}
	w, err := r.wanted(req.Plan.Raw, req.Config.Raw)
	if err != nil {
		addError(&resp.Diagnostics, "Unreadable plan", err)
		return
	}
	match, err := r.seen(ctx, w.ref, req.Private)
	if err != nil {
		r.problems(&resp.Diagnostics, "look at", w.ref, err)
		return
	}
	if match == nil {
		r.moved(&resp.Diagnostics, "update", w.ref)
		return
	}
	doc, err := r.put(ctx, w, *match)
	if errors.Is(err, client.CodePreconditionFailed) {
		r.moved(&resp.Diagnostics, "update", w.ref)
		return
	}
	if err != nil {
		r.problems(&resp.Diagnostics, "update", w.ref, err)
		return
	}
	resp.Diagnostics.Append(recordPlanned(ctx, doc, req.Plan, resp)...)
	if resp.Diagnostics.HasError() {
		return
	}
	within, done := context.WithTimeout(ctx, r.cloud.patience)
	defer done()
	if ready := r.await(within, doc, &resp.Diagnostics); ready.ETag() == doc.ETag() {
		resp.Diagnostics.Append(recordPlanned(ctx, ready, req.Plan, resp)...)
	}
}

// recordPlanned records a document, but with the binding that was planned if one was: Terraform takes any other for a
// fault of the provider's. If it has moved all the same, the next read shows it.
func recordPlanned(ctx context.Context, doc *client.RawDocument, plan tfsdk.Plan, resp *resource.UpdateResponse) (diags diag.Diagnostics) {
	var planned types.Object
	diags.Append(plan.GetAttribute(ctx, path.Root("binding"), &planned)...)
	diags.Append(record(ctx, doc, &resp.State, resp.Private)...)
	if !diags.HasError() && !planned.IsUnknown() {
		diags.Append(resp.State.SetAttribute(ctx, path.Root("binding"), planned)...)
	}
	return diags
}

// moved says that somebody else was there in between.
func (r *kindResource) moved(diags *diag.Diagnostics, doing string, at client.Ref) {
	diags.AddError(fmt.Sprintf("Cannot %s %s %q: it has changed", doing, r.kind.Name, r.id(at)),
		"Somebody has changed it, or deleted it, since Terraform read it. It was left as it is: plan again to see it as it stands, then apply.")
}

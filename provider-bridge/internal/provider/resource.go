package provider

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// kindResource is a resource of any kind. What a create, an update and a delete do is in files of their own.
type kindResource struct{ subject }

var (
	_ resource.ResourceWithConfigure   = &kindResource{}
	_ resource.ResourceWithImportState = &kindResource{}
	_ resource.ResourceWithModifyPlan  = &kindResource{}
)

func (r *kindResource) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = r.typeName()
}

func (r *kindResource) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = resourceSchema(schemas.Embedded(), r.kind)
}

func (r *kindResource) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	r.configure(req.ProviderData)
}

// Read takes out of the state what is gone, what is going, and what another of the same name has replaced.
func (r *kindResource) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	before, err := object(req.State.Raw)
	if err != nil || !r.reachable(&resp.Diagnostics) {
		addError(&resp.Diagnostics, "Unreadable state", err)
		return
	}
	at := ref(before)
	doc, err := client.Get(ctx, r.cloud.client, r.raw(), at)
	switch {
	case errors.Is(err, client.CodeNotFound):
		resp.State.RemoveResource(ctx)
	case err != nil:
		r.problems(&resp.Diagnostics, "read", at, err)
	case doc.Condition(client.TypeDeleting).True():
		resp.State.RemoveResource(ctx)
	case at.UID != "" && at.UID != doc.UID:
		resp.Diagnostics.AddWarning("Replaced behind Terraform's back",
			"The "+r.kind.Name+" "+r.id(at)+" that Terraform made is gone; somebody has made another of the same name. Import that one, or delete it.")
		resp.State.RemoveResource(ctx)
	default:
		resp.Diagnostics.Append(record(ctx, doc, &resp.State, resp.Private)...)
	}
}

// ImportState takes namespace/name, or the name alone of a kind that lives in no namespace.
func (r *kindResource) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	namespace, name, two := strings.Cut(req.ID, "/")
	if r.kind.Cluster {
		namespace, name = "", req.ID
	}
	if name == "" || strings.Contains(name, "/") || !r.kind.Cluster && (!two || namespace == "") {
		resp.Diagnostics.AddError("Not an import id", "A "+r.kind.Name+" is imported as "+r.id(client.Ref{Namespace: "NAMESPACE", Name: "NAME"})+", not as "+req.ID+".")
		return
	}
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("name"), name)...)
	if !r.kind.Cluster {
		resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("namespace"), namespace)...)
	}
}

// ModifyPlan says where a new resource goes, and what an update cannot move.
func (r *kindResource) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	switch {
	case req.Plan.Raw.IsNull():
	case req.State.Raw.IsNull():
		resp.Diagnostics.Append(r.planNamespace(ctx, &resp.Plan)...)
	default:
		resp.Diagnostics.Append(r.planBinding(ctx, req.State, &resp.Plan)...)
	}
}

// planNamespace puts the provider's namespace where none is written, for what is created only.
func (r *kindResource) planNamespace(ctx context.Context, plan *tfsdk.Plan) (diags diag.Diagnostics) {
	var given types.String
	if r.kind.Cluster || r.cloud == nil {
		return nil
	}
	diags = plan.GetAttribute(ctx, path.Root("namespace"), &given)
	if diags.HasError() || !given.IsUnknown() || r.cloud.namespace.IsUnknown() {
		return diags
	}
	if r.cloud.namespace.ValueString() == "" {
		diags.AddAttributeError(path.Root("namespace"), "No namespace", "Set `namespace` here or in the provider's configuration, or WISP_NAMESPACE in the environment.")
		return diags
	}
	return plan.SetAttribute(ctx, path.Root("namespace"), r.cloud.namespace)
}

// planBinding keeps the binding in the plan of an update that cannot move it: otherwise every update would show it
// unknown, and everything that refers to an address would be planned anew.
func (r *kindResource) planBinding(ctx context.Context, state tfsdk.State, plan *tfsdk.Plan) (diags diag.Diagnostics) {
	for _, field := range r.kind.Spec.Fields {
		if !movesBinding(r.kind, field) {
			continue
		}
		var before, planned attr.Value
		diags.Append(state.GetAttribute(ctx, path.Root(field.Name), &before)...)
		diags.Append(plan.GetAttribute(ctx, path.Root(field.Name), &planned)...)
		if diags.HasError() || !planned.Equal(before) {
			return diags
		}
	}
	var binding types.Object
	diags.Append(state.GetAttribute(ctx, path.Root("binding"), &binding)...)
	if diags.HasError() || binding.IsNull() {
		return diags
	}
	diags.Append(plan.SetAttribute(ctx, path.Root("binding"), binding)...)
	return diags
}

// movesBinding is the rule which changes may move a binding. A binding mirrors the parts of a spec: an interface for
// each of `networks`, a node for `placement`. So a change of an object or of a list of objects may move it; a change of
// a scalar, of a list or set of scalars, or of metadata leaves it alone, and nothing moves where there is nothing.
func movesBinding(kind *schemas.Kind, field *schemas.Field) bool {
	hasParts := field.Type == schemas.Object || field.Type == schemas.Array && !field.Items.Scalar()
	return hasParts && len(kind.Binding.Fields) > 0
}

// private is where the ETag is kept: beside the state, seen by nobody, and not moved by a plan.
type private interface {
	GetKey(ctx context.Context, key string) ([]byte, diag.Diagnostics)
	SetKey(ctx context.Context, key string, value []byte) diag.Diagnostics
}

const etagKey = "etag"

// record puts a document into the state, and its ETag beside it.
func record(ctx context.Context, doc *client.RawDocument, state *tfsdk.State, beside private) (diags diag.Diagnostics) {
	value, err := shown(ctx, doc, state.Schema.Type().TerraformType(ctx))
	if err != nil {
		addError(&diags, "Unexpected document", err)
		return diags
	}
	state.Raw = value
	etag, err := json.Marshal(doc.ETag())
	addError(&diags, "Unexpected ETag", err)
	diags.Append(beside.SetKey(ctx, etagKey, etag)...)
	return diags
}

// seen is the ETag of what the caller of an update or delete has seen. Of a tainted resource there is none: then it is
// looked up, and must be of the very resource in the state. Nil without error: that resource is gone.
func (r *kindResource) seen(ctx context.Context, at client.Ref, beside private) (*client.Precondition, error) {
	stored, _ := beside.GetKey(ctx, etagKey)
	var etag string
	if len(stored) > 0 && json.Unmarshal(stored, &etag) == nil {
		return precondition(etag), nil
	}
	doc, err := client.Get(ctx, r.cloud.client, r.raw(), at)
	if errors.Is(err, client.CodeNotFound) || err == nil && doc.UID != at.UID {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return precondition(doc.ETag()), nil
}

func precondition(etag string) *client.Precondition {
	match := client.IfMatch(etag)
	return &match
}

func addError(diags *diag.Diagnostics, summary string, err error) {
	if err != nil {
		diags.AddError(summary, err.Error())
	}
}

package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
)

// wanted is a resource as planned, ready to be sent.
type wanted struct {
	ref    client.Ref
	intent client.Intent[json.RawMessage]
}

// wanted is the planned spec with what is write-only, which stands in the configuration alone.
func (r *kindResource) wanted(plan, config tftypes.Value) (*wanted, error) {
	planned, err := object(plan)
	if err != nil {
		return nil, err
	}
	configured, err := object(config)
	if err != nil {
		return nil, err
	}
	spec := map[string]any{}
	for _, field := range r.kind.Spec.Fields {
		value := planned[field.Name]
		if field.WriteOnly {
			value = configured[field.Name]
		}
		if value != nil {
			spec[field.Name] = value
		}
	}
	w := &wanted{ref: ref(planned)}
	if w.intent.Spec, err = json.Marshal(spec); err != nil {
		return nil, err
	}
	tags, err := json.Marshal(planned["metadata"])
	if err != nil {
		return nil, err
	}
	return w, json.Unmarshal(tags, &w.intent.Metadata)
}

// Create sets the state before it waits. An error after that would taint the resource, and the next apply would destroy
// what may be doing well; so from there on only a condition that says failed is one.
func (r *kindResource) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	if !r.reachable(&resp.Diagnostics) {
		return
	}
	w, err := r.wanted(req.Plan.Raw, req.Config.Raw)
	if err != nil {
		addError(&resp.Diagnostics, "Unreadable plan", err)
		return
	}
	if w.ref.Namespace == "" && !r.kind.Cluster {
		w.ref.Namespace = r.cloud.namespace.ValueString()
	}
	w.ref.UID = ""
	within, done := context.WithTimeout(ctx, r.cloud.patience)
	defer done()
	doc := r.place(within, w, &resp.Diagnostics)
	if doc == nil {
		return
	}
	resp.Diagnostics.Append(record(ctx, doc, &resp.State, resp.Private)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if ready := r.await(within, doc, &resp.Diagnostics); ready.ETag() == doc.ETag() {
		resp.Diagnostics.Append(record(ctx, ready, &resp.State, resp.Private)...)
	}
}

// place creates or adopts the resource; nil with an error among diags when it did neither.
func (r *kindResource) place(ctx context.Context, w *wanted, diags *diag.Diagnostics) *client.RawDocument {
	for ctx.Err() == nil {
		doc, err := r.put(ctx, w, client.IfAbsent)
		if err == nil {
			return doc
		}
		if errors.Is(err, client.CodePreconditionFailed) {
			there, look := client.Get(ctx, r.cloud.client, r.raw(), w.ref)
			switch {
			case errors.Is(look, client.CodeNotFound):
				continue
			case look != nil:
				r.problems(diags, "look at", w.ref, look)
				return nil
			case !there.Condition(client.TypeDeleting).True():
				return r.existing(w, there, diags)
			}
		} else if !errors.Is(err, client.CodeDeleting) {
			r.problems(diags, "create", w.ref, err)
			return nil
		}
		if _, err := client.Wait(ctx, r.cloud.client, r.raw(), w.ref, client.Absent); err != nil && ctx.Err() == nil {
			r.problems(diags, "wait for the end of", w.ref, err)
			return nil
		}
	}
	diags.AddError(fmt.Sprintf("Cannot create %s %q", r.kind.Name, r.id(w.ref)),
		"One of the same name is still being deleted, and the time was up or the wait interrupted. Nothing was created: apply again.")
	return nil
}

func (r *kindResource) put(ctx context.Context, w *wanted, precondition client.Precondition) (*client.RawDocument, error) {
	carried, done := firm(ctx)
	defer done()
	doc, err := client.Put(carried, r.cloud.client, r.raw(), w.ref, w.intent, precondition)
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// existing decides about what stands in the way of a create.
func (r *kindResource) existing(w *wanted, there *client.RawDocument, diags *diag.Diagnostics) *client.RawDocument {
	name := r.id(w.ref)
	different, err := r.kind.Differences(w.intent.Metadata, w.intent.Spec, there.Metadata, there.Spec)
	if err == nil && r.cloud.adopt && len(different) == 0 {
		r.cloud.adopted.Store(there.UID, true)
		diags.AddWarning(fmt.Sprintf("Adopted %s %q", r.kind.Name, name),
			"It was there already, with the spec and metadata that are wanted; Terraform manages it from now on, and destroy will delete it.")
		return there
	}
	detail := fmt.Sprintf("It was not made by this configuration. To manage it from here, put this beside the resource, with its own name for NAME:\n\n"+
		"import {\n  to = %s.NAME\n  id = %q\n}\n\n", r.typeName(), name)
	switch {
	case r.cloud.adopt:
		detail += "It is not adopted, because it differs from what is wanted in " + strings.Join(different, ", ") + "."
	case len(different) == 0:
		detail += "It has the spec and metadata that are wanted: the provider setting on_existing = \"adopt_identical\" would adopt it."
	}
	diags.AddError(fmt.Sprintf("The %s %q exists already", r.kind.Name, name), detail)
	return nil
}

// await waits until a document is ready and returns the last one seen of it.
func (r *kindResource) await(ctx context.Context, doc *client.RawDocument, diags *diag.Diagnostics) *client.RawDocument {
	last, err := client.Wait(ctx, r.cloud.client, r.raw(), doc.Ref(), client.Ready)
	if last == nil {
		last = doc
	}
	if err == nil {
		return last
	}
	name := fmt.Sprintf("%s %q", r.kind.Name, r.id(doc.Ref()))
	var failed *client.FailedError
	if errors.As(err, &failed) {
		diags.AddError("The "+name+" failed", fmt.Sprintf("%s (%s)", failed.Condition.Message, failed.Condition.Reason))
		return last
	}
	// What a wait that was cut short saw last may be old.
	carried, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer done()
	if now, look := client.Get(carried, r.cloud.client, r.raw(), doc.Ref()); look == nil && now.UID == doc.UID {
		last = now
	}
	why := err.Error()
	if ctx.Err() != nil {
		why = "the time was up, or the wait was interrupted"
	}
	diags.AddWarning("The "+name+" is not ready yet",
		fmt.Sprintf("It is recorded and in the state, but %s. Last seen: %s. Nothing needs to be done again; the next plan shows how it stands.", why, lastCondition(last)))
	return last
}

func lastCondition(doc *client.RawDocument) string {
	ready := doc.Condition(client.TypeReady)
	return strings.TrimRight(fmt.Sprintf("Ready is %s, %s: %s", ready.Status, ready.Reason, ready.Message), ".: ")
}

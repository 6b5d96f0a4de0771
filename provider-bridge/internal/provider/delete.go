package provider

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/resource"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
)

// inUsePatience is for what refers to it and is deleted by the same run, when nothing in the configuration says so.
const inUsePatience = 30 * time.Second

// Delete returns when the resource is absent.
func (r *kindResource) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	before, err := object(req.State.Raw)
	if err != nil || !r.reachable(&resp.Diagnostics) {
		addError(&resp.Diagnostics, "Unreadable state", err)
		return
	}
	at := ref(before)
	if r.refusesAdopted(ctx, at, resp) {
		return
	}
	match, err := r.seen(ctx, at, req.Private)
	if err != nil {
		r.problems(&resp.Diagnostics, "look at", at, err)
		return
	}
	if match == nil {
		return
	}
	within, done := context.WithTimeout(ctx, r.cloud.patience)
	defer done()
	err = r.retire(within, at, *match)
	if err == nil {
		_, err = client.Wait(within, r.cloud.client, r.raw(), at, client.Absent)
	}
	switch {
	case err == nil, errors.Is(err, client.CodeNotFound):
	case errors.Is(err, client.CodePreconditionFailed):
		r.moved(&resp.Diagnostics, "delete", at)
	case errors.Is(err, client.CodeInUse):
		resp.Diagnostics.AddError(fmt.Sprintf("Cannot delete %s %q: it is in use", r.kind.Name, r.id(at)),
			fmt.Sprintf("%s\n\nIf it is being replaced, let what refers to it be replaced with it, by this inside the other resource, with the name of this one for NAME:\n\n"+
				"lifecycle {\n  replace_triggered_by = [%s.NAME.uid]\n}", err, r.typeName()))
	case within.Err() != nil:
		resp.Diagnostics.AddError(fmt.Sprintf("The %s %q is still being deleted", r.kind.Name, r.id(at)),
			"The time was up, or the wait was interrupted. The deletion goes on by itself: the next plan shows how it stands.")
	default:
		r.problems(&resp.Diagnostics, "delete", at, err)
	}
}

// retire asks for the deletion, again for a while as long as something refers to it.
func (r *kindResource) retire(ctx context.Context, at client.Ref, match client.Precondition) error {
	for until := time.Now().Add(inUsePatience); ; {
		carried, done := firm(ctx)
		err := client.Delete(carried, r.cloud.client, r.raw(), at, match)
		done()
		if !errors.Is(err, client.CodeInUse) || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

const adoptedKey = "adopted_by_its_successor"

// refusesAdopted keeps create_before_destroy from destroying what it has just adopted: of one name there is one
// machine, so the new resource in the state and the old one are the same. The first time this is an error, since
// nothing was replaced; it also marks the old one, which a later run then forgets without touching the machine.
func (r *kindResource) refusesAdopted(ctx context.Context, at client.Ref, resp *resource.DeleteResponse) bool {
	if marked, _ := resp.Private.GetKey(ctx, adoptedKey); len(marked) > 0 {
		resp.Diagnostics.AddWarning(fmt.Sprintf("Forgot the old %s %q", r.kind.Name, r.id(at)),
			"An earlier run adopted it as its own successor, so it was not deleted.")
		return true
	}
	if _, adopted := r.cloud.adopted.Load(at.UID); !adopted {
		return false
	}
	resp.Diagnostics.Append(resp.Private.SetKey(ctx, adoptedKey, []byte("true"))...)
	resp.Diagnostics.AddError(fmt.Sprintf("Refusing to delete %s %q", r.kind.Name, r.id(at)),
		"This run has just adopted it as its own successor: with create_before_destroy, or beside another resource of the same name, "+
			"one thing would be adopted and then destroyed. Nothing was replaced. Take create_before_destroy away from it and plan again.")
	return true
}

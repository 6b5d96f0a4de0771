package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// Precondition makes a Put or Delete refuse itself with CodePreconditionFailed when the resource is not as expected.
type Precondition struct{ header, value string }

// IfAbsent lets a Put only create.
var IfAbsent = Precondition{"If-None-Match", "*"}

// IfMatch lets a Put or Delete touch only what the caller saw.
func IfMatch(etag string) Precondition { return Precondition{"If-Match", etag} }

func header(preconditions []Precondition) http.Header {
	h := http.Header{}
	for _, p := range preconditions {
		h.Set(p.header, p.value)
	}
	return h
}

// Get returns one document. What is absent, or not the caller's to know, is CodeNotFound.
func Get[S, B any, T Stateful](ctx context.Context, c *Client, k Kind[S, B, T], ref Ref) (*Document[S, B, T], error) {
	return get(ctx, c, k, ref, nil)
}

func get[S, B any, T Stateful](ctx context.Context, c *Client, k Kind[S, B, T], ref Ref, query url.Values) (*Document[S, B, T], error) {
	doc := &Document[S, B, T]{}
	if err := c.call(ctx, http.MethodGet, k.path(ref), query, nil, nil, doc); err != nil {
		return nil, err
	}
	return doc, nil
}

// Put creates or replaces. The same intent again changes nothing and succeeds.
//
// When an answer is lost, Put asks again; should its own first attempt make its precondition fail then, it looks: a
// document identical to the intent counts as its own success (of a key, the Token is lost with the answer).
func Put[S, B any, T Stateful](ctx context.Context, c *Client, k Kind[S, B, T], ref Ref, intent Intent[S], preconditions ...Precondition) (*Document[S, B, T], error) {
	if intent.Metadata == nil {
		intent.Metadata = map[string]string{}
	}
	doc := &Document[S, B, T]{}
	noticed, lost := noticing(ctx)
	err := c.call(noticed, http.MethodPut, k.path(ref), nil, header(preconditions), intent, doc)
	if err == nil {
		return doc, nil
	}
	if *lost && errors.Is(err, CodePreconditionFailed) {
		if own := settle(ctx, c, k, ref, intent, preconditions); own != nil {
			return own, nil
		}
	}
	return nil, err
}

// settle returns the document when it is what a Put whose answer was lost has left there.
func settle[S, B any, T Stateful](ctx context.Context, c *Client, k Kind[S, B, T], ref Ref, intent Intent[S], preconditions []Precondition) *Document[S, B, T] {
	raw, err := Get(ctx, c, RawKind{Name: k.Name, Plural: k.Plural, Cluster: k.Cluster}, ref)
	if err != nil || raw.Condition(TypeDeleting).True() {
		return nil
	}
	for _, p := range preconditions {
		if p.header == "If-Match" && !strings.HasPrefix(p.value, `"`+raw.UID+"-") {
			return nil
		}
	}
	spec, err := json.Marshal(intent.Spec)
	if err != nil {
		return nil
	}
	known := schemas.Embedded().Kind(k.Name)
	if known == nil {
		return nil
	}
	different, err := known.Differences(intent.Metadata, spec, raw.Metadata, raw.Spec)
	if err != nil || len(different) > 0 {
		return nil
	}
	doc, err := Get(ctx, c, k, ref)
	if err != nil || doc.ETag() != raw.ETag() {
		return nil
	}
	return doc
}

// Delete asks for a resource to be taken down, and succeeds at once, also when there is none or it is going already:
// wait for Absent to know it gone. While something refers to it, it is CodeInUse.
func Delete[S, B any, T Stateful](ctx context.Context, c *Client, k Kind[S, B, T], ref Ref, preconditions ...Precondition) error {
	err := c.call(ctx, http.MethodDelete, k.path(ref), nil, header(preconditions), nil, nil)
	if errors.Is(err, CodePreconditionFailed) { // being deleted has changed it, perhaps by an attempt of ours
		doc, look := Get(ctx, c, k, ref)
		if errors.Is(look, CodeNotFound) || look == nil && doc.Condition(TypeDeleting).True() {
			return nil
		}
	}
	return err
}

// Page is some of a kind's documents.
type Page[D any] struct {
	Items    []D   `json:"items"`
	Revision int64 `json:"revision"`
	// Next is what Selection.After takes for the page after this one; empty on the last.
	Next string `json:"next"`
}

// Selection says which documents List returns; zero means the first page of all.
type Selection struct {
	Limit    int
	After    string
	Metadata map[string]string
}

// List returns one page of a namespace's documents of a kind.
func List[S, B any, T Stateful](ctx context.Context, c *Client, k Kind[S, B, T], namespace string, selection Selection) (*Page[Document[S, B, T]], error) {
	query := url.Values{}
	if selection.Limit > 0 {
		query.Set("limit", strconv.Itoa(selection.Limit))
	}
	if selection.After != "" {
		query.Set("after", selection.After)
	}
	for key, value := range selection.Metadata {
		query.Set("metadata."+key, value)
	}
	page := &Page[Document[S, B, T]]{}
	path := strings.TrimSuffix(k.path(Ref{Namespace: namespace}), "/")
	if err := c.call(ctx, http.MethodGet, path, query, nil, nil, page); err != nil {
		return nil, err
	}
	return page, nil
}

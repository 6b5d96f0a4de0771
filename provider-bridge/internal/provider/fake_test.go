package provider

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// fakeAPI keeps documents as the service does, as far as a provider can tell: preconditions, ETags, deletion in two
// steps. What the service may do at a bad moment is up to the test, by the two hooks.
type fakeAPI struct {
	*httptest.Server
	mu   sync.Mutex
	docs map[string]*fakeDoc
	made int
	log  []string
	// before may answer a request in the service's place: true when it has.
	before func(w http.ResponseWriter, r *http.Request) bool
	// after comes when a request is carried out and not answered yet; it may panic with http.ErrAbortHandler.
	after func(r *http.Request)
	// conditions are those of every document that is not being deleted.
	conditions []map[string]any
	// binding is that of every document put from now on.
	binding map[string]any
}

type fakeDoc struct {
	Kind       string            `json:"kind"`
	Namespace  string            `json:"namespace,omitempty"`
	Name       string            `json:"name"`
	UID        string            `json:"uid"`
	Generation int               `json:"generation"`
	CreatedAt  string            `json:"created_at"`
	UpdatedAt  string            `json:"updated_at"`
	Metadata   map[string]string `json:"metadata"`
	Spec       map[string]any    `json:"spec"`
	Binding    map[string]any    `json:"binding"`
	Status     map[string]any    `json:"status"`
	Token      string            `json:"token,omitempty"`
	hidden     map[string]any
	retired    bool
	// lingers is how many more GETs still find it after its deletion.
	lingers int
}

func (d *fakeDoc) etag() string { return fmt.Sprintf(`"%s-%d"`, d.UID, d.Generation) }

func condition(kind, status, reason, message string) map[string]any {
	return map[string]any{"type": kind, "status": status, "reason": reason, "message": message, "since": "2026-11-22T10:00:00Z"}
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{docs: map[string]*fakeDoc{}, binding: map[string]any{},
		conditions: []map[string]any{condition("Ready", "True", "Running", "")}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	entry := r.Method + " " + r.URL.Path
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if value := r.Header.Get(name); value != "" {
			entry += " " + name + ": " + value
		}
	}
	f.log = append(f.log, entry)
	if f.before != nil && f.before(w, r) {
		return
	}
	status, body := f.carryOut(r)
	if f.after != nil {
		f.after(r)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refused(status int, code string, faults ...map[string]string) (int, any) {
	return status, map[string]any{"type": "about:blank", "title": code, "status": status, "detail": "It is " + code + ".",
		"code": code, "errors": faults, "retryable": false, "request_id": "r1"}
}

func (f *fakeAPI) carryOut(r *http.Request) (int, any) {
	doc := f.docs[r.URL.Path]
	if doc != nil && r.Header.Get("If-None-Match") == "*" && !doc.retired {
		return refused(412, "precondition_failed")
	}
	if match := r.Header.Get("If-Match"); match != "" && (doc == nil && r.Method == "PUT" || doc != nil && match != doc.etag()) {
		return refused(412, "precondition_failed")
	}
	switch r.Method {
	case "PUT":
		if doc != nil && doc.retired {
			return refused(409, "deleting")
		}
		return f.put(r, doc)
	case "DELETE":
		if doc != nil && !doc.retired {
			doc.retired, doc.Generation = true, doc.Generation+1
		}
		return 204, nil
	}
	return f.get(r, doc)
}

func (f *fakeAPI) get(r *http.Request, doc *fakeDoc) (int, any) {
	if doc != nil && doc.retired {
		if doc.lingers--; doc.lingers < 0 {
			delete(f.docs, r.URL.Path)
			doc = nil
		}
	}
	if doc == nil {
		return refused(404, "not_found")
	}
	conditions := f.conditions
	if doc.retired {
		conditions = []map[string]any{condition("Deleting", "True", "TakingDown", "")}
	}
	doc.Status = map[string]any{"observed_generation": doc.Generation, "conditions": conditions}
	return 200, doc
}

func (f *fakeAPI) put(r *http.Request, doc *fakeDoc) (int, any) {
	var body struct {
		Metadata map[string]string `json:"metadata"`
		Spec     map[string]any    `json:"spec"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return refused(400, "malformed")
	}
	status := 200
	if doc == nil {
		f.made++
		steps := strings.Split(strings.TrimPrefix(r.URL.Path, "/v1/"), "/")
		doc = &fakeDoc{Name: steps[len(steps)-1], UID: fmt.Sprintf("00000000-0000-4000-8000-%012d", f.made),
			CreatedAt: "2026-11-22T10:00:00Z", UpdatedAt: "2026-11-22T10:00:00Z", hidden: map[string]any{}}
		doc.Kind = strings.TrimSuffix(steps[len(steps)-2], "s")
		if len(steps) == 4 {
			doc.Namespace = steps[1]
		}
		f.docs[r.URL.Path], status = doc, 201
	}
	for _, field := range schemas.Embedded().Kind(doc.Kind).Spec.Fields {
		if value, ok := body.Spec[field.Name]; ok && field.WriteOnly {
			doc.hidden[field.Name] = value
			delete(body.Spec, field.Name)
		}
	}
	doc.Generation++
	doc.Metadata, doc.Spec, doc.Binding = body.Metadata, body.Spec, f.binding
	shown := *doc
	if doc.Kind == "key" {
		shown.Token = "wisp_0123_planted-secret"
	}
	_, _ = f.get(r, doc)
	shown.Status = doc.Status
	return status, &shown
}

// asked counts the requests whose log entry has all these words.
func (f *fakeAPI) asked(words ...string) (count int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, entry := range f.log {
		all := true
		for _, word := range words {
			all = all && strings.Contains(entry, word)
		}
		if all {
			count++
		}
	}
	return count
}

// change does something to a document, as somebody else would.
func (f *fakeAPI) change(path string, how func(*fakeDoc)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f.docs[path])
}

func (f *fakeAPI) hooks(before func(http.ResponseWriter, *http.Request) bool, after func(*http.Request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

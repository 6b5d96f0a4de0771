package client

import (
	"encoding/json"
	"net/url"
	"strconv"
	"time"
)

// Ref names one resource. Kinds that live in no namespace ignore Namespace.
type Ref struct {
	Namespace, Name string
	// UID, where given, says which resource of that name Wait waits for: when another has taken its place, it is gone.
	UID string
}

// Kind says where the documents of a kind are and what is in their three sections.
type Kind[S, B any, T Stateful] struct {
	Name, Plural string
	Cluster      bool
}

func (k Kind[S, B, T]) path(ref Ref) string {
	if k.Cluster {
		return "/v1/" + k.Plural + "/" + url.PathEscape(ref.Name)
	}
	return "/v1/namespaces/" + url.PathEscape(ref.Namespace) + "/" + k.Plural + "/" + url.PathEscape(ref.Name)
}

// Intent is what the caller may say about a resource.
type Intent[S any] struct {
	Metadata map[string]string `json:"metadata"`
	Spec     S                 `json:"spec"`
}

// Document is a resource as it is shown.
type Document[S, B any, T Stateful] struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// UID is made by the service; it tells a re-created resource from the old one.
	UID string `json:"uid"`
	// Generation counts the changes of metadata and spec.
	Generation int64             `json:"generation"`
	CreatedAt  time.Time         `json:"created_at"`
	UpdatedAt  time.Time         `json:"updated_at"`
	Metadata   map[string]string `json:"metadata"`
	// Spec is what was asked for, with the declared defaults.
	Spec S `json:"spec"`
	// Binding is the scarce things it was given.
	Binding B `json:"binding"`
	// Status is what is true now.
	Status T `json:"status"`
	// Token is a new key, whole: only in the answer to the Put that made or rotated it.
	Token string `json:"token,omitempty"`
}

// Ref names this very resource.
func (d *Document[S, B, T]) Ref() Ref {
	return Ref{Namespace: d.Namespace, Name: d.Name, UID: d.UID}
}

// ETag is what IfMatch takes. It moves with metadata and spec, not with binding and status.
func (d *Document[S, B, T]) ETag() string {
	return strconv.Quote(d.UID + "-" + strconv.FormatInt(d.Generation, 10))
}

// Condition returns the condition of that type, or one whose status is Unknown.
func (d *Document[S, B, T]) Condition(kind string) Condition {
	for _, condition := range d.Status.state().Conditions {
		if condition.Type == kind {
			return condition
		}
	}
	return Condition{Type: kind, Status: "Unknown"}
}

// Current says whether the status speaks of what is asked for now, not of what was asked for before.
func (d *Document[S, B, T]) Current() bool {
	return d.Status.state().ObservedGeneration == d.Generation
}

// The types of conditions.
const (
	// TypeReady: what was asked for is there.
	TypeReady = "Ready"
	// TypeFailed: it will not come about without a change.
	TypeFailed = "Failed"
	// TypeDeleting: it is being taken down.
	TypeDeleting = "Deleting"
)

// Condition is one thing that is, is not, or is not known to be so.
type Condition struct {
	Type string `json:"type"`
	// Status is True, False or Unknown.
	Status string `json:"status"`
	// Reason is one word for programs, Message a sentence for people.
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// True says whether it is so.
func (c Condition) True() bool { return c.Status == "True" }

// Status is the part of a status that all kinds share.
type Status struct {
	// ObservedGeneration is the generation that the conditions speak of.
	ObservedGeneration int64 `json:"observed_generation"`
	// Conditions are sorted worst first.
	Conditions []Condition `json:"conditions"`
}

// Stateful is any status: each embeds Status.
type Stateful interface{ state() Status }

func (s Status) state() Status { return s }

// RawKind gives access to a kind whose types are not known when the program is built.
type RawKind = Kind[json.RawMessage, json.RawMessage, RawStatus]

// RawDocument is a document of a RawKind.
type RawDocument = Document[json.RawMessage, json.RawMessage, RawStatus]

// RawStatus is a status whose further fields are left as JSON.
type RawStatus struct {
	Status
	JSON json.RawMessage
}

// UnmarshalJSON reads the shared part and keeps the whole.
func (r *RawStatus) UnmarshalJSON(data []byte) error {
	r.JSON = append(json.RawMessage(nil), data...)
	return json.Unmarshal(data, &r.Status)
}

package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// subject is one kind, in the cloud of one provider configuration: what its resource and its data source share.
type subject struct {
	kind  *schemas.Kind
	cloud *cloud
}

// typeName is what the kind is called in Terraform.
func (s *subject) typeName() string {
	return "wisp_" + strings.ReplaceAll(s.kind.Name, "-", "_")
}

// raw is what the kind is called in the client.
func (s *subject) raw() client.RawKind {
	return client.RawKind{Name: s.kind.Name, Plural: s.kind.Plural, Cluster: s.kind.Cluster}
}

// id is how a resource is spelled to import it.
func (s *subject) id(ref client.Ref) string {
	if s.kind.Cluster {
		return ref.Name
	}
	return ref.Namespace + "/" + ref.Name
}

// configure takes the provider's configuration over. There is none while Terraform only validates.
func (s *subject) configure(data any) {
	s.cloud, _ = data.(*cloud)
}

// reachable says, as an error of its own, when the provider is not configured yet.
func (s *subject) reachable(diags *diag.Diagnostics) bool {
	if s.cloud != nil && s.cloud.client != nil {
		return true
	}
	diags.AddError("The cloud is not known yet",
		"The provider's endpoint or token comes from something that does not exist yet. Apply that first, with -target.")
	return false
}

// ref reads name, namespace and uid out of a decoded configuration, plan or state.
func ref(object map[string]any) client.Ref {
	text := func(name string) string {
		value, _ := object[name].(string)
		return value
	}
	return client.Ref{Namespace: text("namespace"), Name: text("name"), UID: text("uid")}
}

// object decodes a whole configuration, plan or state; nil when that is null.
func object(raw tftypes.Value) (map[string]any, error) {
	decoded, err := decode(raw)
	if err != nil {
		return nil, err
	}
	whole, _ := decoded.(map[string]any)
	return whole, nil
}

// shown is a document as the attributes of a resource or data source, which says by its type which of them it has. A
// key's token is not among them.
func shown(ctx context.Context, doc *client.RawDocument, kind tftypes.Type) (tftypes.Value, error) {
	whole := map[string]any{}
	spec, err := section(doc.Spec)
	if err != nil {
		return tftypes.Value{}, err
	}
	for name, value := range spec {
		whole[name] = value
	}
	whole["name"], whole["namespace"], whole["uid"] = doc.Name, doc.Namespace, doc.UID
	tags := map[string]any{}
	for key, value := range doc.Metadata {
		tags[key] = value
	}
	whole["metadata"] = tags
	if whole["binding"], err = section(doc.Binding); err != nil {
		return tftypes.Value{}, err
	}
	if whole["status"], err = section(doc.Status.JSON); err != nil {
		return tftypes.Value{}, err
	}
	return encode(whole, kind)
}

func section(data json.RawMessage) (map[string]any, error) {
	if len(data) == 0 {
		return map[string]any{}, nil
	}
	decoded, err := schemas.Decode(data)
	if err != nil {
		return nil, err
	}
	parts, ok := decoded.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("the service answered a %T where an object belongs", decoded)
	}
	return parts, nil
}

// firm is a context that outlives an interrupt: a request that changes something is carried through to its answer,
// since otherwise nobody would know what came of it.
func firm(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
}

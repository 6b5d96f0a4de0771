package provider

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// terraform drives the provider over the plugin protocol as Terraform's core does, in this process: so a test can look
// at a plan, interrupt an apply, or restart the provider.
type terraform struct {
	t        *testing.T
	server   tfprotov6.ProviderServer
	schemas  *tfprotov6.GetProviderSchemaResponse
	settings map[string]any
}

func startProvider(t *testing.T, api *fakeAPI, settings map[string]any) *terraform {
	t.Helper()
	t.Setenv("WISP_NAMESPACE", "")
	given := map[string]any{"endpoint": api.URL, "token": "wisp_k_s", "namespace": "web"}
	for name, value := range settings {
		given[name] = value
	}
	tf := &terraform{t: t, settings: given}
	tf.restart(10 * time.Second)
	return tf
}

// restart is a new process of the provider.
func (tf *terraform) restart(patience time.Duration) {
	tf.t.Helper()
	server, err := providerserver.NewProtocol6WithError(&wisp{version: "test", patience: patience})()
	tf.must(err)
	tf.server = server
	tf.schemas, err = server.GetProviderSchema(context.Background(), &tfprotov6.GetProviderSchemaRequest{})
	tf.must(err)
	tf.clean(tf.schemas.Diagnostics)
	config := tf.value(tf.settings, tf.schemas.Provider.ValueType())
	resp, err := server.ConfigureProvider(context.Background(), &tfprotov6.ConfigureProviderRequest{TerraformVersion: "1.11.4", Config: config})
	tf.must(err)
	tf.clean(resp.Diagnostics)
}

func (tf *terraform) must(err error) {
	tf.t.Helper()
	if err != nil {
		tf.t.Fatal(err)
	}
}

func (tf *terraform) clean(diags []*tfprotov6.Diagnostic) {
	tf.t.Helper()
	for _, d := range diags {
		if d.Severity == tfprotov6.DiagnosticSeverityError {
			tf.t.Fatalf("unexpected error: %s\n%s", d.Summary, d.Detail)
		}
	}
}

func (tf *terraform) value(decoded any, kind tftypes.Type) *tfprotov6.DynamicValue {
	tf.t.Helper()
	value, err := encode(decoded, kind)
	tf.must(err)
	return tf.dynamic(value)
}

func (tf *terraform) dynamic(value tftypes.Value) *tfprotov6.DynamicValue {
	tf.t.Helper()
	dynamic, err := tfprotov6.NewDynamicValue(value.Type(), value)
	tf.must(err)
	return &dynamic
}

// managed is one resource in a state.
type managed struct {
	tf      *terraform
	name    string
	kind    tftypes.Object
	state   tftypes.Value
	private []byte
	tainted bool
}

func (tf *terraform) resource(name string) *managed {
	kind := tf.schemas.ResourceSchemas[name].ValueType().(tftypes.Object)
	return &managed{tf: tf, name: name, kind: kind, state: tftypes.NewValue(kind, nil)}
}

// plan is what PlanResourceChange answers, after what Terraform's core does before it.
func (m *managed) plan(config map[string]any) *tfprotov6.PlanResourceChangeResponse {
	m.tf.t.Helper()
	configured, err := encode(config, m.kind)
	m.tf.must(err)
	resp, err := m.tf.server.PlanResourceChange(context.Background(), &tfprotov6.PlanResourceChangeRequest{TypeName: m.name,
		PriorState: m.tf.dynamic(m.state), ProposedNewState: m.tf.dynamic(m.proposed(configured)),
		Config: m.tf.dynamic(configured), PriorPrivate: m.private})
	m.tf.must(err)
	return resp
}

// proposed is the configuration with what is computed and not configured taken from the state.
func (m *managed) proposed(config tftypes.Value) tftypes.Value {
	var configured, before map[string]tftypes.Value
	m.tf.must(config.Copy().As(&configured)) // As lends the value's own map
	if !m.state.IsNull() {
		m.tf.must(m.state.As(&before))
	}
	for _, attribute := range m.tf.schemas.ResourceSchemas[m.name].Block.Attributes {
		if was, ok := before[attribute.Name]; ok && attribute.Computed && configured[attribute.Name].IsNull() {
			configured[attribute.Name] = was
		}
		if attribute.WriteOnly {
			configured[attribute.Name] = tftypes.NewValue(attribute.ValueType(), nil)
		}
	}
	return tftypes.NewValue(m.kind, configured)
}

// apply plans and applies; what must be replaced is destroyed first.
func (m *managed) apply(ctx context.Context, config map[string]any) []*tfprotov6.Diagnostic {
	m.tf.t.Helper()
	planned := m.plan(config)
	m.tf.clean(planned.Diagnostics)
	if !m.state.IsNull() && (m.tainted || len(planned.RequiresReplace) > 0) {
		m.private = nil // as Terraform's core does for what it replaces
		m.tf.clean(m.destroy(ctx))
		planned = m.plan(config)
	}
	configured, err := encode(config, m.kind)
	m.tf.must(err)
	resp, err := m.tf.server.ApplyResourceChange(ctx, &tfprotov6.ApplyResourceChangeRequest{TypeName: m.name,
		PriorState: m.tf.dynamic(m.state), PlannedState: planned.PlannedState, PlannedPrivate: planned.PlannedPrivate,
		Config: m.tf.dynamic(configured)})
	m.tf.must(err)
	creating := m.state.IsNull()
	m.take(resp.NewState, resp.Private)
	m.tainted = creating && hasError(resp.Diagnostics) && !m.state.IsNull()
	if !hasError(resp.Diagnostics) {
		m.mustKeep(planned.PlannedState)
	}
	return resp.Diagnostics
}

// mustKeep fails the test as Terraform would, with "inconsistent result after apply".
func (m *managed) mustKeep(planned *tfprotov6.DynamicValue) {
	m.tf.t.Helper()
	promised, err := planned.Unmarshal(m.kind)
	m.tf.must(err)
	var before, after map[string]tftypes.Value
	m.tf.must(promised.As(&before))
	m.tf.must(m.state.As(&after))
	for name, value := range before {
		if value.IsFullyKnown() && !value.Equal(after[name]) {
			m.tf.t.Errorf("%s was planned as %s and became %s", name, value, after[name])
		}
	}
}

func (m *managed) destroy(ctx context.Context) []*tfprotov6.Diagnostic {
	m.tf.t.Helper()
	null := m.tf.dynamic(tftypes.NewValue(m.kind, nil))
	resp, err := m.tf.server.ApplyResourceChange(ctx, &tfprotov6.ApplyResourceChangeRequest{TypeName: m.name,
		PriorState: m.tf.dynamic(m.state), PlannedState: null, PlannedPrivate: m.private, Config: null})
	m.tf.must(err)
	m.take(resp.NewState, resp.Private)
	return resp.Diagnostics
}

func (m *managed) refresh() []*tfprotov6.Diagnostic {
	m.tf.t.Helper()
	resp, err := m.tf.server.ReadResource(context.Background(), &tfprotov6.ReadResourceRequest{TypeName: m.name,
		CurrentState: m.tf.dynamic(m.state), Private: m.private})
	m.tf.must(err)
	if !hasError(resp.Diagnostics) {
		m.take(resp.NewState, resp.Private)
	}
	return resp.Diagnostics
}

func (m *managed) take(state *tfprotov6.DynamicValue, private []byte) {
	m.tf.t.Helper()
	var err error
	m.state, err = state.Unmarshal(m.kind)
	m.tf.must(err)
	m.private = private
}

// shows is the state as decoded JSON.
func (m *managed) shows() map[string]any {
	m.tf.t.Helper()
	decoded, err := object(m.state)
	m.tf.must(err)
	return decoded
}

func hasError(diags []*tfprotov6.Diagnostic) bool {
	for _, d := range diags {
		if d.Severity == tfprotov6.DiagnosticSeverityError {
			return true
		}
	}
	return false
}

package provider

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
)

var ctx = context.Background()

const lanPath = "/v1/namespaces/web/networks/lan"

func lan(changes ...map[string]any) map[string]any {
	config := map[string]any{"name": "lan", "cidr": "10.1.0.0/24"}
	for _, change := range changes {
		for name, value := range change {
			config[name] = value
		}
	}
	return config
}

func mustSay(t *testing.T, diags []*tfprotov6.Diagnostic, severity tfprotov6.DiagnosticSeverity, words ...string) {
	t.Helper()
	for _, d := range diags {
		found := d.Severity == severity
		for _, word := range words {
			found = found && strings.Contains(d.Summary+"\n"+d.Detail, word)
		}
		if found {
			return
		}
	}
	for _, d := range diags {
		t.Logf("%s: %s\n%s", d.Severity, d.Summary, d.Detail)
	}
	t.Fatalf("no %s says %q", severity, words)
}

func mustBeQuiet(t *testing.T, diags []*tfprotov6.Diagnostic) {
	t.Helper()
	for _, d := range diags {
		t.Fatalf("%s: %s\n%s", d.Severity, d.Summary, d.Detail)
	}
}

func TestACreateIsCreateOnlyAndPlansEmptyAfterwards(t *testing.T) {
	api := newFakeAPI(t)
	network := startProvider(t, api, nil).resource("wisp_network")
	mustBeQuiet(t, network.apply(ctx, lan(map[string]any{"metadata": map[string]any{"role": "front"}})))
	want := map[string]any{"name": "lan", "namespace": "web", "uid": "00000000-0000-4000-8000-000000000001", "cidr": "10.1.0.0/24",
		"dhcp": true, "nat": true, "dns_servers": []any{}, "metadata": map[string]any{"role": "front"}, "binding": map[string]any{}}
	if got := network.shows(); !reflect.DeepEqual(got, want) {
		t.Errorf("state is %v", got)
	}
	if api.asked("PUT", lanPath, "If-None-Match: *") != 1 {
		t.Errorf("requests: %v", api.log)
	}
	mustBeQuiet(t, network.refresh())
	planned, err := network.plan(lan(map[string]any{"metadata": map[string]any{"role": "front"}})).PlannedState.Unmarshal(network.kind)
	if err != nil || !planned.Equal(network.state) {
		t.Errorf("the second plan is not empty: %v", planned)
	}
}

func TestAWaitThatRunsOutIsAWarningAndTheStateStays(t *testing.T) {
	api := newFakeAPI(t)
	api.conditions = []map[string]any{condition("Ready", "False", "ImageMissing", "It waits for its image.")}
	tf := startProvider(t, api, nil)
	tf.restart(time.Second)
	network := tf.resource("wisp_network")
	diags := network.apply(ctx, lan())
	mustSay(t, diags, tfprotov6.DiagnosticSeverityWarning, "not ready yet", "It waits for its image.")
	if hasError(diags) || network.state.IsNull() || network.tainted {
		t.Error("what was made would be destroyed and made again")
	}
}

func TestAnInterruptedWaitIsAWarningAndTheStateStays(t *testing.T) {
	api := newFakeAPI(t)
	api.conditions = []map[string]any{condition("Ready", "False", "Starting", "It boots.")}
	network := startProvider(t, api, nil).resource("wisp_network")
	interrupted, interrupt := context.WithCancel(ctx)
	api.hooks(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("wait") == "ready" {
			interrupt()
		}
		return false
	}, nil)
	diags := network.apply(interrupted, lan())
	mustSay(t, diags, tfprotov6.DiagnosticSeverityWarning, "interrupted", "Ready is")
	if hasError(diags) || network.state.IsNull() {
		t.Error("the interrupt lost the state")
	}
}

func TestAnInterruptDuringThePutDoesNotLoseTheState(t *testing.T) {
	api := newFakeAPI(t)
	network := startProvider(t, api, nil).resource("wisp_network")
	interrupted, interrupt := context.WithCancel(ctx)
	api.hooks(nil, func(r *http.Request) {
		if r.Method == "PUT" {
			interrupt()
			time.Sleep(50 * time.Millisecond) // the answer comes after the interrupt
		}
	})
	diags := network.apply(interrupted, lan())
	if hasError(diags) || network.state.IsNull() {
		t.Errorf("the interrupt lost the state: %v", diags)
	}
}

func TestAFailedConditionIsAnErrorWithItsReason(t *testing.T) {
	api := newFakeAPI(t)
	api.conditions = []map[string]any{condition("Failed", "True", "DigestMismatch", "The image is not what was declared."),
		condition("Ready", "False", "DigestMismatch", "")}
	network := startProvider(t, api, nil).resource("wisp_network")
	mustSay(t, network.apply(ctx, lan()), tfprotov6.DiagnosticSeverityError, "failed", "The image is not what was declared.", "DigestMismatch")
	if network.state.IsNull() || !network.tainted {
		t.Error("Terraform would not know of it")
	}
}

func TestATaintedResourceIsDestroyedWithoutAStoredETagAndMadeAnew(t *testing.T) {
	api := newFakeAPI(t)
	api.conditions = []map[string]any{condition("Failed", "True", "Broken", "")}
	network := startProvider(t, api, nil).resource("wisp_network")
	network.apply(ctx, lan())
	api.conditions = []map[string]any{condition("Ready", "True", "Running", "")}
	mustBeQuiet(t, network.apply(ctx, lan()))
	if network.shows()["uid"] != "00000000-0000-4000-8000-000000000002" {
		t.Error("it is still the failed one")
	}
}

func TestAWaitOutlivesARestartOfTheService(t *testing.T) {
	api := newFakeAPI(t)
	network := startProvider(t, api, nil).resource("wisp_network")
	down := 3
	api.hooks(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("wait") != "" && down > 0 {
			down--
			panic(http.ErrAbortHandler)
		}
		return false
	}, nil)
	mustBeQuiet(t, network.apply(ctx, lan()))
}

func TestAfterALostAnswerTheIdenticalDocumentIsOurs(t *testing.T) {
	api := newFakeAPI(t)
	instance := startProvider(t, api, nil).resource("wisp_instance")
	lost := false
	api.hooks(nil, func(r *http.Request) {
		if r.Method == "PUT" && !lost {
			lost = true
			panic(http.ErrAbortHandler)
		}
	})
	config := map[string]any{"name": "vm", "cpus": number("2"), "memory_mib": number("512"),
		"disks": []any{map[string]any{"size_gib": number("8")}}, "user_data": "#!/bin/sh"}
	mustBeQuiet(t, instance.apply(ctx, config))
	if api.made != 1 || api.asked("PUT") != 2 {
		t.Errorf("%d made by %v", api.made, api.log)
	}
}

func TestWhatExistsIsAnErrorThatShowsTheImportBlock(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, nil)
	mustBeQuiet(t, tf.resource("wisp_network").apply(ctx, lan()))
	other := tf.resource("wisp_network")
	mustSay(t, other.apply(ctx, lan()), tfprotov6.DiagnosticSeverityError, `"web/lan" exists already`,
		"import {\n  to = wisp_network.NAME\n  id = \"web/lan\"\n}", "adopt_identical")
	if !other.state.IsNull() {
		t.Error("it is in the state all the same")
	}
}

func TestWhatIsIdenticalIsAdoptedIfSoSetAndSaysSo(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, map[string]any{"on_existing": "adopt_identical"})
	mustBeQuiet(t, tf.resource("wisp_network").apply(ctx, lan()))
	tf.restart(10 * time.Second)
	other := tf.resource("wisp_network")
	diags := other.apply(ctx, lan())
	mustSay(t, diags, tfprotov6.DiagnosticSeverityWarning, `Adopted network "web/lan"`)
	if hasError(diags) || other.shows()["uid"] != "00000000-0000-4000-8000-000000000001" || api.made != 1 {
		t.Error("it was not adopted")
	}
	mustBeQuiet(t, other.apply(ctx, lan(map[string]any{"nat": false})))
}

func TestWhatDiffersIsNotAdoptedAndTheDifferenceIsNamed(t *testing.T) {
	for change, pointer := range map[string]string{"nat": "/spec/nat", "metadata": "/metadata"} {
		api := newFakeAPI(t)
		tf := startProvider(t, api, map[string]any{"on_existing": "adopt_identical"})
		mustBeQuiet(t, tf.resource("wisp_network").apply(ctx, lan()))
		differing := map[string]any{"nat": map[string]any{"nat": false}, "metadata": map[string]any{"metadata": map[string]any{"a": "b"}}}[change]
		diags := tf.resource("wisp_network").apply(ctx, lan(differing.(map[string]any)))
		mustSay(t, diags, tfprotov6.DiagnosticSeverityError, "exists already", "differs from what is wanted in "+pointer+".", "import {")
	}
}

func TestACreateWaitsOutADeletion(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, nil)
	mustBeQuiet(t, tf.resource("wisp_network").apply(ctx, lan()))
	api.change(lanPath, func(d *fakeDoc) { d.retired, d.lingers = true, 2 })
	network := tf.resource("wisp_network")
	mustBeQuiet(t, network.apply(ctx, lan()))
	if network.shows()["uid"] != "00000000-0000-4000-8000-000000000002" {
		t.Error("it is still the old one")
	}
}

func TestWhatBeginsToGoWhileItStandsInTheWayIsWaitedOutToo(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, nil)
	mustBeQuiet(t, tf.resource("wisp_network").apply(ctx, lan()))
	api.hooks(nil, func(r *http.Request) {
		if r.Method == "PUT" && api.made == 1 {
			api.docs[lanPath].retired, api.docs[lanPath].lingers = true, 2
		}
	})
	mustBeQuiet(t, tf.resource("wisp_network").apply(ctx, lan()))
}

func TestARefusalPointsAtTheAttribute(t *testing.T) {
	api := newFakeAPI(t)
	api.hooks(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(422)
		_, _ = w.Write([]byte(`{"code": "reference", "detail": "Bad reference.", "status": 422, "request_id": "r7",
			"errors": [{"pointer": "/spec/networks/1/network", "code": "reference", "detail": "There is no network x."}]}`))
		return true
	}, nil)
	diags := startProvider(t, api, nil).resource("wisp_instance").apply(ctx, map[string]any{"name": "vm", "cpus": number("1"), "memory_mib": number("64"),
		"disks": []any{map[string]any{"size_gib": number("1")}}, "networks": []any{map[string]any{"network": "lan"}, map[string]any{"network": "x"}}})
	mustSay(t, diags, tfprotov6.DiagnosticSeverityError, "There is no network x.", "r7")
	if at := diags[0].Attribute.String(); at != `AttributeName("networks").ElementKeyInt(1).AttributeName("network")` {
		t.Error("it points at", at)
	}
}

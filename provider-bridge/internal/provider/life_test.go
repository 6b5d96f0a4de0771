package provider

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

func number(digits string) json.Number { return json.Number(digits) }

func vm(changes map[string]any) map[string]any {
	config := map[string]any{"name": "vm", "cpus": number("1"), "memory_mib": number("64"), "disks": []any{map[string]any{"size_gib": number("1")}}}
	for name, value := range changes {
		config[name] = value
	}
	return config
}

func TestAnUpdateReplacesOnlyWhatWasSeen(t *testing.T) {
	api := newFakeAPI(t)
	network := startProvider(t, api, nil).resource("wisp_network")
	mustBeQuiet(t, network.apply(ctx, lan()))
	api.change(lanPath, func(d *fakeDoc) { d.Spec["nat"], d.Generation = false, 2 })
	mustSay(t, network.apply(ctx, lan(map[string]any{"dhcp": false})), tfprotov6.DiagnosticSeverityError, "it has changed", "plan again")
	if api.docs[lanPath].Generation != 2 || network.tainted {
		t.Error("somebody's change is lost")
	}
	mustBeQuiet(t, network.refresh())
	mustBeQuiet(t, network.apply(ctx, lan(map[string]any{"dhcp": false})))
	mustBeQuiet(t, network.apply(ctx, lan()))
	if api.asked("PUT", `If-Match: "00000000-0000-4000-8000-000000000001-3"`) != 1 {
		t.Errorf("an update did not keep its ETag for the next: %v", api.log)
	}
}

func TestADeleteTakesOnlyWhatWasSeenAndReturnsWhenItIsGone(t *testing.T) {
	api := newFakeAPI(t)
	network := startProvider(t, api, nil).resource("wisp_network")
	mustBeQuiet(t, network.apply(ctx, lan()))
	api.change(lanPath, func(d *fakeDoc) { d.Generation = 2 })
	mustSay(t, network.destroy(ctx), tfprotov6.DiagnosticSeverityError, "it has changed")
	mustBeQuiet(t, network.refresh())
	api.change(lanPath, func(d *fakeDoc) { d.lingers = 2 })
	mustBeQuiet(t, network.destroy(ctx))
	if len(api.docs) != 0 || !network.state.IsNull() {
		t.Error("it is still there")
	}
}

func TestADeleteWithoutAnETagLeavesWhatHasTakenTheNameSince(t *testing.T) {
	api := newFakeAPI(t)
	network := startProvider(t, api, nil).resource("wisp_network")
	mustBeQuiet(t, network.apply(ctx, lan()))
	api.change(lanPath, func(d *fakeDoc) { d.UID = "11111111-1111-4111-8111-111111111111" })
	network.private = nil
	mustBeQuiet(t, network.destroy(ctx))
	if api.docs[lanPath] == nil || api.asked("DELETE") != 0 {
		t.Error("somebody else's network is destroyed")
	}
}

func TestADeleteWaitsAWhileForWhatRefersToIt(t *testing.T) {
	api := newFakeAPI(t)
	network := startProvider(t, api, nil).resource("wisp_network")
	mustBeQuiet(t, network.apply(ctx, lan()))
	used := true
	api.hooks(inUseOnce(&used), nil)
	mustBeQuiet(t, network.destroy(ctx))
}

func TestADeleteRefusesWhatTheSameProcessAdoptedAndTheNextForgetsIt(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, map[string]any{"on_existing": "adopt_identical"})
	old := tf.resource("wisp_network")
	mustBeQuiet(t, old.apply(ctx, lan()))
	tf.restart(10 * time.Second)
	mustSay(t, tf.resource("wisp_network").apply(ctx, lan()), tfprotov6.DiagnosticSeverityWarning, "Adopted")
	mustSay(t, old.destroy(ctx), tfprotov6.DiagnosticSeverityError, "Refusing to delete", "create_before_destroy")
	tf.restart(10 * time.Second)
	mustSay(t, old.destroy(ctx), tfprotov6.DiagnosticSeverityWarning, "Forgot the old")
	if api.asked("DELETE") != 0 || !old.state.IsNull() {
		t.Error("the machine that was adopted is destroyed")
	}
}

func TestWhatIsGoneOrGoingOrReplacedLeavesTheState(t *testing.T) {
	for how, change := range map[string]func(*fakeDoc){
		"gone":     func(d *fakeDoc) { d.retired = true },
		"going":    func(d *fakeDoc) { d.retired, d.lingers = true, 9 },
		"replaced": func(d *fakeDoc) { d.UID = "11111111-1111-4111-8111-111111111111" },
	} {
		api := newFakeAPI(t)
		network := startProvider(t, api, nil).resource("wisp_network")
		mustBeQuiet(t, network.apply(ctx, lan()))
		api.change(lanPath, change)
		if diags := network.refresh(); hasError(diags) || !network.state.IsNull() {
			t.Errorf("%s: %v, and still in the state", how, diags)
		}
	}
}

func TestTheNamespaceOfTheProviderIsUsedWhenCreatingAndNeverAgain(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, nil)
	network := tf.resource("wisp_network")
	mustBeQuiet(t, network.apply(ctx, lan()))
	tf.settings["namespace"] = "elsewhere"
	tf.restart(10 * time.Second)
	mustBeQuiet(t, network.refresh())
	planned := network.plan(lan())
	if after, _ := planned.PlannedState.Unmarshal(network.kind); !after.Equal(network.state) || len(planned.RequiresReplace) > 0 {
		t.Errorf("another namespace in the shell plans %v", planned.RequiresReplace)
	}
	if len(network.plan(lan(map[string]any{"namespace": "elsewhere"})).RequiresReplace) == 0 {
		t.Error("a written namespace does not move it")
	}
}

func TestWithoutAnyNamespaceThePlanSaysSo(t *testing.T) {
	tf := startProvider(t, newFakeAPI(t), map[string]any{"namespace": nil})
	mustSay(t, tf.resource("wisp_network").plan(lan()).Diagnostics, tfprotov6.DiagnosticSeverityError, "No namespace", "WISP_NAMESPACE")
	mustBeQuiet(t, tf.resource("wisp_namespace").apply(ctx, map[string]any{"name": "web"}))
}

func TestAnUpdateThatCannotMoveTheBindingKeepsIt(t *testing.T) {
	api := newFakeAPI(t)
	api.binding = map[string]any{"node": "n1", "interfaces": []any{map[string]any{"address": "10.1.0.7", "mac": "02:00:00:00:00:01"}}}
	instance := startProvider(t, api, nil).resource("wisp_instance")
	mustBeQuiet(t, instance.apply(ctx, vm(nil)))
	before := instance.shows()["binding"]
	for _, change := range []map[string]any{{"metadata": map[string]any{"a": "b"}}, {"cpus": number("2")}, {"power": "off"}} {
		planned, _ := instance.plan(vm(change)).PlannedState.Unmarshal(instance.kind)
		if !part(planned, "binding").IsFullyKnown() {
			t.Errorf("%v plans the binding unknown", change)
		}
		api.binding = map[string]any{"node": "n2"}
		mustBeQuiet(t, instance.apply(ctx, vm(change))) // and mustKeep: exactly what was planned
		if !reflect.DeepEqual(instance.shows()["binding"], before) {
			t.Errorf("%v returned %v", change, instance.shows()["binding"])
		}
	}
	mustBeQuiet(t, instance.refresh())
	if fmt.Sprint(instance.shows()["binding"]) != "map[node:n2]" {
		t.Error("the next read does not show that it moved")
	}
}

func TestOnlyAChangeOfWhatHasPartsMayMoveTheBinding(t *testing.T) {
	var moving []string
	for _, kind := range schemas.Embedded().Kinds {
		for _, field := range kind.Spec.Fields {
			if movesBinding(kind, field) {
				moving = append(moving, kind.Name+"."+field.Name)
			}
		}
	}
	if got := strings.Join(moving, " "); got != "instance.disks instance.networks instance.placement" {
		t.Errorf("it is moved by %s", got)
	}
}

func part(object tftypes.Value, name string) tftypes.Value {
	var parts map[string]tftypes.Value
	if err := object.As(&parts); err != nil {
		panic(err)
	}
	return parts[name]
}

func TestWhatIsWriteOnlyIsSentWithEveryPutAndKeptNowhere(t *testing.T) {
	api := newFakeAPI(t)
	instance := startProvider(t, api, nil).resource("wisp_instance")
	for _, power := range []string{"on", "off"} {
		mustBeQuiet(t, instance.apply(ctx, vm(map[string]any{"user_data": "#!planted", "power": power})))
		doc := api.docs["/v1/namespaces/web/instances/vm"]
		if doc.hidden["user_data"] != "#!planted" {
			t.Error("it was not sent")
		}
		doc.hidden["user_data"] = nil
	}
	if strings.Contains(fmt.Sprint(instance.state, string(instance.private)), "planted") {
		t.Error("it is in the state")
	}
}

func TestTheTokenOfAKeyIsInNoState(t *testing.T) {
	key := startProvider(t, newFakeAPI(t), nil).resource("wisp_key")
	mustBeQuiet(t, key.apply(ctx, map[string]any{"name": "ci", "rotation": "1"}))
	mustBeQuiet(t, key.apply(ctx, map[string]any{"name": "ci", "rotation": "2"}))
	if strings.Contains(fmt.Sprint(key.state, string(key.private)), "planted") {
		t.Error("it is")
	}
}

func TestImportTakesTheDocumentAsItIs(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, map[string]any{"namespace": "elsewhere"})
	made := tf.resource("wisp_network")
	mustBeQuiet(t, made.apply(ctx, lan(map[string]any{"namespace": "web"})))
	for id, good := range map[string]bool{"web/lan": true, "lan": false, "web/": false, "/lan": false, "web/lan/x": false} {
		resp, err := tf.server.ImportResourceState(ctx, &tfprotov6.ImportResourceStateRequest{TypeName: "wisp_network", ID: id})
		tf.must(err)
		if hasError(resp.Diagnostics) == good {
			t.Errorf("%q: %v", id, resp.Diagnostics)
		}
		if !good {
			continue
		}
		imported := tf.resource("wisp_network")
		imported.take(resp.ImportedResources[0].State, resp.ImportedResources[0].Private)
		mustBeQuiet(t, imported.refresh())
		if !imported.state.Equal(made.state) {
			t.Errorf("imported as %v", imported.state)
		}
	}
}

func TestEveryImmutableFieldReplacesAndNoOtherDoes(t *testing.T) {
	tf := startProvider(t, newFakeAPI(t), nil)
	for _, kind := range schemas.Embedded().Kinds {
		if !manageable(kind) {
			continue
		}
		for _, field := range kind.Spec.Fields {
			var example, other any
			switch {
			case field.Type == schemas.String && len(field.Enum) > 1:
				example, other = field.Enum[0], field.Enum[1]
			case field.Type == schemas.Integer:
				example, other = number("64"), number("65")
			case field.Type == schemas.Boolean:
				example, other = true, false
			case field.Type == schemas.Array && field.Items.Scalar():
				example, other = []any{"a"}, []any{"b"}
			default:
				continue
			}
			resource := tf.resource((&subject{kind: kind}).typeName())
			state, err := encode(map[string]any{"name": "x", "namespace": "web", field.Name: example}, resource.kind)
			tf.must(err)
			resource.state = state
			replaced := false
			for _, at := range resource.plan(map[string]any{"name": "x", "namespace": "web", field.Name: other}).RequiresReplace {
				replaced = replaced || at.Equal(tftypes.NewAttributePath().WithAttributeName(field.Name))
			}
			if replaced != field.Immutable {
				t.Errorf("%s.%s: replaced is %t", kind.Name, field.Name, replaced)
			}
		}
	}
}

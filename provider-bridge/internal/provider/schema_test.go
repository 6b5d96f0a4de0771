package provider

import (
	"math/big"
	"net/http"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// inUseOnce refuses the first deletion.
func inUseOnce(used *bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "DELETE" || !*used {
			return false
		}
		*used = false
		w.WriteHeader(409)
		_, _ = w.Write([]byte(`{"code": "in_use", "status": 409, "detail": "In use.", "retryable": true}`))
		return true
	}
}

func TestEveryKindHasAResourceButWhatJoinsByItselfOrIsDoneOnce(t *testing.T) {
	tf := startProvider(t, newFakeAPI(t), nil)
	unmanaged := map[string][2]bool{"node": {false, true}, "action": {false, false}}
	for _, kind := range schemas.Embedded().Kinds {
		name := (&subject{kind: kind}).typeName()
		_, managed := tf.schemas.ResourceSchemas[name]
		_, looked := tf.schemas.DataSourceSchemas[name]
		want, other := unmanaged[kind.Name]
		if !other {
			want = [2]bool{true, true}
		}
		if [2]bool{managed, looked} != want {
			t.Errorf("%s: resource %t, data source %t", kind.Name, managed, looked)
		}
	}
}

func TestStatusIsInDataSourcesOnlyAndWhatIsWriteOnlyInResourcesOnly(t *testing.T) {
	tf := startProvider(t, newFakeAPI(t), nil)
	managed := tf.schemas.ResourceSchemas["wisp_instance"].ValueType().(tftypes.Object).AttributeTypes
	looked := tf.schemas.DataSourceSchemas["wisp_instance"].ValueType().(tftypes.Object).AttributeTypes
	for name, in := range map[string][2]bool{"status": {false, true}, "user_data": {true, false}, "uid": {true, true}, "binding": {true, true}} {
		_, m := managed[name]
		_, l := looked[name]
		if [2]bool{m, l} != in {
			t.Errorf("%s: resource %t, data source %t", name, m, l)
		}
	}
}

func TestADataSourceShowsTheStatus(t *testing.T) {
	api := newFakeAPI(t)
	tf := startProvider(t, api, nil)
	mustBeQuiet(t, tf.resource("wisp_network").apply(ctx, lan()))
	kind := tf.schemas.DataSourceSchemas["wisp_network"].ValueType()
	resp, err := tf.server.ReadDataSource(ctx, &tfprotov6.ReadDataSourceRequest{TypeName: "wisp_network", Config: tf.value(map[string]any{"name": "lan"}, kind)})
	tf.must(err)
	mustBeQuiet(t, resp.Diagnostics)
	state, err := resp.State.Unmarshal(kind)
	tf.must(err)
	shown, err := object(state)
	tf.must(err)
	if shown["status"].(map[string]any)["observed_generation"] != number("1") || shown["cidr"] != "10.1.0.0/24" {
		t.Errorf("it shows %v", shown)
	}
}

func TestValuesThatTheSchemaRefusesAreRefusedInThePlan(t *testing.T) {
	tf := startProvider(t, newFakeAPI(t), nil)
	for pointed, config := range map[string]map[string]any{
		`AttributeName("name")`:                         lan(map[string]any{"name": "Lan"}),
		`AttributeName("cidr")`:                         lan(map[string]any{"cidr": "10.1.0.1/24"}),
		`AttributeName("metadata")`:                     lan(map[string]any{"metadata": map[string]any{"ä": "b"}}),
		`AttributeName("dns_servers").ElementKeyInt(1)`: lan(map[string]any{"dns_servers": []any{"9.9.9.9", "nine"}}),
		`AttributeName("namespace")`:                    lan(map[string]any{"namespace": "web\n"}),
	} {
		kind := tf.schemas.ResourceSchemas["wisp_network"].ValueType()
		resp, err := tf.server.ValidateResourceConfig(ctx, &tfprotov6.ValidateResourceConfigRequest{TypeName: "wisp_network", Config: tf.value(config, kind)})
		tf.must(err)
		if len(resp.Diagnostics) != 1 || resp.Diagnostics[0].Attribute.String() != pointed {
			t.Errorf("%v: %v", config, resp.Diagnostics)
		}
	}
}

func TestUnknownValuesPassValidation(t *testing.T) {
	tf := startProvider(t, newFakeAPI(t), nil)
	kind := tf.schemas.ResourceSchemas["wisp_network"].ValueType().(tftypes.Object)
	values := map[string]tftypes.Value{}
	for name, each := range kind.AttributeTypes {
		values[name] = tftypes.NewValue(each, tftypes.UnknownValue)
	}
	for _, computed := range []string{"uid", "binding"} {
		values[computed] = tftypes.NewValue(kind.AttributeTypes[computed], nil)
	}
	resp, err := tf.server.ValidateResourceConfig(ctx, &tfprotov6.ValidateResourceConfigRequest{TypeName: "wisp_network",
		Config: tf.dynamic(tftypes.NewValue(kind, values))})
	tf.must(err)
	mustBeQuiet(t, resp.Diagnostics)
}

func TestNumbersAreNeitherRoundedNorWrittenWithAnExponent(t *testing.T) {
	for _, digits := range []string{"0", "-7", "1000000", "9007199254740993", "9223372036854775807", "100000000000000000000"} {
		n, _, err := big.ParseFloat(digits, 10, 512, big.ToNearestEven)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := decode(tftypes.NewValue(tftypes.Number, n))
		if err != nil || decoded != number(digits) {
			t.Errorf("%s becomes %v, %v", digits, decoded, err)
		}
		encoded, err := encode(number(digits), tftypes.Number)
		if err != nil || !encoded.Equal(tftypes.NewValue(tftypes.Number, n)) {
			t.Errorf("%s becomes %v, %v", digits, encoded, err)
		}
	}
}

func TestAProviderWithoutEndpointOrTokenSaysWhereTheyBelong(t *testing.T) {
	t.Setenv("WISP_ENDPOINT", "")
	t.Setenv("WISP_TOKEN", "")
	tf := startProvider(t, newFakeAPI(t), nil)
	resp, err := tf.server.ConfigureProvider(ctx, &tfprotov6.ConfigureProviderRequest{Config: tf.value(map[string]any{}, tf.schemas.Provider.ValueType())})
	tf.must(err)
	mustSay(t, resp.Diagnostics, tfprotov6.DiagnosticSeverityError, "No endpoint")
	mustSay(t, resp.Diagnostics, tfprotov6.DiagnosticSeverityError, "No token")
}

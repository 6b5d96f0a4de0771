// Package provider is the Terraform provider: one generic resource and one generic data source.
//
// Nothing in it knows what an instance or a network is. Which resources there are, their attributes, defaults and
// checks, what replaces a resource and what the documentation says is all read from the embedded schema files.
package provider

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// The kind that comes by itself when a machine joins: it can be looked at, not made.
const joinsByItself = "node"

// cloud is what resources and data sources need of the provider's configuration.
type cloud struct {
	// client is nil while the endpoint or the token is not known yet.
	client *client.Client
	// namespace is where things are created that name none; empty when there is none, unknown when it comes later.
	namespace types.String
	// adopt makes a create take over what is there already, if it is exactly what is wanted.
	adopt bool
	// patience is how long one create, update or delete may wait.
	patience time.Duration
	// adopted holds the uids that this process has adopted: they must not be deleted by it as well.
	adopted sync.Map
}

type wisp struct {
	version  string
	patience time.Duration
}

// New returns the provider.
func New(version string) provider.Provider {
	return &wisp{version: version, patience: 10 * time.Minute}
}

func (p *wisp) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName, resp.Version = "wisp", p.version
}

const (
	refuse = "refuse"
	adopt  = "adopt_identical"
)

func (p *wisp) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Virtual machines, networks and images of a wisp cloud.",
		Attributes: map[string]schema.Attribute{
			"endpoint": schema.StringAttribute{Optional: true,
				MarkdownDescription: "Where the API is, like `http://127.0.0.1:7480`. Default: `WISP_ENDPOINT` of the environment."},
			"token": schema.StringAttribute{Optional: true, Sensitive: true,
				MarkdownDescription: "An API key. Default: `WISP_TOKEN` of the environment."},
			"namespace": schema.StringAttribute{Optional: true,
				MarkdownDescription: "The namespace in which things are created, and data sources look, that name none. What exists stays where it is. Default: `WISP_NAMESPACE` of the environment."},
			"on_existing": schema.StringAttribute{Optional: true,
				MarkdownDescription: "What a create does when the name is taken already: `refuse` (default) is an error that says how to import; `adopt_identical` takes over what is there if its spec and metadata are those wanted.",
				Validators:          []validator.String{check{&schemas.Field{Enum: []string{refuse, adopt}}}}},
		},
	}
}

type settings struct {
	Endpoint   types.String `tfsdk:"endpoint"`
	Token      types.String `tfsdk:"token"`
	Namespace  types.String `tfsdk:"namespace"`
	OnExisting types.String `tfsdk:"on_existing"`
}

func (p *wisp) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	var given settings
	resp.Diagnostics.Append(req.Config.Get(ctx, &given)...)
	if resp.Diagnostics.HasError() {
		return
	}
	endpoint, token := orEnvironment(given.Endpoint, "WISP_ENDPOINT"), orEnvironment(given.Token, "WISP_TOKEN")
	for name, value := range map[string]types.String{"endpoint": endpoint, "token": token} {
		if !value.IsUnknown() && value.ValueString() == "" {
			resp.Diagnostics.AddAttributeError(path.Root(name), "No "+name,
				"Set it in the provider's configuration, or as an environment variable; `wisp dev` writes both into its state directory's file `env`.")
		}
	}
	if resp.Diagnostics.HasError() {
		return
	}
	c := &cloud{namespace: orEnvironment(given.Namespace, "WISP_NAMESPACE"), adopt: given.OnExisting.ValueString() == adopt, patience: p.patience}
	if !endpoint.IsUnknown() && !token.IsUnknown() {
		var err error
		c.client, err = client.New(client.Config{Endpoint: endpoint.ValueString(), Token: token.ValueString(),
			UserAgent: "terraform-provider-wisp/" + p.version + " terraform/" + req.TerraformVersion})
		if err != nil {
			resp.Diagnostics.AddAttributeError(path.Root("endpoint"), "Not an endpoint", err.Error())
		}
	}
	resp.ResourceData, resp.DataSourceData = c, c
}

func orEnvironment(given types.String, variable string) types.String {
	if given.IsNull() {
		return types.StringValue(os.Getenv(variable))
	}
	return given
}

func (p *wisp) Resources(context.Context) (all []func() resource.Resource) {
	for _, kind := range schemas.Embedded().Kinds {
		if manageable(kind) {
			all = append(all, func() resource.Resource { return &kindResource{subject{kind: kind}} })
		}
	}
	return all
}

func (p *wisp) DataSources(context.Context) (all []func() datasource.DataSource) {
	for _, kind := range schemas.Embedded().Kinds {
		if !kind.Imperative {
			all = append(all, func() datasource.DataSource { return &kindData{subject{kind: kind}} })
		}
	}
	return all
}

// manageable says whether Terraform can make such a thing and keep it: what is done once and forgotten is no resource.
func manageable(kind *schemas.Kind) bool {
	return kind.Name != joinsByItself && !kind.Imperative
}

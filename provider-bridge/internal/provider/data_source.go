package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/path"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
	"github.com/wisp-cloud/wisp/provider-bridge/internal/schemas"
)

// kindData is a data source of any kind: one document by its name, with its status, which moves by itself and so has
// no place in a resource.
type kindData struct{ subject }

var _ datasource.DataSourceWithConfigure = &kindData{}

func (d *kindData) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = d.typeName()
}

func (d *kindData) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	resp.Schema = dataSchema(schemas.Embedded(), d.kind)
}

func (d *kindData) Configure(_ context.Context, req datasource.ConfigureRequest, _ *datasource.ConfigureResponse) {
	d.configure(req.ProviderData)
}

func (d *kindData) Read(ctx context.Context, req datasource.ReadRequest, resp *datasource.ReadResponse) {
	config, err := object(req.Config.Raw)
	if err != nil || !d.reachable(&resp.Diagnostics) {
		addError(&resp.Diagnostics, "Unreadable configuration", err)
		return
	}
	at := ref(config)
	if at.Namespace == "" && !d.kind.Cluster {
		at.Namespace = d.cloud.namespace.ValueString()
		if at.Namespace == "" {
			resp.Diagnostics.AddAttributeError(path.Root("namespace"), "No namespace", "Set `namespace` here or in the provider's configuration, or WISP_NAMESPACE in the environment.")
			return
		}
	}
	doc, err := client.Get(ctx, d.cloud.client, d.raw(), at)
	if err != nil {
		d.problems(&resp.Diagnostics, "read", at, err)
		return
	}
	value, err := shown(ctx, doc, resp.State.Schema.Type().TerraformType(ctx))
	if err != nil {
		addError(&resp.Diagnostics, "Unexpected document", err)
		return
	}
	resp.State.Raw = value
}

// Command terraform-provider-wisp is the Terraform provider of wisp, to be started by Terraform.
package main

import (
	"context"
	"flag"
	"log"

	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	wisp "github.com/wisp-cloud/wisp/provider-bridge/internal/provider"
)

// version is set by the linker in a release.
var version = "dev"

func main() {
	debug := flag.Bool("debug", false, "run on its own, for a debugger to attach to")
	flag.Parse()
	err := providerserver.Serve(context.Background(), func() provider.Provider { return wisp.New(version) },
		providerserver.ServeOpts{Address: "registry.terraform.io/wisp-cloud/wisp", Debug: *debug, ProtocolVersion: 6})
	if err != nil {
		log.Fatal(err)
	}
}

package provider

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-testing/helper/resource"
	tf "github.com/hashicorp/terraform-plugin-testing/terraform"

	"github.com/hashicorp/terraform-plugin-testing/plancheck"

	"github.com/wisp-cloud/wisp/provider-bridge/client"
)

// These run Terraform against a service: TF_ACC=1 with WISP_ENDPOINT, WISP_TOKEN and WISP_NAMESPACE set, as the file
// `env` of `wisp dev --simulate` has them. Otherwise they are skipped.

// life is what one kind goes through: made, changed in place, imported, replaced, destroyed.
type life struct{ kind, needs, made, changed, replaced string }

const (
	fooDigest = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	barDigest = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"
	machine   = "memory_mib = 256\n disks = [{ image = wisp_image.i.name, size_gib = 2 }, { size_gib = 1, bus = \"scsi\" }]\n" +
		"networks = [{ network = wisp_network.n.name }]\n ssh_keys = [\"ssh-ed25519 b\", \"ssh-ed25519 a\"]\n user_data = \"#!/bin/sh\"\n"
)

var lives = []life{
	{kind: "namespace", made: `quotas = { instances = 1 }`, changed: `quotas = { instances = 2, cpus = 4 }` + "\n" + `metadata = { a = "b" }`},
	{kind: "key", made: `role = "viewer"`, changed: `rotation = "1"` + "\n" + `expires_at = "2099-01-01T00:00:00Z"`},
	{kind: "network", made: `cidr = "10.1.0.0/24"`, changed: `cidr = "10.1.0.0/24"` + "\n" + `nat = false` + "\n" + `dns_servers = ["9.9.9.9", "1.1.1.1"]`,
		replaced: `cidr = "10.2.0.0/24"`},
	{kind: "image", made: imageOf("a", fooDigest), changed: imageOf("b", fooDigest), replaced: imageOf("b", barDigest)},
	{kind: "instance", made: "cpus = 1\n" + machine, changed: "cpus = 2\n power = \"off\"\n" + machine,
		replaced: "cpus = 2\n firmware = \"uefi\"\n" + machine,
		needs: `resource "wisp_network" "n" {
			name = "PREFIX-n"
			cidr = "10.1.0.0/24"
		}
		resource "wisp_image" "i" {
			name = "PREFIX-i"
			` + imageOf("a", fooDigest) + "\n}\n"},
	{kind: "pool", made: `cidr = "203.0.113.8/29"`, changed: `cidr = "203.0.113.8/29"` + "\n" + `metadata = { a = "b" }`,
		replaced: `cidr = "203.0.113.16/29"`},
	{kind: "floating_ip", made: "pool = wisp_pool.p.name\n instance = wisp_instance.v.name",
		changed: "pool = wisp_pool.p.name", replaced: "pool = wisp_pool.p.name\n address = \"203.0.113.65\"",
		needs: `resource "wisp_pool" "p" {
			name = "PREFIX-p"
			cidr = "203.0.113.64/29"
		}
		resource "wisp_network" "n" {
			name = "PREFIX-n"
			cidr = "10.1.0.0/24"
		}
		resource "wisp_instance" "v" {
			name = "PREFIX-v"
			cpus = 1
			memory_mib = 64
			disks = [{ size_gib = 1 }]
			networks = [{ network = wisp_network.n.name }]
		}
		`},
}

var clusters = map[string]bool{"namespace": true, "pool": true}

func imageOf(host, digest string) string {
	return fmt.Sprintf("source = { kind = \"url\", url = \"http://%s.example/i\" }\nsha256 = %q", host, digest)
}

// stage is a configuration with one resource under test, `wisp_KIND.it`.
func (l life) stage(prefix, body string) string {
	return strings.ReplaceAll(l.needs, "PREFIX", prefix) + fmt.Sprintf("resource \"wisp_%s\" \"it\" {\nname = %q\n%s\n}\n", l.kind, prefix, body)
}

func factories() map[string]func() (tfprotov6.ProviderServer, error) {
	return map[string]func() (tfprotov6.ProviderServer, error){"wisp": func() (tfprotov6.ProviderServer, error) {
		return providerserver.NewProtocol6WithError(New("test"))()
	}}
}

func prefix() string { return fmt.Sprintf("t%08x", rand.Uint32()) }

func doing(address string, action plancheck.ResourceActionType) resource.ConfigPlanChecks {
	return resource.ConfigPlanChecks{PreApply: []plancheck.PlanCheck{plancheck.ExpectResourceAction(address, action)}}
}

// After each step the testing framework plans again and fails unless that plan is empty.
func TestAccTheLifeOfEveryKind(t *testing.T) {
	for _, l := range lives {
		t.Run(l.kind, func(t *testing.T) {
			name, address := prefix(), "wisp_"+l.kind+".it"
			id := os.Getenv("WISP_NAMESPACE") + "/" + name
			if clusters[l.kind] {
				id = name
			}
			steps := []resource.TestStep{
				{Config: l.stage(name, l.made), Check: resource.TestCheckResourceAttrSet(address, "uid")},
				{Config: l.stage(name, l.changed), ConfigPlanChecks: doing(address, plancheck.ResourceActionUpdate)},
				{ResourceName: address, ImportState: true, ImportStateId: id, ImportStateVerify: true,
					ImportStateVerifyIdentifierAttribute: "name", ImportStateVerifyIgnore: []string{"user_data"}},
			}
			if l.replaced != "" {
				steps = append(steps, resource.TestStep{Config: l.stage(name, l.replaced), ConfigPlanChecks: doing(address, plancheck.ResourceActionReplace)})
			}
			resource.Test(t, resource.TestCase{ProtoV6ProviderFactories: factories(), Steps: steps, CheckDestroy: nothingIsLeft})
		})
	}
}

// nothingIsLeft asks the service itself for everything that was in the state.
func nothingIsLeft(state *tf.State) error {
	c, err := client.New(client.Config{Endpoint: os.Getenv("WISP_ENDPOINT"), Token: os.Getenv("WISP_TOKEN")})
	if err != nil {
		return err
	}
	for address, it := range state.RootModule().Resources {
		kind := strings.ReplaceAll(strings.TrimPrefix(it.Type, "wisp_"), "_", "-")
		raw := client.RawKind{Name: kind, Plural: kind + "s", Cluster: clusters[kind]}
		at := client.Ref{Namespace: it.Primary.Attributes["namespace"], Name: it.Primary.Attributes["name"]}
		if _, err := client.Get(ctx, c, raw, at); !errors.Is(err, client.CodeNotFound) {
			return fmt.Errorf("%s is left: %w", address, err)
		}
	}
	return nil
}

func TestAccWhatExistsAlreadyIsRefusedWithTheWayToImportIt(t *testing.T) {
	network := lives[2]
	name := prefix()
	second := network.stage(name, network.made) + strings.ReplaceAll(network.stage(name, network.made), `"it"`, `"second"`)
	second = strings.Replace(second, `"second" {`, "\"second\" {\ndepends_on = [wisp_network.it]", 1)
	resource.Test(t, resource.TestCase{ProtoV6ProviderFactories: factories(), CheckDestroy: nothingIsLeft, Steps: []resource.TestStep{
		{Config: network.stage(name, network.made)},
		{Config: second, ExpectError: regexp.MustCompile(`(?s)exists already.*import \{\s+to = wisp_network\.NAME`)},
	}})
}

func TestAccWhatIsDeletedBehindTerraformsBackIsMadeAgain(t *testing.T) {
	network := lives[2]
	name := prefix()
	vanish := func() {
		c, err := client.New(client.Config{Endpoint: os.Getenv("WISP_ENDPOINT"), Token: os.Getenv("WISP_TOKEN")})
		if err != nil {
			t.Fatal(err)
		}
		at := client.Ref{Namespace: os.Getenv("WISP_NAMESPACE"), Name: name}
		if err := client.Delete(ctx, c, client.Networks, at); err != nil {
			t.Fatal(err)
		}
	}
	resource.Test(t, resource.TestCase{ProtoV6ProviderFactories: factories(), CheckDestroy: nothingIsLeft, Steps: []resource.TestStep{
		{Config: network.stage(name, network.made)},
		{PreConfig: vanish, Config: network.stage(name, network.made), ConfigPlanChecks: doing("wisp_network.it", plancheck.ResourceActionCreate)},
	}})
}

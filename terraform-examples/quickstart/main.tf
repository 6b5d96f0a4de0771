# A virtual network, an image, and a machine on the network made from the image.
#
# Where the service is and who you are come from the environment (WISP_ENDPOINT, WISP_TOKEN, WISP_NAMESPACE), so that they are in
# no file: `wisp dev` writes them to its state directory, in a file named env.

terraform {
  required_version = ">= 1.11" # write-only attributes

  required_providers {
    wisp = {
      source = "wisp-cloud/wisp"
    }
  }
}

provider "wisp" {}

resource "wisp_network" "lan" {
  name = "lan"
  cidr = "10.1.0.0/24"
}

resource "wisp_image" "guest" {
  name   = "guest"
  sha256 = var.image_sha256
  format = "qcow2"

  source = {
    kind = "url"
    url  = var.image_url
  }
}

resource "wisp_instance" "front" {
  name       = "front"
  cpus       = 1
  memory_mib = 256
  disks      = [{ image = wisp_image.guest.name, size_gib = 1 }]
  networks   = [{ network = wisp_network.lan.name }]
  ssh_keys   = var.ssh_keys

  # Handed to the machine, and kept out of plan and state: it may hold secrets.
  user_data = <<-SCRIPT
    #!/bin/sh
    echo "GUEST: hello from Terraform, I am $(hostname)"
  SCRIPT
}

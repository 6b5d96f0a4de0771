output "address" {
  description = "The machine's address on the network."
  value       = wisp_instance.front.binding.interfaces[0].address
}

output "vni" {
  description = "The network's VXLAN identifier. Its gateway is the network namespace gw-<vni, six hex digits> of a node."
  value       = wisp_network.lan.binding.vni
}

output "uid" {
  description = "Tells this machine from any other of its name, before or after."
  value       = wisp_instance.front.uid
}

variable "image_url" {
  description = "Where the disk image is served, by http or https."
  type        = string
}

variable "image_sha256" {
  description = "SHA-256 of what is served there; anything else is refused."
  type        = string
}

variable "ssh_keys" {
  description = "Public keys that may log in, as lines of authorized_keys."
  type        = list(string)
  default     = []
}

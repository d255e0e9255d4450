# What development mode does not set: OpenBao's own audit, into the container's log.
audit "file" "portcullis" {
  options {
    file_path = "stdout"
  }
}

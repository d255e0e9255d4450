#!/bin/sh
# Fills the ${NAME:-default} placeholders of an Envoy configuration from the environment.
#   sh render.sh envoy.yaml > /tmp/envoy.yaml
# Needs nothing but a POSIX shell, so that it runs in Envoy's own image. The file is evaluated as a here-document: give
# it only files that you trust as you trust a script.
set -eu
# Routes and filter share a value that nobody else may know (docs/guides/guarded-routes.md); one is made where none is given.
: "${PORTCULLIS_GUARD:=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
# With a port for TLS, its listener is part of the file.
parts='s/^//'
[ -z "${PORTCULLIS_TLS_PORT:-}" ] || parts='s/^#tls //'
eval "cat <<PORTCULLIS_END
$(sed "$parts" "$1")
PORTCULLIS_END"

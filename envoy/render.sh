#!/bin/sh
# Fills the ${NAME:-default} placeholders of an Envoy configuration from the environment.
#   sh render.sh envoy.yaml > /tmp/envoy.yaml
# Needs nothing but a POSIX shell, so that it runs in Envoy's own image. The tests and the demo run this very file. Of a
# template the shell evaluates the placeholders; every other backslash, backtick and dollar sign stays as it is.
set -eu
# Routes and filter share a value that nobody else may know (docs/guides/guarded-routes.md); one is made where none is given.
: "${PORTCULLIS_GUARD:=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
# With a port for TLS, its listener is part of the file.
parts='s/^//'
[ -z "${PORTCULLIS_TLS_PORT:-}" ] || parts='s/^#tls //'
# A here-document treats three characters in its own way: all are escaped, but for the dollar sign of a placeholder.
text=$(sed -e "$parts" -e 's/[\\`$]/\\&/g' -e 's/\\${/${/g' "$1")
eval "cat <<PORTCULLIS_END
$text
PORTCULLIS_END"

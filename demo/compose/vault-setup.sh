#!/bin/sh
# Prepares the OpenBao of docker-compose.yml: what the stack does through the API for `cargo xtask up`.
set -eu

BAO_TOKEN=$(cat /run/vault/root)
export BAO_TOKEN

# A new credential at each start, for the connector to demand and for the gateway to present.
credential="demo-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
bao kv put -mount=secret connectors/demo api_key="$credential" > /dev/null
printf '%s\n' "$credential" > /run/demo/credential
chown 10001 /run/demo/credential
chmod 0400 /run/demo/credential

# The gateway may read connector credentials, and nothing else.
bao policy write portcullis - > /dev/null <<'POLICY'
path "secret/data/connectors/*" { capabilities = ["read"] }
POLICY
# Vault's audit log names our request ids, so that `portcullis audit search --vault-log` joins both logs.
bao write sys/config/auditing/request-headers/x-request-id hmac=false > /dev/null
token=$(bao token create -policy=portcullis -no-default-policy -display-name=portcullis -field=token)

# Envoy picks the token up from this file; it is moved into place, never edited. 101 is Envoy's user in its image.
umask 077
cat > /run/portcullis/token.staged <<SDS
resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: vault_token
  generic_secret: {secret: {inline_string: "$token"}}
SDS
chown 101 /run/portcullis/token.staged
mv /run/portcullis/token.staged /run/portcullis/token.yaml
echo "OpenBao is set up"

# Replace the secret of a key, look for users of the old one, revoke, and prove it.
set -eu
portcullis policy push 01-two-teams.yaml --reason "two teams"
ID=$(portcullis key issue --org acme --name ci --role team-a --tier std --reason "nightly job" \
  --output json | sed -n 's/.*"id": "\([^"]*\)".*/\1/p' | head -1)
portcullis key rotate "$ID" --overlap 1h --reason "yearly"
portcullis key show "$ID"                      # when each secret was last used
portcullis key revoke "$ID" --reason "left"
portcullis audit show --admin --key "$ID"
portcullis audit verify --admin

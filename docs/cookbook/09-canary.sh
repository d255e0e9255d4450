# Try a policy on some callers, then make it active for all; go back.
set -eu
portcullis policy push 01-two-teams.yaml --reason "two teams"
portcullis policy diff 02-read-only-analysts.yaml
portcullis policy canary start 02-read-only-analysts.yaml --percent 10% --reason "analysts read"
portcullis policy diff                         # the active version and the canary
portcullis policy canary widen --percent 50% --reason "no complaints so far"
portcullis policy canary promote --reason "no complaints"
portcullis policy history
portcullis policy rollback --reason "analysts lost a tool"

{{/*
The guards: secrets, a value for each path. They come from a file that `portcullis render` wrote, or from a Secret; there is
no default. docs/decisions/0016-guards-of-the-chart.md says why.
*/}}

{{- /* {guards: {PATH: VALUE}, previous: {PATH: VALUE}} as JSON, checked. */ -}}
{{- define "portcullis.guards" -}}
{{- $secret := dict }}
{{- with .Values.guards_secret }}
{{- if $.Values.guards }}{{ fail "guards and guards_secret are both given; give one of them" }}{{ end }}
{{- $found := lookup "v1" "Secret" (include "portcullis.namespace" $) . }}
{{- if not (($found).data) }}
{{- fail (printf "guards_secret: there is no Secret %s/%s here; create it with the key guards.json, or use --set-file guards=guards.json (helm template reads no cluster)" (include "portcullis.namespace" $) .) }}
{{- end }}
{{- $secret = $found.data }}
{{- end }}
{{- $text := .Values.guards | default (get $secret "guards.json" | b64dec) }}
{{- $before := .Values.previous_guards | default (get $secret "previous.json" | b64dec) | default "{}" }}
{{- if not $text }}
{{- fail "guards: nothing is given; run `portcullis render FILE --for plugin --guards guards.json` and add --set-file guards=guards.json" }}
{{- end }}
{{- $guards := include "portcullis.guards.read" (list "guards" $text) | fromJson }}
{{- $previous := include "portcullis.guards.read" (list "previous_guards" $before) | fromJson }}
{{- $owners := dict }}
{{- range $values := list $guards $previous }}
{{- range $path, $value := $values }}
{{- $owner := get $owners $value | default $path }}
{{- if ne $owner $path }}{{ fail (printf "guards: %s and %s have the same value; each path needs one of its own" $owner $path) }}{{ end }}
{{- $_ := set $owners $value $path }}
{{- end }}
{{- end }}
{{- dict "guards" $guards "previous" $previous | toJson }}
{{- end }}

{{- define "portcullis.guards.read" -}}
{{- $name := first . }}
{{- $values := last . | fromJson }}
{{- if hasKey $values "Error" }}{{ fail (printf "%s: not a JSON object of path and value, such as `portcullis render` writes" $name) }}{{ end }}
{{- range $path, $value := $values }}
{{- if not (and (kindIs "string" $value) (regexMatch "^[A-Za-z0-9._~-]{16,128}$" (toString $value))) }}
{{- fail (printf "%s: the value of %s is not one: expected 16 to 128 letters, digits, `-`, `.`, `_` or `~`" $name $path) }}
{{- end }}
{{- end }}
{{- $values | toJson }}
{{- end }}

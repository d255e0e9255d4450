{{/* The VirtualService: with the guarded routes, or with the routes that refuse alone. */}}

{{- define "portcullis.istio.routes" -}}
{{- $root := .root }}
{{- $guarded := .guarded }}
{{- $name := include "portcullis.name" $root }}
{{- $unjudged := (include "portcullis.routes" $root | fromJson).unjudged -}}
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {{ $name }}
  namespace: {{ include "portcullis.namespace" $root }}
  {{- with .metadata }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
spec:
  hosts: {{ $root.Values.hosts | toJson }}
  gateways: {{ $root.Values.istio.gateways | toJson }}
  http:
  {{- range $connector := keys $root.Values.connectors | sortAlpha }}
  {{- range $guarded }}
  {{- if eq .connector $connector }}
  - name: {{ $name }}-{{ .name }}
    match:
    - uri: {exact: {{ .path }}}
      {{- if .get }}
      method: {exact: GET}
      {{- end }}
      headers: {x-portcullis-guard: {{ if .previous }}{regex: {{ include "portcullis.either" . | quote }}}{{ else }}{exact: {{ .guard | quote }}}{{ end }}}
    {{- if or .rewrite .host }}
    rewrite:
      {{- with .rewrite }}
      uri: {{ . }}
      {{- end }}
      {{- with .host }}
      authority: {{ . | quote }}
      {{- end }}
    {{- end }}
    headers: {request: {remove: [x-portcullis-guard]}}
    route: [{destination: {host: {{ .service.host }}, port: {number: {{ int .service.port }}}}}]
    # Istio's default is two retries: one call would be executed up to three times, and charged once. There is no timeout.
    retries: {attempts: 0}
  {{- end }}
  {{- end }}
  {{- range $unjudged }}
  {{- if eq .connector $connector }}
  - name: {{ $name }}-{{ .name }}
    match:
    - uri: {exact: {{ .path }}}
    directResponse: {status: 503, body: {string: {{ include "portcullis.unjudged" . | squote }}}}
    headers: {response: {set: {content-type: application/json, retry-after: "1"}}}
  {{- end }}
  {{- end }}
  {{- end }}
{{- end }}

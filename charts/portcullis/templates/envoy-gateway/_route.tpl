{{/* The HTTPRoute of a connector: with the guarded rules, or with the rules that refuse alone. */}}

{{- define "portcullis.gateway.route" -}}
{{- $root := .root }}
{{- $connector := .connector }}
{{- $guarded := .guarded }}
{{- $name := include "portcullis.name" $root }}
{{- $ours := include "portcullis.namespace" $root }}
{{- $parent := first $root.Values.gateway_api.parent_refs }}
{{- $unjudged := (include "portcullis.routes" $root | fromJson).unjudged }}
{{- $service := include "portcullis.service" (list $root (get $root.Values.connectors $connector).upstream.service.host) | fromJson -}}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {{ $connector }}
  namespace: {{ $ours }}
  {{- with .metadata }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
spec:
  parentRefs:
  - name: {{ $parent.name }}
    {{- with $parent.namespace }}
    namespace: {{ . }}
    {{- end }}
    {{- with $parent.section_name }}
    sectionName: {{ . }}
    {{- end }}
  {{- if ne (first $root.Values.hosts) "*" }}
  hostnames: {{ $root.Values.hosts | toJson }}
  {{- end }}
  rules:
  {{- range $guarded }}
  {{- if eq .connector $connector }}
  - name: {{ .name }}
    matches:
    - path: {type: Exact, value: {{ .path }}}
      {{- if .get }}
      method: GET
      {{- end }}
      {{- if .previous }}
      headers: [{type: RegularExpression, name: x-portcullis-guard, value: {{ include "portcullis.either" . | quote }}}]
      {{- else }}
      headers: [{type: Exact, name: x-portcullis-guard, value: {{ .guard | quote }}}]
      {{- end }}
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {remove: [x-portcullis-guard]}
    {{- if or .rewrite .host }}
    - type: URLRewrite
      urlRewrite:
        {{- with .host }}
        hostname: {{ . }}
        {{- end }}
        {{- with .rewrite }}
        path: {type: ReplaceFullPath, replaceFullPath: {{ . }}}
        {{- end }}
    {{- end }}
    backendRefs:
    {{- if $service }}
    - name: {{ $service.name }}
      {{- if ne $service.namespace $ours }}
      namespace: {{ $service.namespace }}
      {{- end }}
      port: {{ int .service.port }}
    {{- else }}
    - {group: gateway.envoyproxy.io, kind: Backend, name: {{ $connector }}}
    {{- end }}
    # An MCP answer is a stream that may run for long. Without this line Envoy ends every call after 15 seconds.
    timeouts: {request: 0s}
  {{- end }}
  {{- end }}
  {{- range $unjudged }}
  {{- if eq .connector $connector }}
  - name: {{ .name }}
    matches:
    - path: {type: Exact, value: {{ .path }}}
    filters:
    - type: ExtensionRef
      extensionRef: {group: gateway.envoyproxy.io, kind: HTTPRouteFilter, name: {{ $name }}-unjudged}
  {{- end }}
  {{- end }}
{{- end }}

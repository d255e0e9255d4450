{{/*
The seal: an RBAC filter between Portcullis and the router. It refuses (403) a request that has the guard of a path and whose
route has it not in its metadata.
*/}}

{{- define "portcullis.seal" -}}
name: {{ include "portcullis.name" . }}_seal
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
  rules:
    action: DENY
    policies:
      {{- $paths := dict }}
      {{- range (include "portcullis.routes" . | fromJson).guarded }}
      {{- if not (hasKey $paths .path) }}
      {{- $_ := set $paths .path true }}
      {{- $path := .path }}
      {{- include "portcullis.seal.policy" (dict "name" .path "guard" .guard) | nindent 6 }}
      {{- with .previous }}
      {{- include "portcullis.seal.policy" (dict "name" (printf "%s previous" $path) "guard" .) | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- end }}
{{- end }}

{{- define "portcullis.seal.policy" -}}
{{ .name | quote }}:
  principals: [{any: true}]
  permissions:
  - and_rules:
      rules:
      - header: {name: x-portcullis-guard, string_match: {exact: {{ .guard | quote }}}}
      - not_rule:
          sourced_metadata:
            metadata_source: ROUTE
            metadata_matcher:
              filter: portcullis
              path: [{key: guards}]
              value: {list_match: {one_of: {string_match: {exact: {{ .guard | quote }}}}}}
{{- end }}

{{/* A server of an HTTPRoute: a Service of the cluster, by name and namespace; a Backend otherwise. As in `portcullis render`. */}}

{{- /* {name, namespace} as JSON, or {} for a host outside. The argument is a list: the root, the host. */ -}}
{{- define "portcullis.service" -}}
{{- $parts := last . | trimSuffix ".cluster.local" | splitList "." }}
{{- if eq (len $parts) 1 }}
{{- dict "name" (first $parts) "namespace" (include "portcullis.namespace" (first .)) | toJson }}
{{- else if and (eq (len $parts) 3) (eq (last $parts) "svc") }}
{{- dict "name" (first $parts) "namespace" (index $parts 1) | toJson }}
{{- else }}{}{{ end }}
{{- end }}

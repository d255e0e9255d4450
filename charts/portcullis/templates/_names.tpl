{{/* Names that several files need. Each has the default that `portcullis render` has. */}}

{{- define "portcullis.name" -}}{{ .Values.name | default "portcullis" }}{{- end }}

{{- define "portcullis.namespace" -}}{{ .Values.namespace | default .Release.Namespace }}{{- end }}

{{- /* Of the gateway's pods: an EnvoyFilter is for pods of its own namespace. */ -}}
{{- define "portcullis.workloads" -}}
{{ (.Values.istio).workload_namespace | default (include "portcullis.namespace" .) }}
{{- end }}

{{- define "portcullis.selector" -}}
{{ (.Values.istio).selector | default (dict "istio" "ingressgateway") | toJson }}
{{- end }}

{{- /* The Gateway, as NAMESPACE/NAME. */ -}}
{{- define "portcullis.gateway" -}}
{{- if eq .Values.control_plane "istio" }}
{{- $gateway := first .Values.istio.gateways }}
{{- contains "/" $gateway | ternary $gateway (printf "%s/%s" (include "portcullis.namespace" .) $gateway) }}
{{- else }}
{{- $parent := first .Values.gateway_api.parent_refs }}
{{- $parent.namespace | default (include "portcullis.namespace" .) }}/{{ $parent.name }}
{{- end }}
{{- end }}

{{- define "portcullis.gateway.namespace" -}}{{ include "portcullis.gateway" . | splitList "/" | first }}{{- end }}
{{- define "portcullis.gateway.name" -}}{{ include "portcullis.gateway" . | splitList "/" | last }}{{- end }}

{{- /* Where the gateway's pods are, and their labels. */ -}}
{{- define "portcullis.pods" -}}
{{- if eq .Values.control_plane "istio" }}
{{- dict "namespace" (include "portcullis.workloads" .) "selector" (include "portcullis.selector" . | fromJson) | toJson }}
{{- else }}
{{- $labels := dict "gateway.envoyproxy.io/owning-gateway-namespace" (include "portcullis.gateway.namespace" .)
      "gateway.envoyproxy.io/owning-gateway-name" (include "portcullis.gateway.name" .) }}
{{- dict "namespace" .Values.envoy_gateway.namespace "selector" $labels | toJson }}
{{- end }}
{{- end }}

{{- /* What an unjudged request gets: the body of the filter's own 503. */ -}}
{{- define "portcullis.unjudged" -}}
{"jsonrpc":"2.0","id":null,"error":{"code":-31503,"message":"The gateway cannot serve this call right now"}}
{{- end }}

{{- /* Metadata of what a hook creates after an uninstall, as a release would have it, so that a later one takes it over. */ -}}
{{- define "portcullis.left" -}}
labels: {app.kubernetes.io/managed-by: Helm}
annotations:
  helm.sh/hook: post-delete
  meta.helm.sh/release-name: {{ .Release.Name }}
  meta.helm.sh/release-namespace: {{ .Release.Namespace }}
{{- end }}

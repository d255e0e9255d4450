{{/* What the EnvoyFilters of Istio have in common. */}}

{{- /* The ports that patches of listeners name; one 0 for all ports of the gateway. */ -}}
{{- define "portcullis.istio.ports" -}}
{{- $ports := list 0 }}
{{- if .Values.gateway.own_ports }}
{{- $ports = list }}
{{- range .Values.listeners }}{{ $ports = append $ports (int (.pod_port | default .port)) }}{{ end }}
{{- end }}
{{- $ports | toJson }}
{{- end }}

{{- /* Istio's agent pulls the image and gives Envoy a file. Envoy itself never sees this cluster. */ -}}
{{- define "portcullis.istio.code" -}}
remote:
  http_uri: {uri: "oci://{{ .image }}", timeout: 30s, cluster: unused}
  sha256: {{ include "portcullis.sha256" . }}
{{- end }}

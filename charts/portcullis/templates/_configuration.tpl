{{/* The filter: its plugin configuration, and its image. */}}

{{- define "portcullis.configuration" -}}
{{- $split := eq .Values.mode "split" }}
{{- $request := dict }}
{{- if $split }}
{{- /* The gateway's listeners have a buffer of 4 MiB; without this the filter counts on 32 KiB. */ -}}
{{- $request = dict "mode" "split" "host_buffer_bytes" 4194304 }}
{{- else if ne .Values.control_plane "istio" }}
{{- $request = dict "mode" "hold" }}
{{- end }}
{{- $host := first .Values.hosts }}
{{- $given := deepCopy .Values.configuration }}
{{- $ours := dict
      "redis" (dict "cluster" "portcullis_redis")
      "vault" (dict "cluster" "portcullis_vault")
      "guards" (dict)
      "request" $request }}
{{- $defaults := dict "redis" (dict "timeout_ms" ((and $split (eq .Values.control_plane "istio")) | ternary 250 50)) }}
{{- if not (contains "*" $host) }}{{ $_ := set $defaults "auth" (dict "external_url" (printf "https://%s" $host)) }}{{ end }}
{{- $all := mergeOverwrite $defaults $given $ours }}
{{- $guards := dict }}
{{- range (include "portcullis.routes" . | fromJson).guarded }}{{ $_ := set $guards .path .guard }}{{ end }}
{{- $_ := set $all "guards" $guards }}
{{- $all | toPrettyJson }}
{{- end }}

{{- /* The digest as control planes want it. */ -}}
{{- define "portcullis.sha256" -}}{{ .digest | trimPrefix "sha256:" | quote }}{{- end }}

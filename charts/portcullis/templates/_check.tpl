{{/* What values.schema.json cannot say: fields that have to agree. Every faulty field is an error with what was expected. */}}

{{- define "portcullis.check" -}}
{{- if eq .Values.control_plane "istio" }}
{{- if not .Values.istio }}{{ fail "istio: nothing; expected the Gateway, such as {gateways: [portcullis]}" }}{{ end }}
{{- else }}
{{- if not .Values.gateway_api }}{{ fail "gateway_api: nothing; expected the Gateway, such as {parent_refs: [{name: mcp}]}" }}{{ end }}
{{- $names := list }}
{{- range .Values.listeners }}{{ $names = append $names .name }}{{ end }}
{{- with (first .Values.gateway_api.parent_refs).listeners }}
{{- if ne (sortAlpha . | toJson) (sortAlpha $names | toJson) }}
{{- fail (printf "gateway_api.parent_refs[0].listeners: %s; expected the names of `listeners`: %s" (toJson .) (toJson $names)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.gateway.own_ports (or (ne .Values.control_plane "istio") (eq .Values.mode "split")) }}
{{- fail "gateway.own_ports: only with control_plane: istio and mode: hold; a WasmPlugin and an EnvoyExtensionPolicy are for the whole gateway" }}
{{- end }}
{{- $ports := dict }}
{{- range .Values.listeners }}
{{- range list (printf "name %s" .name) (printf "port %d" (int .port)) }}
{{- if hasKey $ports . }}{{ fail (printf "listeners: the %s is there twice; each listener has a name and a port of its own" .) }}{{ end }}
{{- $_ := set $ports . true }}
{{- end }}
{{- end }}
{{- if and (contains ":" .Values.tests.address) (gt (len .Values.listeners) 1) }}
{{- fail (printf "tests.address: %s, for %d listeners; expected a host without a port: each listener is called at its own" .Values.tests.address (len .Values.listeners)) }}
{{- end }}
{{- $paths := dict }}
{{- range $name, $it := .Values.connectors }}
{{- range compact (list $it.path $it.messages) }}
{{- if hasKey $paths . }}{{ fail (printf "connectors.%s: the path %s is there twice" $name .) }}{{ end }}
{{- $_ := set $paths . true }}
{{- end }}
{{- end }}
{{- if and (has "*" .Values.hosts) (gt (len .Values.hosts) 1) }}{{ fail "hosts: * and another host; expected * alone, for every host" }}{{ end }}
{{- range $name, $_ := .Values.connectors }}
{{- range list "-listen" "-messages" "-unjudged" "-messages-unjudged" }}
{{- if hasKey $.Values.connectors (printf "%s%s" $name .) }}{{ fail (printf "connectors: %s%s is the name of a route of %s; expected another name" $name . $name) }}{{ end }}
{{- end }}
{{- end }}
{{- if .Values.network_policies.enabled }}
{{- range $part := list "redis" "vault" }}
{{- $it := get $.Values.network_policies $part }}
{{- if and $it (not $it.selector) }}{{ fail (printf "network_policies.%s: no selector; without one the policy would be for all pods of the namespace" $part) }}{{ end }}
{{- end }}
{{- end }}
{{- $drain := int .Values.envoy_gateway.drain_seconds }}
{{- if and $drain (le $drain (include "portcullis.longest" . | int)) }}
{{- fail (printf "envoy_gateway.drain_seconds: %d; expected more than the longest idle_timeout, which is %ss" $drain (include "portcullis.longest" .)) }}
{{- end }}
{{- end }}

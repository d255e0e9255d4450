{{/* The clusters of Redis and Vault. The comments of envoy/envoy.yaml say why each setting is as it is. */}}

{{- /* TLS to a host, as the field transport_socket; nothing without TLS. */ -}}
{{- define "portcullis.tls" -}}
{{- if .root.Values.tls.enabled }}
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    sni: {{ .host }}
    common_tls_context:
      {{- if .root.Values.tls.client_certificate }}
      tls_certificates:
      - certificate_chain: {filename: /var/local/portcullis-tls/tls.crt}
        private_key: {filename: /var/local/portcullis-tls/tls.key}
      {{- end }}
      validation_context:
        trusted_ca: {filename: /var/local/portcullis-tls/ca.crt}
        # Without this any certificate of that CA would do.
        match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: {{ .host }}}}]
{{- end }}
{{- end }}

{{- define "portcullis.endpoints" -}}
load_assignment:
  cluster_name: {{ .cluster }}
  endpoints:
  - lb_endpoints:
    - endpoint: {address: {socket_address: {address: {{ .host }}, port_value: {{ int .port }}}}}
{{- end }}

{{- /* `frame` is the HTTP filter that frames the connection. */ -}}
{{- define "portcullis.cluster.redis" -}}
{{- $to := .root.Values.redis -}}
name: portcullis_redis
type: STRICT_DNS
connect_timeout: 0.2s
upstream_connection_options: {tcp_keepalive: {keepalive_probes: 3, keepalive_time: 30, keepalive_interval: 5}}
{{ include "portcullis.endpoints" (dict "cluster" "portcullis_redis" "host" $to.host "port" $to.port) }}
{{- include "portcullis.tls" (dict "root" .root "host" $to.host) }}
upstream_config:
  name: envoy.filters.connection_pools.http.tcp
  typed_config: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.tcp.v3.TcpConnectionPoolProto}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http_protocol_options: {}}
    http_filters:
    - {{ .frame | indent 6 | trim }}
    - name: envoy.filters.http.upstream_codec
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}
{{- end }}

{{- define "portcullis.cluster.vault" -}}
{{- $to := .root.Values.vault -}}
name: portcullis_vault
type: STRICT_DNS
connect_timeout: 1s
{{ include "portcullis.endpoints" (dict "cluster" "portcullis_vault" "host" $to.host "port" $to.port) }}
{{- include "portcullis.tls" (dict "root" .root "host" $to.host) }}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http_protocol_options: {}}
    http_filters:
    - name: envoy.filters.http.credential_injector
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector
        overwrite: true
        allow_request_without_credential: false
        credential:
          name: envoy.http.injected_credentials.generic
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic
            header: X-Vault-Token
            credential:
              name: vault_token
              sds_config: {path_config_source: {path: /var/local/portcullis-token/token.yaml}}
    - name: envoy.filters.http.upstream_codec
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}
{{- end }}

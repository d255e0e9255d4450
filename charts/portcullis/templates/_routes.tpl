{{/* The routes of every connector, whatever they are written for: the same list as in `portcullis render`. */}}

{{- /* {guarded: [{connector, name, path, get, guard, previous, rewrite, host, idle}], unjudged: [{connector, name, path}]} as JSON. */ -}}
{{- define "portcullis.routes" -}}
{{- $all := include "portcullis.guards" . | fromJson }}
{{- $guarded := list }}
{{- $unjudged := list }}
{{- range $name, $it := .Values.connectors }}
{{- $upstream := $it.upstream }}
{{- $idle := $it.idle_timeout | default dict }}
{{- $answer := include "portcullis.seconds" ($idle.answer | default "120s") | int }}
{{- $listen := include "portcullis.seconds" ($idle.listen | default "3600s") | int }}
{{- $paths := list (list "" $it.path $upstream.path) }}
{{- with $it.messages }}{{ $paths = append $paths (list "-messages" . $upstream.messages) }}{{ end }}
{{- range $paths }}
{{- $suffix := index . 0 }}
{{- $path := index . 1 }}
{{- $guard := get $all.guards $path }}
{{- if not $guard }}{{ fail (printf "guards: there is no value for %s; run `portcullis render FILE --for plugin --guards guards.json`, which adds one" $path) }}{{ end }}
{{- $previous := get $all.previous $path }}
{{- if eq $previous $guard }}{{ $previous = "" }}{{ end }}
{{- $route := dict "connector" $name "path" $path "guard" $guard "previous" $previous "rewrite" (index . 2 | default "") "host" ($upstream.host | default "") "service" $upstream.service }}
{{- if not $suffix }}
{{- $guarded = append $guarded (merge (dict "name" (printf "%s-listen" $name) "get" true "idle" $listen) $route) }}
{{- end }}
{{- $guarded = append $guarded (merge (dict "name" (printf "%s%s" $name $suffix) "get" false "idle" $answer) $route) }}
{{- $unjudged = append $unjudged (dict "connector" $name "name" (printf "%s%s-unjudged" $name $suffix) "path" $path) }}
{{- end }}
{{- end }}
{{- dict "guarded" $guarded "unjudged" $unjudged | toJson }}
{{- end }}

{{- /* A time such as 90s, 10m or 1h in seconds. */ -}}
{{- define "portcullis.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int }}
{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600) (regexFind "[smh]$" .)) }}
{{- end }}

{{- /* Both values of a guard as a regular expression that has to match as a whole. */ -}}
{{- define "portcullis.either" -}}
{{ .previous | replace "." "[.]" }}|{{ .guard | replace "." "[.]" }}
{{- end }}

{{- /* The values of a guard as a list. */ -}}
{{- define "portcullis.values" -}}
{{ compact (list .previous .guard) | toJson }}
{{- end }}

{{- /* The largest time of silence of all routes, in seconds. */ -}}
{{- define "portcullis.longest" -}}
{{- $longest := 0 }}
{{- range (include "portcullis.routes" . | fromJson).guarded }}{{ $longest = max $longest (int .idle) }}{{ end }}
{{- $longest }}
{{- end }}

{{/* What the gateway is told, and what follows from it. Numbers come as texts, as float64 or as json.Number, depending on where
they were said: all pass `toString` before they are counted with. */}}

{{- define "fovea.gateway.name" -}}
{{- printf "%s-gateway" (include "fovea.fullname" .) -}}
{{- end -}}

{{/* Of what it listens on, the engines and others that it asks. */}}
{{- define "fovea.gateway.port" -}}8000{{- end -}}
{{- define "fovea.grammar.port" -}}8200{{- end -}}

{{/* The defaults of settings that the chart counts with, as they are in gateway/settings.py: a test holds them to it. */}}
{{- define "fovea.gateway.settingsHere" -}}
{{- $defaults := dict "body_mib_in_flight" 512 "workers" 1 "image_url_schemes" (list "https") "request_timeout_s" 600 "allow_anonymous" false -}}
{{- /* Not by `merge`, which takes an empty list for none. */}}
{{- range $name, $value := .Values.gateway.settings -}}{{- $_ := set $defaults $name $value -}}{{- end -}}
{{- $defaults | toJson -}}
{{- end -}}

{{/* The longest that any answer may take, in whole seconds. */}}
{{- define "fovea.longestAnswer" -}}
{{- $longest := 0.0 -}}
{{- range $all := list .Values.models .Values.providers -}}
{{- range $entry := $all -}}
{{- $seconds := get $entry "longest_answer_s" | toString | float64 -}}
{{- if gt $seconds $longest -}}{{- $longest = $seconds -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- ceil $longest | int -}}
{{- end -}}

{{/* How long whoever is in between must wait for the gateway: as long as a request may take, and a moment. */}}
{{- define "fovea.gateway.proxySeconds" -}}
{{- $timeout := get (include "fovea.gateway.settingsHere" . | fromJson) "request_timeout_s" | toString | float64 | ceil | int -}}
{{- add (max $timeout (include "fovea.longestAnswer" . | int)) 30 -}}
{{- end -}}

{{/* The gateway's catalog, as JSON. A model's own part of it is the values' entry, with where its engines are. */}}
{{- define "fovea.gateway.catalog" -}}
{{- $models := dict -}}
{{- range $name, $model := .Values.models -}}
{{- $url := include "fovea.engineUrl" (dict "root" $ "model" $name) -}}
{{- $_ := set $models $name (set (omit $model "kubernetes") "engine_url" $url) -}}
{{- end -}}
{{- $first := keys .Values.models | sortAlpha | first -}}
{{- $profile := include "fovea.model.profile" (dict "root" . "model" $first) | fromYaml -}}
{{- $catalog := dict "hardware" (omit $profile.hardware "nodes") "limits" .Values.limits "models" $models -}}
{{- if .Values.providers -}}{{- $_ := set $catalog "providers" .Values.providers -}}{{- end -}}
{{- if .Values.data_may_leave -}}{{- $_ := set $catalog "data_may_leave" true -}}{{- end -}}
{{- if .Values.routing -}}{{- $_ := set $catalog "routing" .Values.routing -}}{{- end -}}
{{- $catalog | toJson -}}
{{- end -}}

{{/* A setting as its variable has it. json.Number is a text to Go, and what JSON makes of a float64 has no exponent. */}}
{{- define "fovea.gateway.settingText" -}}
{{- if kindIs "slice" . -}}{{- join "," . -}}
{{- else if kindIs "string" . -}}{{- toString . -}}
{{- else -}}{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* The port that a URL names, or the one of its scheme. */}}
{{- define "fovea.urlPort" -}}
{{- $url := urlParse . -}}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $named | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- end -}}

{{/* The ports outside that the gateway asks at, as JSON: for images, and of providers. */}}
{{- define "fovea.gateway.outsidePorts" -}}
{{- $ports := list -}}
{{- range get (include "fovea.gateway.settingsHere" . | fromJson) "image_url_schemes" -}}
{{- $ports = append $ports (ternary 80 443 (eq . "http")) -}}
{{- end -}}
{{- range .Values.providers -}}
{{- $ports = append $ports (include "fovea.urlPort" .url | int) -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end -}}

{{/* A quantity of memory in MiB, rounded down. */}}
{{- define "fovea.mebibytes" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- $number := trimSuffix $unit $text | float64 -}}
{{- $bytes := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- divf (mulf $number (get $bytes $unit | default 0)) 1048576 | floor | int -}}
{{- end -}}

{{/* How many gateways there are at the least. */}}
{{- define "fovea.gateway.leastReplicas" -}}
{{- $auto := .Values.gateway.autoscaling -}}
{{- if $auto.hpa.enabled -}}{{- $auto.hpa.minReplicas -}}
{{- else if $auto.keda.enabled -}}{{- $auto.keda.minReplicas -}}
{{- else -}}{{- .Values.gateway.replicas -}}
{{- end -}}
{{- end -}}

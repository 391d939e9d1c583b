{{/* Names of objects, and what they hang on. */}}

{{/* The chart's name, in labels. */}}
{{- define "fovea.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 36 | trimSuffix "-" -}}
{{- end -}}

{{/* What the names of all objects begin with: a DNS-1035 label of at most 36 characters, so that the longest name that is made
of it, the StatefulSet `<fullname>-redis-ray-state`, has at most 52. */}}
{{- define "fovea.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := include "fovea.name" . -}}
{{- $wanted := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- include "fovea.label1035" (dict "wanted" $wanted "most" 36) -}}
{{- end -}}
{{- end -}}

{{/* `wanted` as a DNS-1035 label of at most `most` characters; where that is not what it is, with a hash of it at the end. */}}
{{- define "fovea.label1035" -}}
{{- $label := .wanted | replace "." "-" -}}
{{- if not (regexMatch "^[a-z]" $label) -}}{{- $label = printf "f-%s" $label -}}{{- end -}}
{{- if and (eq $label .wanted) (le (len $label) (int .most)) -}}
{{- $label -}}
{{- else -}}
{{- printf "%s-%s" ($label | trunc (int (sub .most 6)) | trimSuffix "-") (sha256sum .wanted | trunc 5) -}}
{{- end -}}
{{- end -}}

{{/* The RayService of `model`, in the chart's context `root`: at most 47 characters, which KubeRay asks for. */}}
{{- define "fovea.rayservice" -}}
{{- $fullname := include "fovea.fullname" .root -}}
{{- $label := .model | replace "." "-" -}}
{{- $most := int (sub 46 (len $fullname)) -}}
{{/* Beside a RayService its model has a NetworkPolicy of its name, which must not be the one of a part of the chart. */}}
{{- $taken := has $label (list "catalog" "engines" "gateway" "grammar" "redis" "redis-answers" "redis-ray-state" "test") -}}
{{- if and (eq $label .model) (le (len $label) $most) (not $taken) -}}
{{- printf "%s-%s" $fullname $label -}}
{{- else -}}
{{- printf "%s-%s-%s" $fullname ($label | trunc (int (sub $most 6)) | trimSuffix "-") (sha256sum .model | trunc 5) -}}
{{- end -}}
{{- end -}}

{{/* Where the engines of `model` answer the gateway. */}}
{{- define "fovea.engineUrl" -}}
{{- printf "http://%s-serve-svc.%s.svc:8000/%s" (include "fovea.rayservice" .) .root.Release.Namespace .model -}}
{{- end -}}

{{- define "fovea.serviceAccountName" -}}
{{- include "fovea.fullname" . -}}
{{- end -}}

{{/* The Secret that gateway and engines share. */}}
{{- define "fovea.engines.secretName" -}}
{{- .Values.engines.secret.existingSecret | default (printf "%s-engines" (include "fovea.fullname" .)) -}}
{{- end -}}

{{/* The Secret of the passwords of the Redis that the chart brings. */}}
{{- define "fovea.redis.secretName" -}}
{{- printf "%s-redis" (include "fovea.fullname" .) -}}
{{- end -}}

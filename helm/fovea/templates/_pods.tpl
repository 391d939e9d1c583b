{{/* What all pods have in common. */}}

{{/* `image` of the values as one reference; `root` for the default tag. */}}
{{- define "fovea.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion | toString) -}}
{{- end -}}
{{- end -}}

{{/* A pod's imagePullSecrets, with the key; nothing where there are none. The argument is the chart's context. */}}
{{- define "fovea.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Of every pod: what PodSecurity `restricted` asks, and the groups of its volumes. The images' user is 1000; Redis' own is 999,
and it works as any. The argument is the chart's context. */}}
{{- define "fovea.podSecurityContext" -}}
{{- toYaml .Values.podSecurityContext -}}
{{- end -}}

{{/* What `restricted` asks of a container. */}}
{{- define "fovea.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The same, for what writes nowhere but into its volumes. */}}
{{- define "fovea.readOnlySecurityContext" -}}
{{ include "fovea.containerSecurityContext" . }}
readOnlyRootFilesystem: true
{{- end -}}

{{/* Where a pod of the chart's own runs, from the keys of `at`: nodeSelector, tolerations, affinity, priorityClassName. */}}
{{- define "fovea.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" -}}
{{- with get $.at $key }}
{{ $key }}: {{ toJson . }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* `models.<name>.kubernetes` over `engines.model`, as YAML: `root` and `model`, a name. */}}
{{- define "fovea.model.kubernetes" -}}
{{- $own := get (get .root.Values.models .model) "kubernetes" | default dict -}}
{{- include "fovea.over" (dict "base" .root.Values.engines.model "own" $own) | fromJson | toYaml -}}
{{- end -}}

{{/* `own` over `base`, as JSON, map by map. What is empty counts as well, which Sprig's mergeOverwrite would pass over: `tolerations: []`
takes away what engines.model has. */}}
{{- define "fovea.over" -}}
{{- $merged := deepCopy .base -}}
{{- range $key, $value := .own -}}
{{- $there := get $merged $key -}}
{{- if and $value (kindIs "map" $value) (kindIs "map" $there) -}}
{{- $value = include "fovea.over" (dict "base" $there "own" $value) | fromJson -}}
{{- end -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- $merged | toJson -}}
{{- end -}}

{{/* The profile that `model` runs on, as YAML; what one of the user's leaves out is NVIDIA's. Which is not there, validate.yaml says. */}}
{{- define "fovea.model.profile" -}}
{{- $name := get (include "fovea.model.kubernetes" . | fromYaml) "profile" -}}
{{- $profile := get .root.Values.profiles $name | default dict -}}
{{- if eq (dig "hardware" "kind" "cpu" $profile) "gpu" -}}
{{- $resource := $profile.resourceName | default "nvidia.com/gpu" -}}
{{- /* Of a part of a GPU the taint is still the whole one's. */}}
{{- $key := regexReplaceAll "^nvidia[.]com/.*$" $resource "nvidia.com/gpu" -}}
{{- $taint := dict "key" $key "operator" "Exists" "effect" "NoSchedule" -}}
{{- $profile = merge (dict "resourceName" $resource) $profile -}}
{{- if not (hasKey $profile "tolerations") -}}
{{- $profile = set $profile "tolerations" (list $taint) -}}
{{- end -}}
{{- end -}}
{{- toYaml $profile -}}
{{- end -}}

{{/* Peers that are outside this cluster and every private network, as the items of `to` in a NetworkPolicy. */}}
{{- define "fovea.networkPolicy.outside" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except: [0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
- ipBlock:
    cidr: "::/0"
    except: ["::1/128", "64:ff9b::/96", "fc00::/7", "fe80::/10"]
{{- end -}}

{{/* The rule of `egress` that lets a pod ask for names. The argument is the chart's context. */}}
{{- define "fovea.networkPolicy.dns" -}}
- to: {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
  ports:
    - {protocol: UDP, port: {{ .Values.networkPolicy.dns.port }}}
    - {protocol: TCP, port: {{ .Values.networkPolicy.dns.port }}}
{{- end -}}

{{/* One model as Ray serves it. All of these take `root`, the chart's context, and `model`, a name of `models`. */}}

{{- /*
What the rest is made of, as JSON; numbers of it pass `int`.

  kubernetes, profile  of the values, merged
  cpu                  whether it runs without GPUs
  hosts, gpus          the pods of one replica, and the GPUs of each
  least, most          replicas
  longest              seconds that an answer may take, whole
  demo, remote         whether some of it is of the demo, and perhaps made on the spot; whether some of it comes from elsewhere
*/}}
{{- define "fovea.engine" -}}
{{- $entry := get .root.Values.models .model -}}
{{- $kubernetes := include "fovea.model.kubernetes" . | fromYaml -}}
{{- $profile := include "fovea.model.profile" . | fromYaml -}}
{{- $cpu := eq $profile.hardware.kind "cpu" -}}
{{- $parallel := $entry.tensor_parallel | default 1 | toString | float64 | int -}}
{{- $each := ternary 1 ($profile.hardware.gpus_per_node | default 1 | toString | float64 | int) $cpu -}}
{{- $hosts := ternary 1 (max 1 (div $parallel $each)) $cpu | int -}}
{{- $scaling := $entry.autoscaling | default dict -}}
{{- $replicas := $entry.replicas | default 1 -}}
{{- $sources := include "fovea.model.sources" $entry | fromJsonArray -}}
{{- $demo := false -}}
{{- $remote := false -}}
{{- range $sources -}}
{{- if hasPrefix "demo:" . -}}{{- $demo = true -}}{{- else if not (hasPrefix "/" .) -}}{{- $remote = true -}}{{- end -}}
{{- end -}}
{{- dict
  "kubernetes" $kubernetes
  "profile" $profile
  "cpu" $cpu
  "parallel" $parallel
  "hosts" $hosts
  "gpus" (ternary 0 (min $parallel $each) $cpu)
  "least" ($scaling.min_replicas | default $replicas | toString | float64 | int)
  "most" ($scaling.max_replicas | default $replicas | toString | float64 | int)
  "autoscaled" (not (empty $scaling))
  "longest" ($entry.longest_answer_s | toString | float64 | ceil | int)
  "demo" $demo
  "remote" $remote
  | toJson -}}
{{- end -}}

{{- /* Where a model and its adapters come from, as a JSON array. The argument is its entry. */}}
{{- define "fovea.model.sources" -}}
{{- $sources := list .source -}}
{{- range .adapters -}}{{- $sources = append $sources .source -}}{{- end -}}
{{- $sources | toJson -}}
{{- end -}}

{{- /*
The catalog that the engines of one model are built from, as JSON. Serve starts all replicas anew when anything in it changes (it
hashes the application's `args`), so it holds what engines are built from and nothing else: not what the gateway alone reads, not
how many replicas there are beyond one or more (which decides whether Serve has to choose), and a tier that never changes.
Nor does it have `accelerator_type`: Ray's autoscaler does not know such a resource of pods that are not there yet, and would make
none for a replica that asks for it. All pods of a model's Ray cluster are alike, and the profile says on which nodes they are.
*/}}
{{- define "fovea.engine.catalog" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- $entry := get .root.Values.models .model -}}
{{- $kept := omit $entry "kubernetes" "tier" "price" "languages" "cache" "auto_detail" "max_image_pixels" "image_processor" "bits_per_parameter" "replicas" "autoscaling" -}}
{{- $_ := set $kept "tier" "engine" -}}
{{- $most := min 2 (int $engine.most) -}}
{{- if $engine.autoscaled -}}
{{- /* A target that every model can exceed, as one that it cannot is refused. */}}
{{- $_ := set $kept "autoscaling" (dict "min_replicas" 1 "max_replicas" $most "target_in_flight" 0.5) -}}
{{- else -}}
{{- $_ := set $kept "replicas" $most -}}
{{- end -}}
{{- dict "hardware" (omit $engine.profile.hardware "nodes" "accelerator_type") "limits" .root.Values.limits "models" (dict .model $kept) | toJson -}}
{{- end -}}

{{- /*
`serveConfigV2`. How many replicas a model has, or between which bounds, stands beside `args`, so that a change of it starts no
engine anew. The deployment's name is Ray's: Serve LLM calls it so in ray 2.60 (core/server/builder.py), with the dots of a model's name
replaced.
*/}}
{{- define "fovea.engine.serveConfig" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- $application := dict
  "name" .model
  "route_prefix" (printf "/%s" .model)
  "import_path" "deploy.app:build"
  "args" (dict "catalog" (include "fovea.engine.catalog" . | fromJson) "model" .model)
-}}
{{- $deployment := dict "name" (printf "LLMServer:%s" (.model | replace "." "_")) -}}
{{- if $engine.autoscaled -}}
{{- $_ := set $deployment "autoscaling_config" (include "fovea.engine.scaling" . | fromJson) -}}
{{- else -}}
{{- $_ := set $deployment "num_replicas" (int $engine.most) -}}
{{- end -}}
{{- $_ := set $application "deployments" (list $deployment) -}}
{{- $config := dict
  "proxy_location" "EveryNode"
  "http_options" (dict "host" "0.0.0.0" "port" 8000)
  "applications" (list $application)
-}}
{{- include "fovea.document" $config -}}
{{- end -}}

{{- /* `autoscaling` of the catalog as Serve has it, by deploy/engine.py `_replicas`, as JSON; the catalog's defaults are said here again. */}}
{{- define "fovea.engine.scaling" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- $scaling := (get .root.Values.models .model).autoscaling -}}
{{- dict
  "min_replicas" (int $engine.least)
  "max_replicas" (int $engine.most)
  "target_ongoing_requests" $scaling.target_in_flight
  "upscale_delay_s" (dig "upscale_delay_s" 30 $scaling)
  "downscale_delay_s" (dig "downscale_delay_s" 600 $scaling)
  | toJson -}}
{{- end -}}

{{- /* deploy/limits.py `serve_environment`: a test holds it to that. Ray's processes on heads and workers need all of it. */}}
{{- define "fovea.engine.serveEnv" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- $bodyMib := .root.Values.limits.body_mib | toString | float64 | int64 -}}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
- {name: RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING, value: "1"}
- {name: RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S, value: {{ add (int $engine.longest) 10 | quote }}}
- {name: RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S, value: {{ include "fovea.engine.drainSeconds" . | quote }}}
- {name: RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS, value: "1"}
- {name: RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH, value: {{ mul (add $bodyMib 1) 1048576 | quote }}}
- {name: RAYLLM_ENABLE_REQUEST_PROMPT_LOGS, value: "0"}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- end -}}

{{- /* deploy/limits.py `DRAIN_S`. */}}
{{- define "fovea.engine.drainSeconds" -}}30{{- end -}}

{{- /* How long a worker sleeps before it is told to stop: until no Service leads to it any more. */}}
{{- define "fovea.engine.sleepSeconds" -}}20{{- end -}}

{{- /* From when a worker is told to stop to when it has: Serve's drain, the longest answer, its end, and time for Serve to begin. */}}
{{- define "fovea.engine.stopSeconds" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- add (include "fovea.engine.drainSeconds" . | int) (int $engine.longest) 10 10 -}}
{{- end -}}

{{- /* From when a worker is to go to when it must be gone: the sleep, its stop, and a margin. */}}
{{- define "fovea.engine.graceSeconds" -}}
{{- add (include "fovea.engine.sleepSeconds" . | int) (include "fovea.engine.stopSeconds" . | int) 10 -}}
{{- end -}}

{{- /* Where weights and what is compiled are kept, for whatever loads them. */}}
{{- define "fovea.engine.cacheEnv" -}}
- {name: HF_HOME, value: /models/huggingface}
- {name: XDG_CACHE_HOME, value: /models/cache}
{{- end -}}

{{- /* How whatever loads weights or tokenizers reaches Hugging Face. The argument is the chart's context. */}}
{{- define "fovea.engine.huggingFaceEnv" -}}
- {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
{{- if .Values.engines.offline }}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- with .Values.engines.huggingFace.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ . | quote }}, key: {{ $.Values.engines.huggingFace.tokenKey | quote }}}
{{- end }}
{{- end -}}

{{- /* The environment of Ray's containers: the same on head and workers, as either may build the application. */}}
{{- define "fovea.engine.env" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{ include "fovea.engine.serveEnv" . }}
- name: VLLM_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ include "fovea.engines.secretName" .root | quote }}, key: {{ .root.Values.engines.secret.apiKeyKey | quote }}}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
- {name: DO_NOT_TRACK, value: "1"}
{{ include "fovea.engine.cacheEnv" . }}
{{ include "fovea.engine.huggingFaceEnv" .root }}
{{- with $engine.kubernetes.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Labels of Ray's pods: what they are selected by, and what the values add; nothing that changes with a release. */}}
{{- define "fovea.engine.podLabels" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- merge (include "fovea.engine.selectorLabels" . | fromYaml) $engine.kubernetes.labels | toYaml -}}
{{- end -}}

{{- /* The spec of Ray's pods, as far as head and workers have it in common. */}}
{{- define "fovea.engine.pod" -}}
enableServiceLinks: false
{{- with include "fovea.imagePullSecrets" .root }}
{{ . }}
{{- end }}
securityContext: {{- include "fovea.podSecurityContext" .root | nindent 2 }}
{{- end -}}

{{- /* The first keys of a container of the engines' image. The argument is the chart's context. */}}
{{- define "fovea.engine.image" -}}
image: {{ include "fovea.image" (dict "root" . "image" .Values.engines.image) }}
imagePullPolicy: {{ .Values.engines.image.pullPolicy }}
{{- end -}}

{{- /*
/dev/shm, `size` large. KubeRay would mount one as large as the pod's memory. Ray's own object store is kept small below, as
requests do not go through it.
*/}}
{{- define "fovea.engine.sharedMemory" -}}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ .size }}}
{{- end -}}
{{- define "fovea.engine.objectStoreBytes" -}}268435456{{- end -}}

{{- /* The volume that is mounted at /models. */}}
{{- define "fovea.engine.modelVolume" -}}
{{- $cache := (include "fovea.engine" . | fromJson).kubernetes.modelCache -}}
- name: models
{{- if eq $cache.kind "emptyDir" }}
  emptyDir: {sizeLimit: {{ $cache.size }}}
{{- else if eq $cache.kind "existingClaim" }}
  persistentVolumeClaim: {claimName: {{ $cache.existingClaim | quote }}}
{{- else }}
  persistentVolumeClaim: {claimName: {{ include "fovea.rayservice" . }}-models}
{{- end }}
{{- end -}}

{{- /* Makes the demo models of the catalog, of `model` where that is said, before anything looks for them. */}}
{{- define "fovea.engine.demoContainer" -}}
- name: demo-models
  {{- include "fovea.engine.image" .root | nindent 2 }}
  command: [python3, -m, deploy.demo.prepare]
  args:
    - --catalog
    - /etc/fovea/catalog/catalog.yaml
    {{- with .model }}
    - --model
    - {{ . | quote }}
    {{- end }}
  env:
    - {name: HOME, value: /tmp}
    {{- include "fovea.engine.cacheEnv" . | nindent 4 }}
  resources: {requests: {cpu: 100m, memory: 512Mi}, limits: {memory: 2Gi}}
  securityContext: {{- include "fovea.readOnlySecurityContext" .root | nindent 4 }}
  volumeMounts:
    - {name: catalog, mountPath: /etc/fovea/catalog, readOnly: true}
    - {name: models, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- /* A worker's resources: the values' and its GPUs. */}}
{{- define "fovea.engine.workerResources" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- $resources := deepCopy $engine.kubernetes.resources -}}
{{- if not $engine.cpu -}}
{{- $gpus := dict $engine.profile.resourceName (int $engine.gpus | toString) -}}
{{- range $key := list "requests" "limits" -}}
{{- $_ := set $resources $key (merge (get $resources $key | default dict) $gpus) -}}
{{- end -}}
{{- end -}}
{{- $resources | toYaml -}}
{{- end -}}

{{- /* What every container of the chart is confined to, and what this model's workers are let do. KubeRay gives it to who waits for the
head before them as well. */}}
{{- define "fovea.engine.workerSecurityContext" -}}
{{- $own := (include "fovea.engine" . | fromJson).kubernetes.securityContext -}}
{{- include "fovea.over" (dict "base" (include "fovea.containerSecurityContext" .root | fromYaml) "own" $own) | fromJson | toYaml -}}
{{- end -}}

{{- /* Where workers run: what the profile asks for, and what the model does. */}}
{{- define "fovea.engine.workerPlacement" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- $kubernetes := $engine.kubernetes -}}
{{- $at := dict
  "nodeSelector" (merge (deepCopy ($kubernetes.nodeSelector | default dict)) ($engine.profile.nodeSelector | default dict))
  "tolerations" (concat ($engine.profile.tolerations | default list) ($kubernetes.tolerations | default list))
  "affinity" $kubernetes.affinity
  "priorityClassName" $kubernetes.priorityClassName
-}}
{{- include "fovea.placement" (dict "at" $at) | trim -}}
{{- with $engine.profile.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /*
Ray's CPUs are for its bookkeeping: processes share the real ones. On GPUs those say what fits a pod. Without, one replica takes
half a CPU for each worker and a tenth (deploy/engine.py), so that of as many CPUs as it has workers it leaves no room for another.
*/}}
{{- define "fovea.engine.logicalCpus" -}}
{{- $engine := include "fovea.engine" . | fromJson -}}
{{- ternary (int $engine.parallel) 16 $engine.cpu -}}
{{- end -}}

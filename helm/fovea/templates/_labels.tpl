{{/* Labels. Those of objects take `root` and `component`; Ray's pods take only those that never change with a release. */}}

{{- define "fovea.labels" -}}
{{- $own := include "fovea.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $own "app.kubernetes.io/version" (.root.Chart.AppVersion | toString) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- merge $own .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* What pods of a component are found by; it never changes. */}}
{{- define "fovea.selectorLabels" -}}
app.kubernetes.io/name: {{ include "fovea.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Of the pods of one model, in Ray's pod templates and wherever they are selected: `root` and `model`. Their
app.kubernetes.io/name is KubeRay's, which selects heads by it. */}}
{{- define "fovea.engine.selectorLabels" -}}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: engine
fovea.dev/model: {{ .model | quote }}
{{- end -}}

{{/* What selects the pods of all models. The argument is the chart's context. */}}
{{- define "fovea.engines.selector" -}}
matchLabels:
  app.kubernetes.io/instance: {{ .Release.Name | quote }}
  app.kubernetes.io/component: engine
matchExpressions:
  - {key: fovea.dev/model, operator: Exists}
{{- end -}}

{{/* Labels of the pods of a Deployment or StatefulSet: `root`, `component`, and `own`, those that the values add. */}}
{{- define "fovea.podLabels" -}}
{{- $labels := include "fovea.selectorLabels" . | fromYaml -}}
{{- merge $labels (.own | default dict) .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* What both Redis that the chart can bring have in common. */}}

{{- define "fovea.redis.answers.name" -}}
{{- printf "%s-redis-answers" (include "fovea.fullname" .) -}}
{{- end -}}
{{- define "fovea.redis.rayState.name" -}}
{{- printf "%s-redis-ray-state" (include "fovea.fullname" .) -}}
{{- end -}}

{{- /* A pod's spec but for its volumes at /data: `root`, `resources` and `options`, a list of texts for redis-server. */}}
{{- define "fovea.redis.pod" -}}
serviceAccountName: {{ include "fovea.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "fovea.imagePullSecrets" .root }}
{{ . }}
{{- end }}
securityContext: {{- include "fovea.podSecurityContext" .root | nindent 2 }}
containers:
  - name: redis
    image: {{ include "fovea.image" (dict "root" .root "image" .root.Values.redis.image) }}
    imagePullPolicy: {{ .root.Values.redis.image.pullPolicy }}
    {{- /* The password is in no argument, which whoever sees the list of processes could read. */}}
    command:
      - sh
      - -c
      - |
        umask 077
        printf 'requirepass %s\n' "$(cat /etc/fovea/redis/password)" > /run/redis/password.conf
        exec redis-server /run/redis/password.conf "$@"
      - redis-server
      {{- toYaml .options | nindent 6 }}
    ports:
      - {name: redis, containerPort: 6379}
    readinessProbe:
      exec: {command: [sh, -c, {{ include "fovea.redis.ping" "PONG" | quote }}]}
      periodSeconds: 5
      timeoutSeconds: 5
    {{- /* One that reads its file is alive. */}}
    livenessProbe:
      exec: {command: [sh, -c, {{ include "fovea.redis.ping" "PONG|LOADING" | quote }}]}
      initialDelaySeconds: 10
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    resources: {{- toYaml .resources | nindent 6 }}
    securityContext: {{- include "fovea.readOnlySecurityContext" .root | nindent 6 }}
    volumeMounts:
      - {name: password, mountPath: /etc/fovea/redis, readOnly: true}
      - {name: run, mountPath: /run/redis}
      - {name: data, mountPath: /data}
{{- end -}}

{{- /* A command that ends well where Redis answers with what the argument says. */}}
{{- define "fovea.redis.ping" -}}
REDISCLI_AUTH="$(cat /etc/fovea/redis/password)" redis-cli ping 2>&1 | grep -qE '^({{ . }})'
{{- end -}}

{{- /* The volumes of the pod that are not its data. The argument is the chart's context. */}}
{{- define "fovea.redis.volumes" -}}
- name: password
  secret: {secretName: {{ include "fovea.redis.secretName" . | quote }}, defaultMode: 0440}
- name: run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end -}}

{{- /* The Service of one of them: `root`, `component` and `name`. */}}
{{- define "fovea.redis.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels: {{- include "fovea.labels" . | nindent 4 }}
spec:
  selector: {{- include "fovea.selectorLabels" . | nindent 4 }}
  ports:
    - {name: redis, port: 6379, targetPort: redis, protocol: TCP}
{{- end -}}

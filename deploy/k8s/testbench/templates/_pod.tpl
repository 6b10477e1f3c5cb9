{{/*
Parts of pods, the same for those of this chart and those of runs (in dagster.yaml).
Give (dict "root" $ "stores" (list "dagster" "documents") "keys" true "workspace" true), and as "prefix" which copies
of ConfigMaps and Secrets they read, "" or "migration-". "launched": dagster_k8s starts it, and sets DAGSTER_HOME itself.
*/}}
{{- define "testbench.env" -}}
{{- $secret := include "testbench.storesSecret" (dict "root" .root "prefix" (.prefix | default "")) -}}
{{- $variables := list -}}
{{- if has "dagster" .stores -}}
{{- $variables = append $variables "DAGSTER_POSTGRES_URL" -}}
{{- end -}}
{{- if has "documents" .stores -}}
{{- $variables = concat $variables (list "TESTBENCH_MONGO_URI" "TESTBENCH_POSTGRES_URI") -}}
{{- end -}}
{{- if and (has "dagster" .stores) (eq .root.Values.launcher "celery") -}}
{{- $variables = append $variables "TESTBENCH_REDIS_URL" -}}
{{- end -}}
{{- if not .launched }}
- name: DAGSTER_HOME
  value: /opt/dagster/dagster_home
{{- end }}
- name: TESTBENCH_CONFIG
  value: /etc/testbench/testbench.yaml
- name: TESTBENCH_HOME
  value: /var/lib/testbench
{{- range $variables }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ . }}
{{- end }}
{{- range $name, $value := .root.Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "testbench.envFrom" -}}
{{- $secrets := list -}}
{{- with .root.Values.sharedSecret -}}
{{- $secrets = append $secrets . -}}
{{- end -}}
{{- if .keys -}}
{{- with include "testbench.keysSecret" .root -}}
{{- $secrets = append $secrets . -}}
{{- end -}}
{{- end -}}
{{- $refs := list -}}
{{- range $secrets -}}
{{- $refs = append $refs (dict "secretRef" (dict "name" .)) -}}
{{- end -}}
{{- toYaml $refs -}}
{{- end -}}

{{- define "testbench.volumeMounts" -}}
- name: config
  mountPath: /etc/testbench
  readOnly: true
- name: dagster-home
  mountPath: /opt/dagster/dagster_home
- name: instance
  mountPath: /opt/dagster/dagster_home/dagster.yaml
  subPath: dagster.yaml
  readOnly: true
{{- if .workspace }}
- name: instance
  mountPath: /opt/dagster/dagster_home/workspace.yaml
  subPath: workspace.yaml
  readOnly: true
{{- end }}
- name: home
  mountPath: /var/lib/testbench
- name: tmp
  mountPath: /tmp
{{- if and .keys .root.Values.keyFiles.existingSecret }}
- name: key-files
  mountPath: /etc/testbench-keys
  readOnly: true
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "testbench.volumes" -}}
{{- $name := include "testbench.fullname" .root -}}
- name: config
  configMap:
    name: {{ $name }}-{{ .prefix }}config
- name: instance
  configMap:
    name: {{ $name }}-{{ .prefix }}instance
- name: dagster-home
  emptyDir: {}
- name: home
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- if and .keys .root.Values.keyFiles.existingSecret }}
- name: key-files
  secret:
    secretName: {{ .root.Values.keyFiles.existingSecret }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "testbench.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.user }}
runAsGroup: {{ .Values.user }}
fsGroup: {{ .Values.user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "testbench.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where a pod may run; give the values of its role. */}}
{{- define "testbench.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* What keeps a pod apart from its node; give the values of what executes runs. */}}
{{- define "testbench.sandbox" -}}
{{- if not .hostUsers }}
hostUsers: false
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The template of a pod with one container; give what "testbench.env" takes, "role", "values", "account", "grace"
and, as YAML of a container, "container"; "sandbox" is what "testbench.sandbox" takes. */}}
{{- define "testbench.podTemplate" -}}
metadata:
  labels:
    {{- include "testbench.labels" . | nindent 4 }}
  annotations:
    {{- include "testbench.checksums" .root | nindent 4 }}
    {{- with .values.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ .account | default (include "testbench.fullname" .root) }}
  automountServiceAccountToken: {{ if .account }}true{{ else }}false{{ end }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  securityContext:
    {{- include "testbench.podSecurityContext" .root | nindent 4 }}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with .sandbox }}
  {{- include "testbench.sandbox" . | nindent 2 }}
  {{- end }}
  {{- include "testbench.placement" .values | nindent 2 }}
  containers:
    - name: {{ .role }}
      image: {{ include "testbench.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      env:
        {{- include "testbench.env" . | nindent 8 }}
      envFrom:
        {{- include "testbench.envFrom" . | nindent 8 }}
      volumeMounts:
        {{- include "testbench.volumeMounts" . | nindent 8 }}
      securityContext:
        {{- include "testbench.containerSecurityContext" .root | nindent 8 }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      {{- .container | nindent 6 }}
  volumes:
    {{- include "testbench.volumes" (merge (dict "prefix" "") .) | nindent 4 }}
{{- end -}}
